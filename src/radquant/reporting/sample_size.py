"""How many reports a comparison needs, from the spread of its paired differences."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radquant import statistics
from radquant.errors import UserError
from radquant.files import read_json

LEAST_DIFFERENCE = 1e-9


@dataclass(frozen=True)
class Spread:
    """How much the paired differences of a comparison vary, and of how many reports that is.

    sd: of a report, such that the mean's standard error is sd ÷ √reports. low, high: its interval.
    """

    sd: float
    reports: int
    low: float
    high: float
    patients: int


@dataclass(frozen=True)
class Plan:
    """What the reports are to show.

    precisions: how many are compared with the original. per_patient: reports of a patient.
    worst: the largest loss that a report can have.
    """

    differences: Sequence[float]
    confidence: float = 0.95
    power: float = 0.8
    precisions: int = 1
    per_patient: float = 1
    worst: float = 1


def spread_of_pilot(
    summary: Path, precision: str | None, reports: int | None
) -> tuple[dict[str, Spread], int]:
    """The spreads in a run's summary.json, by precision, and how many precisions it has.

    Of one of them if `precision` says which. reports: how many to plan with, in the place of the
    pilot's own.
    """
    try:
        quality = read_json(summary)["quality"]
        rows = quality["differences"][quality["settings"]["primary"]]
        found = {name: _of_row(row, reports) for name, row in rows.items()}
        whole = all(
            0 <= row.low <= row.sd <= row.high < math.inf
            and math.isfinite(row.patients)
            and row.reports >= 2
            for row in found.values()
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        whole = False
    if not whole:
        raise UserError(f"{summary} is no summary.json of a finished run; name one")
    if precision is not None and precision not in found:
        raise UserError(f"{summary} has no precision {precision!r}; it has {', '.join(found)}")
    names = found if precision is None else [precision]
    return {name: found[name] for name in names}, len(found)


def _of_row(row: Mapping[str, Any], reports: int | None) -> Spread:
    sd, n = float(row["sd"]), int(row["n"])
    if n < 2 or not 0 <= sd < math.inf:
        raise ValueError("no spread")
    patients = int(row.get("patients") or n)
    if "spread" in row:
        low, high = float(row["spread"]["low"]), float(row["spread"]["high"])
    else:
        low, high = statistics.sd_interval(sd, n, 0.95)
    return Spread(sd, reports or n, low, high, round((reports or n) * patients / n))


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
    return {"": Spread(sd, reports, *statistics.sd_interval(sd, reports, confidence), reports)}


def planned(
    spreads: dict[str, Spread], per_patient: float | None, icc: float | None
) -> tuple[dict[str, Spread], float]:
    """The spreads of the study that is planned, and its reports of a patient.

    A spread of patients with several reports has their likeness in it; one of single reports needs
    to be told of it.
    """
    own = max(spread.reports / spread.patients for spread in spreads.values())
    if own > 1:
        if icc is not None or per_patient is not None:
            raise UserError(
                "the pilot has its own patients, whose likeness is in its spread; leave out "
                "--reports-per-patient and --icc"
            )
        return spreads, own
    if (per_patient or 1) > 1 and icc is None:
        raise UserError(
            "--icc is missing: how alike are the differences of a patient's reports, from 0 to 1? "
            "a pilot with patients measures it"
        )
    if icc is not None and per_patient is None:
        raise UserError("--icc says nothing without --reports-per-patient; give both")
    size = per_patient or 1
    return {name: by_patient(each, size, icc or 0) for name, each in spreads.items()}, size


def by_patient(spread: Spread, per_patient: float, icc: float) -> Spread:
    """The spread with `per_patient` reports of each patient, alike by the correlation `icc`.

    The mean's variance is then 1 + (per_patient − 1) · icc times as large (Kish's design effect).
    """
    factor = math.sqrt(1 + (per_patient - 1) * icc)
    patients = max(1, round(spread.reports / per_patient))
    wide = (spread.sd * factor, spread.reports, spread.low * factor, spread.high * factor)
    return Spread(*wide, patients)


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


def lines(spreads: dict[str, Spread], plan: Plan) -> Iterator[str]:
    """What each spread lets a comparison find, and what each true difference takes."""
    alpha = 1 - plan.confidence
    for name, spread in spreads.items():
        if name:
            yield f"{name}:"
        if spread.high <= 0:
            yield "  all differences are equal: nothing to estimate a spread from"
            continue
        reports, sd = spread.reports, spread.sd
        least, found, most = (
            statistics.detectable_difference(reports, each, alpha, plan.power)
            for each in (spread.low, sd, spread.high)
        )
        of = f" of {spread.patients:,} patients" if spread.patients < reports else ""
        yield f"  standard deviation of the differences: {sd:.4f}"
        yield (
            f"  {reports:,} reports{of} find a true difference of {found:.4f} or more; as the "
            f"standard deviation may be {spread.low:.4f} to {spread.high:.4f}, of {least:.4f} to "
            f"{most:.4f}"
        )
        for difference in plan.differences:
            yield from _of_difference(difference, spread, plan)


def _of_difference(difference: float, spread: Spread, plan: Plan) -> Iterator[str]:
    if spread.sd > 0:
        sizes = [
            statistics.pairs_needed(difference, sd, 1 - plan.confidence, plan.power)
            for sd in (spread.low, spread.sd, spread.high)
        ]
        chance = statistics.chance_difference(difference, spread.sd, spread.reports)
        yield (
            f"  {difference:g}: takes {sizes[1]:,} reports ({_about(sizes[0], sizes[2])}); two "
            f"equal models differ as much in {100 * chance:.0f} % of comparisons of "
            f"{spread.reports:,} reports"
        )
    if difference >= plan.worst:
        return
    low, high = statistics.settle_range(
        difference,
        (spread.low, spread.high),
        plan.precisions,
        (1 - plan.confidence) / 2,
        plan.power,
        plan.worst,
        plan.per_patient,
    )
    family = f", with Holm's correction for {plan.precisions} precisions"
    yield (
        f"    {_about(low, high)} reports settle whether as much is lost"
        f"{family if plan.precisions > 1 else ''}"
    )


def _about(low: int, high: int) -> str:
    low, high = statistics.rounded(low), statistics.rounded(high)
    return f"{low:,} to {high:,}" if low < high else f"about {high:,}"
