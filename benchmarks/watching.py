"""What each stage of a run used, seen from outside: Linux's /proc is read while it works."""

import os
import re
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

SECONDS = 0.25  # between two looks
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
# What of a job's options says which of several it is.
TOLD = ("--precision", "--output", "--shard")


@dataclass
class Job:
    """One script's process, and those that it started."""

    name: str
    started: float
    ended: float = 0.0
    cpu: dict[int, float] = field(default_factory=dict)  # seconds by process
    peak_bytes: int = 0  # of all of them at a time

    @property
    def wall_seconds(self) -> float:
        return self.ended - self.started

    @property
    def cpu_seconds(self) -> float:
        return sum(self.cpu.values())


class Watch:
    """Watches the descendants of a process from a thread until it is stopped."""

    def __init__(self, root: int) -> None:
        self.root = root
        self.jobs: dict[tuple[int, str], Job] = {}
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def __enter__(self) -> "Watch":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()

    def watch(self) -> None:
        while not self.over.wait(SECONDS):
            self.look()

    def look(self) -> None:
        """Add what the processes of each script use now."""
        children: dict[int, list[int]] = {}
        for entry in os.listdir("/proc"):
            if entry.isdecimal() and (found := stat(int(entry))):
                children.setdefault(found[0], []).append(int(entry))
        waiting = [*children.get(self.root, ())]
        while waiting:
            process = waiting.pop()
            name = script_of(process)
            if name is None:
                waiting += children.get(process, ())
                continue
            family, rest = [], [process]
            while rest:
                family.append(rest.pop())
                rest += children.get(family[-1], ())
            self.add(process, name, family)

    def add(self, process: int, name: str, family: list[int]) -> None:
        now = time.monotonic()
        job = self.jobs.setdefault((process, name), Job(name, now))
        job.ended = now
        resident = 0
        for each in family:
            if found := stat(each):
                job.cpu[each] = found[1]
                resident += found[2]
        job.peak_bytes = max(job.peak_bytes, resident, highest(process))


def stat(process: int) -> tuple[int, float, int] | None:
    """(parent, CPU seconds, resident bytes) of a process; None once it is gone. See proc(5)."""
    with suppress(OSError, IndexError, ValueError):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return int(fields[1]), sum(map(int, fields[11:13])) / TICKS, int(fields[21]) * PAGE
    return None


def highest(process: int) -> int:
    """The largest resident size of a process so far, in bytes."""
    with suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
        return int(found[1]) * 1024 if found else 0
    return 0


def script_of(process: int) -> str | None:
    """The stage that a process runs, such as "generate w4a16"; None if it runs no script."""
    with suppress(OSError):
        words = Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace").split("\0")
        if len(words) < 2 or not Path(words[0]).name.startswith("python"):
            return None
        script = Path(words[1])
        if script.suffix != ".py" or script.parent.name != "scripts":
            return None
        return " ".join([script.stem, *told(words[2:])])
    return None


def told(words: list[str]) -> list[str]:
    """What the options of a script say of it: its precision, or what it writes."""
    options: dict[str, str] = {}
    for place, word in enumerate(words):
        key, equals, value = word.partition("=")
        if key in TOLD:
            options[key] = value if equals else (words[place + 1 : place + 2] or [""])[0]
    if "--precision" in options:
        return [options["--precision"]]
    path = Path(options.get("--output", ""))
    plain = path.name in ("original", "") or path.parent.name in ("models", "data", "results")
    folder = path.parent.name if path.name.startswith(("shard-", "all")) else path.stem
    return [] if plain else [folder]
