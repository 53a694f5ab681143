"""How long the rest of a run will take, as far as its finished jobs and earlier runs tell."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, TypeGuard

from radquant.errors import UserError
from radquant.files import read_json, write_json
from radquant.settings.run import Run
from radquant.terminal.work import Work, of_run, weights_of

# What LAST held after two runs: the default one, and one of a model with next to no weights. The
# latter tells how long jobs take for nothing. The second was on a busy machine: its seconds are
# processor time, divided by how much more of it the default run's check_model took there.
USUAL = resources.files("radquant.terminal") / "usual.json"
LAST = Path("results/logs/seconds.json")
UNKNOWN = 2.0  # seconds of a job of which nothing is known

Seconds = Mapping[str, float]


@dataclass(frozen=True)
class Past:
    """A run of before: mean seconds of each rule's jobs, and how much work one was."""

    seconds: Seconds = field(default_factory=dict)
    work: Work = field(default_factory=dict)


@dataclass
class Expected:
    """Seconds of one job of each rule.

    left: jobs of each rule that have not begun. work: of one job of each rule. before: an earlier
    run here. usual: the default run, on another machine. least: the run with next to no weights,
    there. took: seconds of the jobs that ended in this run. last: where they are kept, whole, as
    Snakemake is in another folder at the end.
    """

    left: dict[str, int]
    work: Work
    before: Past
    usual: Past
    least: Past
    last: Path = field(default_factory=LAST.absolute)
    took: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def job(self, rule: str) -> float:
        """Return the seconds that a job of `rule` is expected to take."""
        if took := self.took.get(rule):
            return sum(took) / len(took)
        return self._known(rule) * self._pace(rule in self.before.seconds)

    def remaining(self, running: Mapping[str, float], at_once: int) -> float:
        """Return the seconds until the end.

        running: seconds that are left of each running job, by a name. at_once: jobs side by side.
        """
        waiting = sum(count * self.job(rule) for rule, count in self.left.items())
        alone = max(running.values(), default=0.0)
        return max(alone, (waiting + sum(running.values())) / max(1, at_once))

    def _known(self, rule: str) -> float:
        """Return what a job of so much work took in the earlier run, else in the default one."""
        now = self._usual_now(rule)
        if rule not in self.before.seconds:
            return now
        return self.before.seconds[rule] * now / self._usually(rule, self.before.work.get(rule))

    def _usual_now(self, rule: str) -> float:
        return self._usually(rule, self.work.get(rule))

    def _usually(self, rule: str, amount: float | None) -> float:
        """Return the seconds of so much work on the default run's machine, on the straight line
        through what is known of it."""
        seconds = self.usual.seconds.get(rule, UNKNOWN)
        most, none = self.usual.work.get(rule), self.least.work.get(rule, 0.0)
        if amount is None or most is None or most <= none:
            return seconds
        start = min(seconds, self.least.seconds.get(rule, 0.0))
        return max(0.1, start + (seconds - start) * (amount - none) / (most - none))

    def _pace(self, before: bool) -> float:
        """Return how many times longer than in the earlier run, or the default one, jobs took."""
        past = self.before if before else self.usual
        both = [rule for rule in self.took if rule in past.seconds and rule != "fetch_model"]
        known = self._known if before else self._usual_now
        then = sum(known(rule) * len(self.took[rule]) for rule in both)
        now = sum(sum(self.took[rule]) for rule in both)
        return now / then if then > 0 else 1.0


_settings: list[Run] = []


def tell(settings: Run) -> None:
    """Take note of what the run of this process is; Snakemake tells its screen only of jobs."""
    _settings[:] = [settings]


def work_now(usual: Past) -> Work:
    """Return the work of this run's jobs; of a model that is not here, as if it were the usual."""
    if not _settings:
        return {}
    weights = weights_of(_settings[0]) or usual.work["check_model"]
    return of_run(_settings[0], weights)


def begin(counts: Mapping[str, int]) -> Expected:
    """Return what is expected of a run with so many jobs of each rule."""
    usual, least = (Past(**each) for each in read_json(Path(str(USUAL))))
    return Expected(dict(counts), work_now(usual), _earlier(), usual, least)


def _earlier() -> Past:
    """Return what an earlier run here took; nothing of a file that does not say so.

    It only begins a guess, which finished jobs correct: a damaged file stops no run.
    """
    try:
        found = read_json(LAST)
    except (UserError, OSError):
        return Past()
    if not isinstance(found, dict):
        return Past()
    seconds, amounts = found.get("seconds"), found.get("work")
    return Past(seconds, amounts) if _numbers(seconds) and _numbers(amounts) else Past()


def _numbers(part: Any) -> TypeGuard[dict[str, float]]:
    return isinstance(part, dict) and all(map(_is_amount, part.values()))


def _is_amount(found: Any) -> bool:
    """Whether this is what a job can take or do: a number that is neither negative nor endless."""
    return type(found) in (int, float) and 0 <= found <= 1e18


def remember(expected: Expected) -> None:
    """Keep the means of this run's jobs, and of an earlier one's where none ran now."""
    means = {rule: sum(took) / len(took) for rule, took in expected.took.items()}
    seconds = {rule: round(mean, 1) for rule, mean in means.items()}
    amounts = {rule: amount for rule, amount in expected.work.items() if rule in means}
    kept = {
        "seconds": {**expected.before.seconds, **seconds},
        "work": {**expected.before.work, **amounts},
    }
    write_json(expected.last, kept)
