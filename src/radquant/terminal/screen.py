"""The terminal of a run: one line a job, a bar by expected time, and what went wrong.

On a terminal the bar stays at the bottom. Elsewhere a line tells every minute of a job how far it
is.
"""

import logging
import os
import re
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from snakemake_interface_logger_plugins.common import LogEvent

from radquant.cli import AT_WORK
from radquant.terminal import expected, jobs
from radquant.terminal.jobs import Job

FIRST, EVERY = 5.0, 60.0  # seconds of a job until a line tells of it, and between such lines
NARROW = 60  # columns of a terminal that has no room for a bar beside words
STOPPED = "stopped; run the same command to go on"
NO_LOG = "none was written"
# What Snakemake says of a Ctrl-C and of a failed job that was told of already, and what is shown.
INTERRUPTED = ("Terminating processes on user request", "Cancelling snakemake on user request")
TOLD_ALREADY = ("At least one job did not complete", "Exiting because a job execution failed")
TOLD_PLAINLY = ("Nothing to be done", "Trying to restart job")
# What it says before a run begins and is no answer to what was asked of it.
BEFORE_A_RUN = ("Building DAG of jobs", "Assuming unrestricted shared filesystem usage", "host: ")
MISSING = re.compile(r"FileNotFoundError: \[Errno 2\] No such file or directory: '(.*)'")
UNREADABLE = re.compile(r"\w+Error: \[Errno \d+\] (.*): '(.*)'")
# A log may hold a terminal's commands.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Screen:
    """What Snakemake's records let the terminal show. One thread hands records in."""

    def __init__(self, colour: bool = True, console: Console | None = None) -> None:
        self.home = Path.cwd()  # where the user stands; the run may be elsewhere
        # FORCE_COLOR asks for colours in a file, and for no bar there.
        self.console = console or Console(
            stderr=True,
            no_color=None if colour else True,  # NO_COLOR decides
            force_interactive=None if sys.stderr.isatty() else False,
            highlight=False,
        )
        self.lock = threading.RLock()
        self.expected: expected.Expected | None = None
        self.seen: dict[int, Job] = {}
        self.running: dict[int, float] = {}  # when each began
        self.told: dict[int, float] = {}  # when a line last told of it
        self.at_once = 1
        self.started = time.monotonic()
        self.begun = False
        self.failed = self.stopped = False
        self.live: Live | None = None
        self.ended = threading.Event()

    def handle(self, record: logging.LogRecord) -> None:
        """Show what a record means for the user."""
        with self.lock:
            event = getattr(record, "event", None)
            if event == LogEvent.WORKFLOW_STARTED:
                self.begun = True
            elif event == LogEvent.RUN_INFO:
                self._begin(record.__dict__["stats"])
            elif event == LogEvent.JOB_INFO:
                self._start(record.__dict__)
            elif event == LogEvent.JOB_FINISHED:
                self._finish(record.__dict__["job_id"])
            elif event == LogEvent.JOB_ERROR:
                self._fail(record.__dict__)
            elif event in (None, LogEvent.ERROR, LogEvent.GROUP_ERROR):
                self._say(record)

    def close(self) -> None:
        """Take the bar away, and keep what jobs took."""
        self.ended.set()
        with self.lock:
            if self.live:
                self.live.stop()
            if self.expected and self.expected.took:
                expected.remember(self.expected)

    def __rich__(self) -> Table:
        """Return the bar, and a line for each running job."""
        with self.lock:
            return self._bar()

    def _begin(self, stats: Mapping[str, int]) -> None:
        counts = {rule: count for rule, count in stats.items() if rule not in ("total", "all")}
        self.expected = expected.begin(counts)
        number = sum(counts.values())
        self._line(f"{number} {'job' if number == 1 else 'jobs'} to do")
        if self.console.is_interactive:
            self.live = Live(
                self,
                console=self.console,
                auto_refresh=False,  # its thread takes the locks in the other order: see _tick
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self.live.start()
        threading.Thread(target=self._tick, daemon=True).start()

    def _start(self, told: Mapping[str, Any]) -> None:
        wildcards = {name: str(value) for name, value in (told["wildcards"] or {}).items()}
        job = Job(told["rule_name"], wildcards, tuple(map(str, told["log"] or ())))
        self.seen[told["jobid"]] = job
        self.running[told["jobid"]] = time.monotonic()
        self.at_once = max(self.at_once, len(self.running))
        if self.expected:
            self.expected.left[job.rule] = max(0, self.expected.left.get(job.rule, 0) - 1)

    def _finish(self, number: int) -> None:
        if number not in self.running:
            return
        job, took = self.seen[number], time.monotonic() - self.running.pop(number)
        if job.rule == "all":
            return
        if self.expected:
            self.expected.took[job.rule].append(took)
            if job.rule == "fetch_model":
                self.expected.work = expected.work_now(self.expected.usual)
        self._line(f"{self._share():4.0%}  {jobs.phrase(job)} ({_time(took)})")
        if job.rule == "report":
            told = [line for line in jobs.last_lines(job) if line != AT_WORK]
            from_home = self._from_home("results")
            told[-1:] = [line.replace("results/", f"{from_home}/") for line in told[-1:]]
            self._line("\n".join(["", *told]))

    def _fail(self, told: Mapping[str, Any]) -> None:
        logs = tuple(map(str, told["log"] or ()))
        job = self.seen.get(told["jobid"]) or Job(told["rule_name"], {}, logs)
        self.running.pop(told["jobid"], None)
        if self.stopped:
            return
        self.failed = True
        self._line(f"failed: {jobs.phrase(job)}", "red")
        log = jobs.existing_log(job)
        self._line(f"{jobs.sentence(job)}\nits log: {self._from_home(log) if log else NO_LOG}")

    def _say(self, record: logging.LogRecord) -> None:
        text = record.getMessage().strip()
        if text.startswith(INTERRUPTED):
            if not self.stopped:
                self._line(STOPPED)
            self.stopped = True
        elif text.startswith(TOLD_PLAINLY):
            self._line(text)
        elif record.levelno == logging.INFO and not self.begun:
            if not text.startswith(BEFORE_A_RUN):  # --unlock, --delete-all-output, --lint
                self._line(text)
        elif record.levelno >= logging.ERROR:
            if not (self.stopped or (self.failed and text.startswith(TOLD_ALREADY))):
                self._line(text, "red")
        elif record.levelno >= logging.WARNING:
            self._line(text, "yellow")

    def _line(self, text: str, style: str = "") -> None:
        self.console.print(Text(CONTROL.sub("", text), style=style), soft_wrap=True)

    def _from_home(self, path: str) -> str:
        """Return a path of the run as the user would write it."""
        return os.path.relpath(Path(path).absolute(), self.home)

    def _left(self, number: int) -> float:
        """Return the seconds that a running job still takes."""
        took, job = time.monotonic() - self.running[number], self.seen[number]
        if found := jobs.share_done(job):
            return took * max(0.0, 1 - found[1]) / max(found[1], 1e-3)
        assert self.expected is not None
        return max(0.0, self.expected.job(job.rule) - took)

    def _remaining(self) -> float:
        if not self.expected:
            return 0.0
        running = {str(number): self._left(number) for number in self.running}
        return self.expected.remaining(running, self.at_once)

    def _share(self) -> float:
        done = time.monotonic() - self.started
        return done / max(1e-9, done + self._remaining())

    def _bar(self) -> Table:
        table = Table.grid(padding=(0, 1))
        share = self._share()
        text = f"{share:4.0%}{_still(self._remaining())}"
        told = [text, *(self._how_far(*each) for each in self.running.items())]
        bar = ProgressBar(total=1.0, completed=share, width=30)
        beside = self.console.width >= NARROW
        for column in range(1 + beside):
            table.add_column(no_wrap=True, overflow="ellipsis" if column == beside else "crop")
        for place, line in enumerate(told):
            words = Text(CONTROL.sub("", line))
            table.add_row(*([bar if place == 0 else "", words] if beside else [words]))
        return table

    def _how_far(self, number: int, begun: float) -> str:
        counted = jobs.share_done(self.seen[number])
        words = f"{jobs.phrase(self.seen[number])}, {_time(time.monotonic() - begun)}"
        return f"{words}, {counted[0]}" if counted else words

    def _tick(self) -> None:
        """Renew the bar, or tell of long jobs.

        Whoever draws takes this object's lock before rich's own: with the orders mixed, a line and
        the bar wait for each other for ever.
        """
        while not self.ended.wait(0.5 if self.live else 1.0):
            with self.lock:
                if self.ended.is_set():
                    return
                if self.live:
                    self.live.refresh()
                else:
                    self._tell_of_long_jobs()

    def _tell_of_long_jobs(self) -> None:
        now = time.monotonic()
        for number, begun in self.running.items():
            last = self.told.get(number, begun + FIRST - EVERY)
            if self.seen[number].rule != "all" and now - last >= EVERY:
                told = f"{self._share():4.0%}  … {self._how_far(number, begun)}"
                self._line(f"{told}{_still(self._remaining())}")
                self.told[number] = now


def _still(left: float) -> str:
    """Return what to say of the run's seconds that are left; nothing of less than one."""
    return f"; about {_time(left)} left of the run" if left >= 1 else ""


def without_traceback(text: str) -> str:
    """Return what Snakemake says of an error, in one sentence where it has a traceback.

    That is where a file of its command line cannot be read; --verbose shows the traceback, too.
    """
    if not text.startswith("Traceback (most recent call last)"):
        return text
    lines = text.strip().splitlines()
    last = max((n for n, line in enumerate(lines) if line.startswith("  File ")), default=0)
    said = next((x for x in lines[last + 1 :] if x.strip() and not x.startswith(" ")), lines[-1])
    if found := MISSING.fullmatch(said):
        return f"error: {found[1]} does not exist; check its name and folder"
    if found := UNREADABLE.fullmatch(said):
        return f"error: {found[2]} cannot be read ({found[1]}); check its name and who may read it"
    if said.startswith("UnicodeDecodeError: "):
        return "error: a file that the command names is not UTF-8; save it as UTF-8"
    return f"error: {said}"


def _time(seconds: float) -> str:
    """Return seconds in words: 0.4 s, 12 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 1:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
