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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from snakemake_interface_logger_plugins.common import LogEvent

from radquant.cli import AT_WORK, duration
from radquant.terminal import expected, jobs
from radquant.terminal.expected import Running
from radquant.terminal.jobs import Job
from radquant.terminal.work import Kind

KEEP = 5.0  # seconds between two times that what jobs took is kept
OVERTIME = 0.1  # of the seconds of a job that takes longer than expected: what is left at least
COUNTED_TWICE = ("generate", "generate_only", "measure_speed")  # rules whose jobs count twice
COUNTED_LATE = ("generate", "generate_only")  # whose jobs count a batch when it is done
TRUSTED = 0.25  # share of a job from which its own count tells what is left
FIRST, EVERY = 5.0, 60.0  # seconds of a job until a line tells of it, and between such lines
NARROW = 60  # columns of a terminal that has no room for a bar beside words
STOPPED = "stopped; run the same command to go on"
NO_LOG = "none was written"
# What Snakemake says of a Ctrl-C and of a failed job that was told of already, and what is shown.
INTERRUPTED = ("Terminating processes on user request", "Cancelling snakemake on user request")
TOLD_ALREADY = ("At least one job did not complete", "Exiting because a job execution failed")
# What it says of a failed program, before it says which job failed: the whole command.
A_COMMAND = re.compile(r"RuleException:\s+CalledProcessError in file ")
TOLD_PLAINLY = ("Nothing to be done", "Trying to restart job")
# What it says before a run begins and is no answer to what was asked of it.
BEFORE_A_RUN = ("Building DAG of jobs", "Assuming unrestricted shared filesystem usage", "host: ")
MISSING = re.compile(r"FileNotFoundError: \[Errno 2\] No such file or directory: '(.*)'")
CONFIGURED = ("--configfile", "--configfiles")
UNREADABLE = re.compile(r"\w+Error: \[Errno \d+\] (.*): '(.*)'")
# A log may hold a terminal's commands.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Screen:
    """What Snakemake's records let the terminal show. One thread hands records in."""

    def __init__(
        self,
        colour: bool = True,
        console: Console | None = None,
        begun_before: float = 0.0,
        keeps: bool = True,
    ) -> None:
        """begun_before: seconds since the user's command, which count as a part of the run.

        keeps: whether the next run is told what this one's jobs took.
        """
        self.keeps = keeps
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
        self.kinds: dict[int, Kind] = {}
        self.lost: list[int] = []  # those that failed
        self.told: dict[int, float] = {}  # when a line last told of it
        self.begun_before = begun_before
        self.started = time.monotonic() - begun_before
        self.shown = 0.0  # the highest share so far: the bar never goes back
        self.kept = self.started
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
            if self.expected and self.kinds:  # a job has begun
                self._keep()

    def __rich__(self) -> Table:
        """Return the bar, and a line for each running job."""
        with self.lock:
            return self._bar()

    def _begin(self, stats: Mapping[str, int]) -> None:
        counts = {rule: count for rule, count in stats.items() if rule not in ("total", "all")}
        self.expected = expected.begin(counts)
        if self.begun_before:
            self.expected.planned(time.monotonic() - self.started)
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
        self.kinds[told["jobid"]] = kind = expected.kind(job.rule, wildcards)
        self.running[told["jobid"]] = time.monotonic()
        if told["jobid"] in self.lost:  # tried again
            self.lost.remove(told["jobid"])
        elif self.expected:
            self.expected.begin(kind)
        if self.expected:
            self.expected.at_once = max(self.expected.at_once, len(self.running))

    def _finish(self, number: int) -> None:
        if number not in self.running:
            return
        job, took = self.seen[number], time.monotonic() - self.running.pop(number)
        if job.rule == "all":
            return
        if self.expected:
            self.expected.took[self.kinds[number]].append(took)
            if job.rule == "fetch_model":
                self.expected.now_of(expected.work_now(self.expected.left))
        left = self._remaining()
        self._line(f"{_percent(self._share(left), left)}  {jobs.phrase(job)} ({duration(took)})")
        if job.rule == "report":
            told = [line for line in jobs.last_lines(job) if line != AT_WORK]
            from_home = self._from_home("results")
            told[-1:] = [line.replace("results/", f"{from_home}/") for line in told[-1:]]
            self._line("\n".join(["", *told]))
        if time.monotonic() - self.kept >= KEEP:
            self._keep()  # a run may be killed

    def _fail(self, told: Mapping[str, Any]) -> None:
        logs = tuple(map(str, told["log"] or ()))
        job = self.seen.get(told["jobid"]) or Job(told["rule_name"], {}, logs)
        if self.running.pop(told["jobid"], None):
            self.lost.append(told["jobid"])
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
            again = self.failed and text.removeprefix("WorkflowError:").lstrip().startswith(
                TOLD_ALREADY
            )
            if not (self.stopped or again or A_COMMAND.match(text)):
                self._line(text, "red")
        elif record.levelno >= logging.WARNING:
            self._line(text, "yellow")

    def _line(self, text: str, style: str = "") -> None:
        self.console.print(Text(CONTROL.sub("", text), style=style), soft_wrap=True)

    def _from_home(self, path: str) -> str:
        """Return a path of the run as the user would write it."""
        return os.path.relpath(Path(path).absolute(), self.home)

    def _keep(self) -> None:
        """Keep what jobs took, for the next run in this folder."""
        assert self.expected is not None
        self.kept = time.monotonic()
        if not self.keeps:
            return
        at_work = [self.kinds[number] for number in [*self.running, *self.lost]]
        expected.remember(self.expected, self._done(), at_work)

    def _at_work(self, number: int) -> Running:
        """Return what is left of a running job, by what is expected and by what its log counts.

        A count is trusted from a quarter on. Of some rules another follows one that is full.
        """
        assert self.expected is not None
        took, kind = time.monotonic() - self.running[number], self.kinds[number]
        likely = self.expected.job(kind)
        left, trust = max(likely - took, took * OVERTIME), 0.0
        count = jobs.counted(self.seen[number])
        if count and (count.share < 1 or kind.rule not in COUNTED_TWICE):
            trust = min(1.0, count.share / TRUSTED)
            by_count = trust * count.left + (1 - trust) * left
            # Their count lags behind the work, so it may only shorten what is expected.
            lags = kind.rule in COUNTED_LATE and took < likely
            left = min(left, by_count) if lags else by_count
        known = trust == 1 or took > likely
        return Running(kind, left, took + left if known else None)

    def _remaining(self) -> float:
        if not self.expected:
            return 0.0
        at_work = [each for each in self.running if self.seen[each].rule != "all"]
        return self.expected.remaining(map(self._at_work, at_work))

    def _done(self) -> float:
        """Return the seconds that the run has taken, those before it was taken up included."""
        spent = self.expected.spent if self.expected else 0.0
        return spent + time.monotonic() - self.started

    def _share(self, left: float) -> float:
        """Return the share of the run's seconds that has passed, never less than before."""
        self.shown = max(self.shown, self._done() / max(1e-9, self._done() + left))
        return self.shown

    def _bar(self) -> Table:
        table = Table.grid(padding=(0, 1))
        left = self._remaining()
        share = self._share(left)
        text = f"{_percent(share, left)}{_still(left)}"
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
        counted = jobs.counted(self.seen[number])
        words = f"{jobs.phrase(self.seen[number])}, {duration(time.monotonic() - begun)}"
        return f"{words}, {counted.words}" if counted else words

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
                left = self._remaining()
                told = f"{_percent(self._share(left), left)}  … {self._how_far(number, begun)}"
                self._line(f"{told}{_still(left)}")
                self.told[number] = now


def _percent(share: float, left: float) -> str:
    """Return a share in four columns; 100 % only where nothing is left."""
    return f"{min(share, 1 if left == 0 else 0.99):4.0%}"


def _still(left: float) -> str:
    """Return what to say of the run's seconds that are left; nothing of less than one."""
    return f"; about {duration(left)} left of the run" if left >= 1 else ""


def _taken(name: str, words: Sequence[str]) -> str:
    """Return what to say of a name that was meant to be made, and was taken as a configuration."""
    option = next((n for n, word in enumerate(words) if word in CONFIGURED), len(words))
    if name not in words[option + 2 :]:
        return ""
    return f" ({words[option]} takes every name behind it: write what is to be made before it)"


def without_traceback(text: str, words: Sequence[str] = ()) -> str:
    """Return what Snakemake says of an error, in one sentence where it has a traceback.

    That is where a file of its command line cannot be read; --verbose shows the traceback, too.
    words: that command line.
    """
    if not text.startswith("Traceback (most recent call last)"):
        return text
    lines = text.strip().splitlines()
    last = max((n for n, line in enumerate(lines) if line.startswith("  File ")), default=0)
    said = next((x for x in lines[last + 1 :] if x.strip() and not x.startswith(" ")), lines[-1])
    if found := MISSING.fullmatch(said):
        return (
            f"error: {found[1]} does not exist; check its name and folder{_taken(found[1], words)}"
        )
    if found := UNREADABLE.fullmatch(said):
        return f"error: {found[2]} cannot be read ({found[1]}); check its name and who may read it"
    if said.startswith("UnicodeDecodeError: "):
        return "error: a file that the command names is not UTF-8; save it as UTF-8"
    return f"error: {said}"
