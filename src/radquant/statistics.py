"""Paired differences between two systems on the same reports: how large, how sure, how sensitive.

All functions take `differences`, one float a report: system minus baseline. `patients` is one label
a report. Where it is left out, or all labels differ, each report stands for itself. Randomness
comes from `seed` alone, so equal scores give equal numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from radquant.bounded_means import upper_share
from radquant.intervals import (
    FEW,
    MOST,
    Interval,
    bootstrap_interval,
    bootstrap_intervals,
    drawn_on,
    drawn_together,
    interval_of,
    proportion_interval,
    spread_interval,
    unseen_size,
)
from radquant.patient_units import (
    Patients,
    Units,
    checked,
    constant,
    standard_error,
    units,
    usual_and_different,
)
from radquant.sample_sizes import (
    chance_difference,
    detectable_difference,
    implied_sd,
    pairs_needed,
    reports_to_settle,
    rounded,
    sd_interval,
    settle_range,
)
from radquant.significance import (
    equivalence_p,
    flipped_ps,
    gain_p,
    holm,
    interaction_p,
    noninferiority_p,
    noninferiority_ps,
    sign_flip_p,
)

__all__ = [
    "Comparison",
    "Interval",
    "bootstrap_interval",
    "bootstrap_intervals",
    "chance_difference",
    "compare",
    "compare_all",
    "compare_pooled",
    "compare_units",
    "detectable_difference",
    "drawn_together",
    "equivalence_p",
    "gain_p",
    "holm",
    "implied_sd",
    "interaction_p",
    "interval_of",
    "loss_bound",
    "noninferiority_p",
    "noninferiority_ps",
    "pairs_needed",
    "proportion_interval",
    "reports_to_settle",
    "rounded",
    "sd_interval",
    "settle_range",
    "sign_flip_p",
    "units",
]


@dataclass(frozen=True)
class Comparison:
    """A paired comparison of one system with a baseline, in the unit of the differences.

    n: reports. patients: units, which are reports where patients are not known. changed: how many
    differences are not 0. sd: of one report, such that the mean's standard error is sd ÷ √n.
    detectable: the smallest true difference shown with 80 % power. design_effect: how many times as
    large the mean's variance is as it would be with each report from another patient. spread: the
    interval of `sd`, from which `settle_range` takes its two ends. largest: reports of the patient
    who has most, its `reports_per_patient`; the patient's weight in a pooled comparison.
    """

    n: int
    patients: int
    changed: int
    mean: float
    sd: float
    interval: Interval
    p: float
    detectable: float
    design_effect: float
    spread: Interval
    largest: float


def compare(
    differences: Sequence[float] | np.ndarray,
    resamples: int,
    confidence: float,
    seed: int,
    patients: Patients | None = None,
    *,
    bounds: tuple[float, float] | None = None,
    most: int | None = MOST,
) -> Comparison:
    """Return mean, interval, two-sided sign-flip p and smallest detectable difference.

    bounds: the least and the greatest difference that a report can have. Give (−1, 1) for scores
    from 0 to 1: without bounds, differences that are all equal get an interval without width. A
    likelihood has none. most: resamples to go up to where the interval's ends move in the third
    decimal.

    Raises UserError for fewer than two differences, and for one patient where no bounds are given.
    With bounds, one patient's reports are taken for fully alike.
    """
    return compare_all(
        [differences], resamples, confidence, seed, patients, bounds=bounds, most=most
    )[0]


def compare_all(
    differences: Sequence[Sequence[float] | np.ndarray],
    resamples: int,
    confidence: float,
    seed: int,
    patients: Patients | None = None,
    *,
    weights: Sequence[float] | np.ndarray | None = None,
    bounds: tuple[float, float] | None = None,
    most: int | None = MOST,
) -> list[Comparison]:
    """Return `compare` of each of several systems' differences on the same reports.

    With `weights`, `compare_pooled`. Much quicker than one by one, as all have the same resamples.
    """
    many = drawn_together([units(d, patients, weights) for d in differences], resamples, seed)
    return compare_units(many, resamples, confidence, seed, bounds=bounds, most=most)


def compare_units(
    many: Sequence[Units],
    resamples: int,
    confidence: float,
    seed: int,
    *,
    bounds: tuple[float, float] | None = None,
    most: int | None = MOST,
) -> list[Comparison]:
    """Return `compare_all` of differences that are added up and, by `drawn_together`, drawn."""
    many = drawn_on(many, confidence, most)
    tests = flipped_ps(many, resamples, seed)
    return [
        _compared(of, p, resamples, confidence, seed, bounds, most)
        for of, p in zip(many, tests, strict=True)
    ]


def compare_pooled(
    differences: Sequence[float] | np.ndarray,
    weights: Sequence[float] | np.ndarray,
    resamples: int,
    confidence: float,
    seed: int,
    patients: Patients | None = None,
    *,
    bounds: tuple[float, float] | None = None,
    most: int | None = MOST,
) -> Comparison:
    """Return the same of the ratio Σ differences ÷ Σ weights, such as pooled nats per token.

    weights: one number above 0 a report, such as its tokens. Patients are drawn with both, so that
    the interval holds what varies in either. `sd` ÷ √n is the ratio's standard error.
    """
    return compare_all(
        *([differences], resamples, confidence, seed, patients),
        weights=weights,
        bounds=bounds,
        most=most,
    )[0]


def _compared(
    of: Units,
    p: float,
    resamples: int,
    confidence: float,
    seed: int,
    bounds: tuple[float, float] | None,
    most: int | None,
) -> Comparison:
    n = of.reports
    interval = interval_of(of, resamples, confidence, seed, bounds, most)
    if of.count == 1:
        sd, effect = float(of.spread * np.sqrt(n)), float(n)
    elif of.plain or constant(of.residuals):
        sd, effect = of.spread, 1.0
    else:
        sd = float(standard_error(of)[0] * np.sqrt(n))
        effect = 1.0 if of.count == n else float((sd / of.spread) ** 2)
    high = None
    if bounds is not None and interval.method == "Gaffke":
        high = _most_spread(of, bounds, confidence)
    return Comparison(
        n=n,
        patients=of.count,
        changed=of.changed,
        mean=of.mean,
        sd=sd,
        interval=interval,
        p=p,
        detectable=detectable_difference(n, sd, alpha=1 - confidence),
        design_effect=effect,
        spread=spread_interval(of, sd, confidence, high),
        largest=float(of.weights.max()),
    )


def _most_spread(of: Units, bounds: tuple[float, float], confidence: float) -> float:
    """Return the largest spread in keeping with what was seen.

    Where few differ from what most have in common, each may differ by as much as it can; else those
    may that were not seen.
    """
    different = usual_and_different(of)[1]
    hits = different if different < FEW else 0
    share = upper_share(hits, of.count, (1 - confidence) / 2)
    size = unseen_size(of) * of.count / of.weights.sum()
    reach = max(abs(bounds[0]), abs(bounds[1]))
    return float(np.hypot(of.spread, reach * np.sqrt(share * size * of.reports / of.count)))


def loss_bound(
    differences: Sequence[float] | np.ndarray,
    worst: float,
    confidence: float,
    patients: Patients | None = None,
) -> float:
    """Return Clopper & Pearson's upper bound of the share that changes × the largest loss, `worst`.

    Of patients with any change, at the one-sided level (1 + confidence) / 2. A claim that the loss
    is below a margin needs this below the margin where only few reports change.
    """
    d = checked(differences)
    of = units((d != 0).astype(float), patients)
    hits = int(np.count_nonzero(of.totals))
    share = upper_share(hits, of.count, (1 - confidence) / 2)
    return float(min(1.0, share * unseen_size(of) * of.count / of.weights.sum()) * worst)
