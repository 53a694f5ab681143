"""Intervals of differences that are no means over reports, by a paired bootstrap of patients.

A number of a system is `value(sums)` of what each report counts (`Pooled` in
`radquant.scoring.metrics.kind`). Patients are drawn with all their reports and with what every
system counts on them. So the original's number and a precision's are of the same draw.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy import special

from radquant.draws import sums_of_draws
from radquant.patient_units import Patients
from radquant.statistics import Interval

TIE = 1e-12  # how far apart two numbers are that only rounding separates
Statistic = Callable[[np.ndarray], np.ndarray]  # sums [..., counts] to [...]


def intervals(
    counts: np.ndarray,
    statistics: Sequence[Statistic],
    patients: Patients | None,
    resamples: int,
    confidence: float,
    seed: int,
) -> list[Interval | None]:
    """Return an interval for each of `statistics` of the sums over reports, all of the same draws.

    counts: [reports, counts]; patients: one label a report, None where each is its own. An interval
    is None where there is no such number, and for fewer than two patients.
    """
    of_patient = by_patient(np.asarray(counts, dtype=np.float64), patients)
    total = of_patient.sum(axis=0)
    sums = sums_of_draws(of_patient, resamples, np.random.default_rng(seed))
    without = total - of_patient
    return [_interval(float(of(total)), of(sums), of(without), confidence) for of in statistics]


def by_patient(counts: np.ndarray, patients: Patients | None) -> np.ndarray:
    """Return the sums of `counts` over each patient's reports, in the order of their labels."""
    if patients is None:
        return counts
    labels, place = np.unique(np.asarray(patients), return_inverse=True)
    return np.stack([np.bincount(place, column, len(labels)) for column in counts.T], axis=1)


def _interval(
    estimate: float, drawn: np.ndarray, without: np.ndarray, confidence: float
) -> Interval | None:
    """Return the outer ends of BCa's interval and of Student's t with the jackknife's error.

    BCa is at Hesterberg's expanded level; `radquant.statistics.bootstrap_interval` gives the
    reasons. without: the statistic without each patient. Where the statistic is not defined, the
    resample is left out.
    """
    drawn, without = drawn[np.isfinite(drawn)], without[np.isfinite(without)]
    count = len(without)
    if not np.isfinite(estimate) or not len(drawn) or count < 2:
        return None
    if np.ptp([drawn.min(), drawn.max(), estimate]) <= TIE:
        return Interval(estimate, estimate, "constant")
    distances = without.mean() - without
    squares = float((distances**2).sum())
    quantile = float(special.stdtrit(count - 1, (1 + confidence) / 2))
    half = quantile * np.sqrt((count - 1) / count * squares)
    tail = float(special.ndtr(-quantile * np.sqrt(count / (count - 1))))
    tails, method = np.array([tail, 1 - tail]), "percentile"
    if squares:
        bca = _bca_tails(drawn, estimate, (distances**3).sum() / (6 * squares**1.5), tail)
        if not np.isnan(bca).any():
            tails, method = bca, "BCa"
    low, high = np.quantile(drawn, tails)
    return Interval(float(min(low, estimate - half)), float(max(high, estimate + half)), method)


def _bca_tails(drawn: np.ndarray, estimate: float, acceleration: float, tail: float) -> np.ndarray:
    """Return which quantiles of `drawn` are BCa's ends (Efron 1987); nan where it is undefined."""
    low, high = estimate - TIE, estimate + TIE
    below = (np.count_nonzero(drawn < low) + np.count_nonzero(drawn <= high)) / 2
    bias = special.ndtri(below / len(drawn))
    with np.errstate(divide="ignore", invalid="ignore"):
        z = bias + special.ndtri(tail) * np.array([1, -1])
        return np.asarray(special.ndtr(bias + z / (1 - acceleration * z)))
