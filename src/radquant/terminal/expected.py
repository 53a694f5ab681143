"""How long the rest of a run will take, as far as its finished jobs and an earlier run tell."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from radquant.errors import UserError
from radquant.files import read_json, write_json

# Seconds of each rule's jobs in the default run, as LAST holds them after it.
USUAL = resources.files("radquant.terminal") / "usual.json"
LAST = Path("results/logs/seconds.json")


@dataclass
class Expected:
    """Seconds of one job of each rule.

    left: jobs of each rule that have not begun. took: seconds of those that ended in this run.
    before: means of an earlier run here. usual: means of the default run, on another machine and
    maybe with another model.
    """

    left: dict[str, int]
    before: Mapping[str, float]
    usual: Mapping[str, float]
    took: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def job(self, rule: str) -> float:
        """Return the seconds that a job of `rule` is expected to take."""
        if took := self.took.get(rule):
            return sum(took) / len(took)
        known = self.before if rule in self.before else self.usual
        return known.get(rule, 2.0) * self._pace(known)

    def remaining(self, running: Mapping[str, float], at_once: int) -> float:
        """Return the seconds until the end.

        running: seconds that are left of each running job, by a name. at_once: jobs side by side.
        """
        waiting = sum(count * self.job(rule) for rule, count in self.left.items())
        alone = max(running.values(), default=0.0)
        return max(alone, (waiting + sum(running.values())) / max(1, at_once))

    def _pace(self, known: Mapping[str, float]) -> float:
        """Return how many times longer than in that run the finished jobs took."""
        both = [rule for rule in self.took if rule in known and rule != "fetch_model"]
        then = sum(known[rule] * len(self.took[rule]) for rule in both)
        now = sum(sum(self.took[rule]) for rule in both)
        return now / then if then > 0 else 1.0


def begin(counts: Mapping[str, int]) -> Expected:
    """Return what is expected of a run with so many jobs of each rule."""
    return Expected(dict(counts), _earlier(), read_json(Path(str(USUAL))))


def _earlier() -> dict[str, float]:
    """Return the means of an earlier run here; {} of a file that holds none.

    They only begin a guess, which finished jobs correct: a damaged file stops no run.
    """
    try:
        found = read_json(LAST)
    except (UserError, OSError):
        return {}
    numbers = isinstance(found, dict) and all(map(_is_time, found.values()))
    return found if numbers else {}


def _is_time(seconds: Any) -> bool:
    """Whether this is what a job can take: a number from 0 to a year."""
    return type(seconds) in (int, float) and 0 <= seconds <= 366 * 86400


def remember(expected: Expected) -> None:
    """Keep the means of this run's jobs, and of an earlier one's where none ran now."""
    means = {rule: sum(took) / len(took) for rule, took in expected.took.items()}
    rounded = {rule: round(seconds, 1) for rule, seconds in means.items()}
    write_json(LAST, {**expected.before, **rounded})
