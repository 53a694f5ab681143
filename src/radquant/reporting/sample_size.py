"""How many reports a comparison needs, from the spread of its paired differences."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from radquant import statistics
from radquant.errors import UserError
from radquant.files import read_json

LEAST_DIFFERENCE = 1e-9


@dataclass(frozen=True)
class Spread:
    """How much the paired differences of a comparison vary, and of how many reports that is."""

    sd: float
    reports: int


def spread_of_pilot(summary: Path, precision: str | None, reports: int | None) -> dict[str, Spread]:
    """The spreads in a run's summary.json, by precision; of one of them if `precision` says which.

    reports: how many to plan with, in the place of the pilot's own.
    """
    try:
        quality = read_json(summary)["quality"]
        rows = quality["differences"][quality["settings"]["primary"]]
        whole = all(
            math.isfinite(row["sd"]) and row["sd"] >= 0 and int(row["n"]) >= 2
            for row in rows.values()
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        whole = False
    if not whole:
        raise UserError(f"{summary} is no summary.json of a finished run; name one")
    if precision is not None and precision not in rows:
        raise UserError(f"{summary} has no precision {precision!r}; it has {', '.join(rows)}")
    names = rows if precision is None else [precision]
    return {name: Spread(rows[name]["sd"], reports or rows[name]["n"]) for name in names}


def spread_of_numbers(
    sd: float | None, interval: Sequence[float] | None, reports: int | None, confidence: float
) -> dict[str, Spread]:
    """The spread that is given, or that follows from an interval; its name is ""."""
    if reports is None or reports < 2:
        raise UserError("--reports is missing or below 2: how many reports were compared?")
    if sd is None:
        assert interval is not None
        low, high = interval
        sd = statistics.implied_sd(low, high, reports, confidence)
    if not 0 <= sd < math.inf:
        raise UserError(f"a standard deviation of {sd} is none; give --sd or --interval in numbers")
    return {"": Spread(sd, reports)}


def check_levels(confidence: float, power: float, differences: Sequence[float]) -> None:
    for value, name in ((confidence, "--confidence"), (power, "--power")):
        if not 0 < value < 1:
            raise UserError(f"{name} {value} does not lie between 0 and 1")
    if not all(0 < each < math.inf for each in differences):
        raise UserError("--difference must be above 0: the test is two-sided")
    if min(differences) < LEAST_DIFFERENCE:
        raise UserError(
            f"--difference must be at least {LEAST_DIFFERENCE:g}, which no run can show"
        )


def lines(
    spreads: dict[str, Spread], differences: Sequence[float], confidence: float, power: float
) -> Iterator[str]:
    """What each spread lets a comparison find, and what each true difference takes."""
    alpha = 1 - confidence
    for name, spread in spreads.items():
        if name:
            yield f"{name}:"
        if spread.sd <= 0:
            yield "  all differences are equal: nothing to estimate a spread from"
            continue
        reports, sd = spread.reports, spread.sd
        detectable = statistics.detectable_difference(reports, sd, alpha, power)
        yield f"  standard deviation of the differences: {sd:.4f}"
        yield f"  {reports:,} reports find a true difference of {detectable:.4f} or more"
        for difference in differences:
            needed = statistics.pairs_needed(difference, sd, alpha, power)
            chance = statistics.chance_difference(difference, sd, reports)
            yield (
                f"  {difference:g}: takes {needed:,} reports; two equal models differ as much in "
                f"{100 * chance:.0f} % of comparisons of {reports:,} reports"
            )
