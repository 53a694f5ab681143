"""Confidence intervals: of a mean by patient, of its spread, and of a share."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import compress

import numpy as np
from scipy import special

from radquant.bounded_means import guarded_ends
from radquant.draws import sums_of_draws
from radquant.errors import UserError
from radquant.patient_units import (
    Patients,
    Units,
    constant,
    standard_error,
    units,
    usual_and_different,
)

MOST = 100_000  # resamples, where the ends still move in the third decimal
DECIMAL = 0.0005  # half a unit of the third decimal
TIE = 1e-12  # how far apart, beside the largest total, two means are that only rounding separates
# Where a sample says too little about large losses: fewer patients differ from the others, or what
# can be lost unseen counts too much. It does if it would move the mean by more than so many half
# widths of Student's interval. The first number is for one report, the second for the largest
# patient, whose reports are seldom all lost together.
FEW = 7
BEYOND, BEYOND_PATIENT = 8, 12


@dataclass(frozen=True)
class Interval:
    """A confidence interval, and the `method` that it comes from.

    'BCa' and 'percentile' are bootstraps, widened to Student's t where that reaches further.
    'Gaffke' holds for every distribution in a range. 'constant' says that nothing varied, and is
    only given where no range is known. 'Wilson' is of a share.
    """

    low: float
    high: float
    method: str


def bootstrap_interval(
    values: Sequence[float] | np.ndarray,
    resamples: int,
    confidence: float,
    seed: int,
    patients: Patients | None = None,
    *,
    bounds: tuple[float, float] | None = None,
    most: int | None = None,
) -> Interval:
    """Return an interval for the mean of `values`, one a report, resampled by patient.

    patients: one label a report. bounds: the least and the greatest value that a report can have;
    −1 and 1 for differences of scores from 0 to 1. Without them an interval of equal values has no
    width. most: resamples to go up to where the ends still move in the third decimal.

    It takes the outer ends of BCa's and of Student's t. The bias-corrected and accelerated
    bootstrap (Efron 1987, doi:10.1080/01621459.1987.10478410) has expanded percentiles (Hesterberg
    2015, doi:10.1080/00031305.2015.1089789), as the bootstrap's standard error is too small. Still
    it covers too seldom where most values are 0 and the others symmetric, as a small sample's
    skewness misleads it. Student's t does where values are skewed. Differences of F1 come in both
    shapes. The outer ends keep their level in both (benchmarks/statistics_simulation.py). With
    `bounds`, Gaffke's bounds are taken where the sample says too little about large losses. That is
    where fewer than `FEW` patients differ from the others. It is also where no difference is shown,
    but the spread is so small that a loss which can be unseen would outweigh it (`BEYOND`).

    BCa is undefined when every resampled mean lies on one side of the mean. The percentile interval
    of the same resamples then stands in, and `method` says so.

    Raises UserError for fewer than two reports, and for one patient where no bounds are given.
    """
    return bootstrap_intervals(
        [values], resamples, confidence, seed, patients, bounds=bounds, most=most
    )[0]


def bootstrap_intervals(
    values: Sequence[Sequence[float] | np.ndarray],
    resamples: int,
    confidence: float,
    seed: int,
    patients: Patients | None = None,
    *,
    bounds: tuple[float, float] | None = None,
    most: int | None = None,
) -> list[Interval]:
    """Return the `bootstrap_interval` of each of several `values` of the same reports."""
    many = drawn_together([units(each, patients) for each in values], resamples, seed)
    many = drawn_on(many, confidence, most)
    return [interval_of(of, resamples, confidence, seed, bounds, most) for of in many]


def drawn_together(many: Sequence[Units], resamples: int, seed: int) -> list[Units]:
    """Return `many`, of the same patients, with their resampled means where these are needed.

    Each has what it would draw by itself. To draw patients takes longer than to add them up.
    """
    needed = [of.count > 1 and not constant(of.residuals) and not few_differ(of) for of in many]
    if not any(needed):
        return list(many)
    drawn = iter(_drawn(list(compress(many, needed)), resamples, seed))
    return [
        replace(of, drawn=next(drawn)) if need else of
        for of, need in zip(many, needed, strict=True)
    ]


def drawn_on(many: Sequence[Units], confidence: float, most: int | None) -> list[Units]:
    """Return `many` from `drawn_together`, with `most` resamples where the ends still move.

    They go on from the same resamples, so these draws as well are made once for all.
    """
    moving = [
        (of, *of.drawn)
        for of in many
        if of.drawn is not None and _too_few(of, of.drawn[0], confidence, most)
    ]
    if not moving or most is None:
        return list(many)
    _, means, rng = moving[0]
    rng = deepcopy(rng)
    more = _resampled_means([of for of, _, _ in moving], most - len(means), rng)
    longer = {
        id(of): replace(of, drawn=(np.append(means, added), rng))
        for (of, means, _), added in zip(moving, more, strict=True)
    }
    return [longer.get(id(of), of) for of in many]


def interval_of(
    of: Units,
    resamples: int,
    confidence: float,
    seed: int,
    bounds: tuple[float, float] | None,
    most: int | None,
) -> Interval:
    """Return the interval of `bootstrap_interval` for values that are added up already."""
    if bounds is not None and few_differ(of):
        return _guarded(of, bounds, confidence)
    if of.count < 2:
        raise UserError(
            f"all {of.reports} reports are of one patient, from whom nothing follows for others; "
            "evaluate reports of at least 2 patients"
        )
    if constant(of.residuals):
        return Interval(of.mean, of.mean, "constant")
    mean, half = of.mean, _t_half_width(of, confidence)
    means, tails, method = resampled(of, resamples, confidence, seed, most)
    low, high = np.quantile(means, tails)
    low, high = float(min(low, mean - half)), float(max(high, mean + half))
    if bounds is None:
        return Interval(low, high, method)
    if low <= 0 <= high and _hardly_varies(of, bounds, confidence):
        return _guarded(of, bounds, confidence)
    return Interval(max(low, bounds[0]), min(high, bounds[1]), method)


def _guarded(of: Units, bounds: tuple[float, float], confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    low, high = guarded_ends(of.totals, of.weights, unseen_size(of), bounds, tail)
    return Interval(low, high, "Gaffke")


def few_differ(of: Units) -> bool:
    """Tell whether fewer than `FEW` patients differ from what most have in common, or it is one."""
    return of.count == 1 or usual_and_different(of)[1] < min(FEW, of.count)


def _hardly_varies(of: Units, bounds: tuple[float, float], confidence: float) -> bool:
    """Tell whether the spread is so small that it would be lost beside what can be unseen.

    A loss that 1 report in n ÷ −ln(tail) has is missed by n reports with a chance of `tail`. If it
    is of patients, one of them weighs as much as the largest.
    """
    tail = (1 - confidence) / 2
    unseen = -np.log(tail) / of.reports * (bounds[1] - bounds[0]) / 2
    alone = BEYOND * -special.ndtri(tail) * of.spread / np.sqrt(of.reports)
    if unseen > alone or of.plain:
        return bool(unseen > alone)
    of_patient = unseen * unseen_size(of) * of.reports / of.weights.sum()
    return bool(of_patient > BEYOND_PATIENT * -special.ndtri(tail) * standard_error(of)[0])


def unseen_size(of: Units) -> float:
    """Return the weight of a patient that was not seen: that of the largest which was.

    With less the bounds would not hold where large patients alone lose.
    """
    return float(of.weights.max())


def resampled(
    of: Units, resamples: int, confidence: float, seed: int, most: int | None
) -> tuple[np.ndarray, np.ndarray, str]:
    """Return the resampled means, which of their quantiles are the ends, and the method's name."""
    drawn = of if of.drawn is not None else replace(of, drawn=_drawn([of], resamples, seed)[0])
    (drawn,) = drawn_on([drawn], confidence, most)
    assert drawn.drawn is not None
    means = drawn.drawn[0]
    return means, *_tails(of, means, confidence)


def _drawn(
    many: Sequence[Units], resamples: int, seed: int
) -> list[tuple[np.ndarray, np.random.Generator]]:
    rng = np.random.default_rng(seed)
    return [(means, rng) for means in _resampled_means(many, resamples, rng)]


def _resampled_means(many: Sequence[Units], resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Return the means of as many draws of as many patients, with replacement: [many, resamples]"""
    weights: dict[bytes, np.ndarray] = {}  # mostly the same for all
    keys = [of.weights.tobytes() for of in many]
    weights.update(zip(keys, (of.weights for of in many), strict=True))
    place = {key: len(many) + number for number, key in enumerate(weights)}
    columns = np.column_stack([*(of.totals for of in many), *weights.values()])
    sums = sums_of_draws(columns, resamples, rng).T
    return np.array([sums[number] / sums[place[key]] for number, key in enumerate(keys)])


def _tails(of: Units, means: np.ndarray, confidence: float) -> tuple[np.ndarray, str]:
    tail = (1 - _expanded(confidence, of)) / 2
    tails = _bca_tails(of, means, tail)
    if np.isnan(tails).any():
        return np.array([tail, 1 - tail]), "percentile"
    return tails, "BCa"


def _too_few(of: Units, means: np.ndarray, confidence: float, most: int | None) -> bool:
    """Tell whether two standard errors of an end, as a quantile of draws, reach the third decimal.

    As many draws fall below a quantile as of a binomial distribution, whose standard deviation on
    either side spans two standard errors of it. `most` are never too few.
    """
    if most is None or len(means) >= most:
        return False
    tails, _ = _tails(of, means, confidence)
    spread = np.sqrt(tails * (1 - tails) / len(means))
    wide = np.quantile(means, np.clip([tails - spread, tails + spread], 0, 1))
    return bool(np.max(wide[1] - wide[0]) >= DECIMAL)


def bias_and_acceleration(of: Units, means: np.ndarray) -> tuple[float, float]:
    """Return BCa's bias z₀, infinite where it is undefined, and its acceleration.

    `scipy.stats.bootstrap` finds the acceleration by leaving out each value once, in time that
    grows with the square of their number. Leaving out a patient moves the mean in proportion to the
    residual total e, to first order where weights differ, and otherwise exactly. So the
    acceleration is Σe³ / (6 (Σe²)^1.5) (Efron 1987).
    """
    mean = of.mean
    distances = of.totals - mean if of.plain else of.residuals
    acceleration = (distances**3).sum() / (6 * (distances**2).sum() ** 1.5)
    # A resample whose mean is the sample's counts as half below it.
    near = tie(of)
    below = (np.count_nonzero(means < mean - near) + np.count_nonzero(means <= mean + near)) / 2
    return float(special.ndtri(below / len(means))), float(acceleration)


def tie(of: Units) -> float:
    """Return how far apart means can be that are equal but for rounding."""
    return float(TIE * np.abs(of.totals).max() / of.weights.mean())


def _bca_tails(of: Units, means: np.ndarray, tail: float) -> np.ndarray:
    """Return which quantiles of the resampled `means` are BCa's ends; nan where it is undefined."""
    bias, acceleration = bias_and_acceleration(of, means)
    # ∞ − ∞ or ∞ ÷ ∞ where it is undefined.
    with np.errstate(divide="ignore", invalid="ignore"):
        z = bias + special.ndtri(tail) * np.array([1, -1])
        return np.asarray(special.ndtr(bias + z / (1 - acceleration * z)))


def _expanded(confidence: float, of: Units) -> float:
    """Return the level whose normal quantile is √(G / (G − 1)) times t's at `confidence`."""
    count, freedom = of.count, standard_error(of)[1]
    quantile = special.stdtrit(freedom, (1 + confidence) / 2) * np.sqrt(count / (count - 1))
    return float(2 * special.ndtr(quantile) - 1)


def _t_half_width(of: Units, confidence: float) -> float:
    error, freedom = standard_error(of)
    quantile = special.stdtrit(freedom, (1 + confidence) / 2)
    if of.plain:  # the same in floating point as Student's formula
        return float(quantile * of.spread / np.sqrt(of.count))
    return float(quantile * error)


def spread_interval(of: Units, sd: float, confidence: float, high: float | None) -> Interval:
    """Return an interval for the standard deviation `sd` of a report, √reports × the mean's error.

    By the delta method for its logarithm, from how much the patients' squared residuals vary. That
    is itself too small of few patients; 1 + 3 ÷ patients makes up for it, by simulation.
    high: the most that it can be, where too few patients differ to tell.
    """
    squares = of.residuals**2
    if of.count < 2 or sd <= 0 or constant(squares):
        return Interval(sd, sd if high is None else high, "log-normal")
    relative = squares.std(ddof=1) / squares.mean() / np.sqrt(of.count) * (1 + 3 / of.count)
    reach = float(special.stdtrit(of.count - 1, (1 + confidence) / 2) * relative / 2)
    return Interval(
        float(sd * np.exp(-reach)),
        float(sd * np.exp(min(reach, 50)) if high is None else max(high, sd)),
        "log-normal",
    )


def proportion_interval(
    hits: Sequence[bool] | np.ndarray, confidence: float, patients: Patients | None = None
) -> Interval:
    """Return Wilson's score interval (1927) of the share of `hits`, one a report.

    With patients the number of reports is divided by the design effect. It is also divided by the
    square of how much wider t's quantile of the patients is than that of the reports (Korn &
    Graubard 1998). Where all reports agree no design effect can be measured, and each patient
    counts once.

    Raises UserError if there is no report.
    """
    x = np.asarray(hits, dtype=np.float64)
    if x.size < 1:
        raise UserError("a share of no reports has no interval; evaluate at least 1")
    count = _effective_number(x, confidence, patients)
    z, share = special.ndtri((1 + confidence) / 2), float(x.mean())
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    low = 0.0 if share == 0 else max(0.0, float(middle - half))
    return Interval(low, 1.0 if share == 1 else min(1.0, float(middle + half)), "Wilson")


def _effective_number(x: np.ndarray, confidence: float, patients: Patients | None) -> float:
    if len(x) == 1:
        return 1.0
    of = units(x, patients)
    if of.plain or of.count == 1:
        return float(of.count)
    if constant(x):
        return float(of.count)
    error, freedom = standard_error(of)
    effect = max(1.0, error**2 / (x.var(ddof=1) / len(x)))
    quantiles = special.stdtrit([len(x) - 1, freedom], (1 + confidence) / 2)
    return float(len(x) / effect * (quantiles[0] / quantiles[1]) ** 2)
