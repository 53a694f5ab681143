"""What a dry run shows: the jobs, how long they will take, and why they run."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from logging import WARNING, LogRecord

from rich.console import Console
from rich.text import Text
from snakemake_interface_logger_plugins.common import LogEvent

from radquant.cli import duration
from radquant.terminal import expected
from radquant.terminal.jobs import PHRASES

LONGEST = 100  # columns of a line
SHOWN_PLAINLY = ("Nothing to be done", "Would delete")
FILES = 3  # changed ones that are named
UPDATED = re.compile(r"Updated input files: ([^;]+)")
REASONS, THE_END = "Reasons:", "This was a dry-run"
MORE = "Nothing was run. --dry-run -p shows every job with its files, its command and its reason."


class Plan:
    """What Snakemake's records let a dry run show."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self.told = False
        self.updated: dict[str, None] = {}  # files that changed, in the order of the jobs

    def handle(self, record: LogRecord) -> None:
        """Show what a record means for the user."""
        event, text = getattr(record, "event", None), record.getMessage().strip()
        if event == LogEvent.RUN_INFO and not self.told:  # which comes again after the jobs
            self.told = True
            self._line(table(record.__dict__["stats"]))
        elif event == LogEvent.JOB_INFO:
            if found := UPDATED.search(record.__dict__.get("reason") or ""):
                self.updated |= dict.fromkeys(found[1].split(", "))
        elif event is None and text.startswith(REASONS):
            self._line(f"\n{reasons(text, list(self.updated))}")
        elif event is None and text.startswith(THE_END):
            self._line(f"\n{MORE}")
        elif record.levelno >= WARNING or (event is None and text.startswith(SHOWN_PLAINLY)):
            self._line(text)

    def close(self) -> None:
        """Do nothing, as there is nothing to keep."""

    def _line(self, text: str) -> None:
        self.console.print(Text(text), soft_wrap=True)


def table(stats: Mapping[str, int]) -> str:
    """Return a line for each rule, and the expected time."""
    counts = {rule: count for rule, count in stats.items() if rule not in ("total", "all")}
    run = expected.begin(counts)
    names: dict[str, Counter[str]] = {rule: Counter() for rule in counts}
    for kind, count in run.left.items():
        names[kind.rule][kind.name] += count
    number = sum(counts.values())
    in_order = sorted(counts, key=lambda rule: [*PHRASES, rule].index(rule))
    lines = [_row(rule, counts[rule], names[rule]) for rule in in_order]
    jobs = "1 job" if number == 1 else f"{number:,} jobs"
    beside = f", {run.at_once} side by side" if run.at_once > 1 else ""
    where = "in an earlier run here" if run.last.jobs else "on another machine"
    time = f"About {duration(run.remaining())}{beside}, by what such jobs took {where}."
    return "\n".join([f"{jobs} to do:", *lines, "", time])


def _row(rule: str, count: int, names: Counter[str]) -> str:
    of = ", ".join(sorted(filter(None, names)))
    line = f"{count:>7,}  {_words(rule)}" + (f": {of}" if of else "")
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 2].rstrip(' ,')} …"


def _words(rule: str) -> str:
    """Return what the jobs of a rule do, without what each is of."""
    return PHRASES.get(rule, rule.replace("_", " ")).partition(":")[0].partition(" {")[0]


def reasons(text: str, updated: Sequence[str] = ()) -> str:
    """Return why jobs run, as Snakemake says it, with the words of the table.

    updated: the input files that changed, some of which are named.
    """
    updated = sorted(updated, key=lambda name: name.endswith(".py"))  # the program's own last
    more = f" and {len(updated) - FILES} more" if len(updated) > FILES else ""
    files = f"updated input files ({', '.join(updated[:FILES])}{more}):"
    lines = [line.strip() for line in text.splitlines()[1:] if "check individual" not in line]
    said = ["Why:"]
    for reason, rules in zip(lines[::2], lines[1::2], strict=False):
        jobs = "; ".join(_words(rule) for rule in rules.split(", ") if rule != "all")
        said.append(f"- {files if updated and reason == 'updated input files:' else reason} {jobs}")
    return "\n".join(said)
