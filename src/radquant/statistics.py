"""Paired differences between two systems on the same reports: how large, how sure, how sensitive.

All functions take `differences`, one float per report: system minus baseline. Randomness comes
from `seed` alone, so equal scores give equal numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from radquant.errors import UserError

# Sign flips held in memory at a time, as reports × resamples.
CHUNK = 4_000_000
MOST_ROOT = 1e150  # of a number of pairs: its square is still a number


@dataclass(frozen=True)
class Interval:
    """A confidence interval; `method` is 'BCa', 'percentile' or 'constant' (no variation).

    The first two are widened to Student's t where that reaches further.
    """

    low: float
    high: float
    method: str


@dataclass(frozen=True)
class Comparison:
    """A paired comparison of one system with a baseline, in the unit of the differences."""

    n: int
    mean: float
    sd: float
    interval: Interval
    p: float
    detectable: float


def compare(
    differences: Sequence[float] | np.ndarray, resamples: int, confidence: float, seed: int
) -> Comparison:
    """Return mean, interval, two-sided sign-flip p and smallest detectable difference.

    Raises UserError for fewer than two differences.
    """
    d = _checked(differences)
    sd = 0.0 if _constant(d) else float(d.std(ddof=1))
    return Comparison(
        n=len(d),
        mean=float(d.mean()),
        sd=sd,
        interval=bootstrap_interval(d, resamples, confidence, seed),
        p=sign_flip_p(d, resamples, seed),
        detectable=detectable_difference(len(d), sd, alpha=1 - confidence),
    )


def bootstrap_interval(
    values: Sequence[float] | np.ndarray, resamples: int, confidence: float, seed: int
) -> Interval:
    """Return an interval for the mean of `values`: the outer ends of BCa's and of Student's t.

    The bias-corrected and accelerated bootstrap (Efron 1987, doi:10.1080/01621459.1987.10478410)
    is taken at the level that makes up for the bootstrap's too small standard error (expanded
    percentiles, Hesterberg 2015, doi:10.1080/00031305.2015.1089789). Still it covers too seldom
    where most values are 0 and the others symmetric, as a small sample's skewness misleads it, and
    t where values are skewed; differences of F1 come in both shapes. The outer ends keep their
    level in both (benchmarks/statistics_simulation.py).

    BCa is undefined when every resampled mean lies on one side of the mean; the percentile
    interval of the same resamples then stands in, and `method` says so. Values that are all equal
    give that value as both ends.
    """
    x = _checked(values)
    if _constant(x):
        return Interval(float(x[0]), float(x[0]), "constant")
    tail, spread = (1 - _expanded(confidence, len(x))) / 2, _t_half_width(x, confidence)
    means = stats.bootstrap(
        (x,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, CHUNK // len(x)),
        method="percentile",  # the cheapest; only the resampled means are used
        rng=np.random.default_rng(seed),
    ).bootstrap_distribution
    tails, method = _bca_tails(x, means, tail), "BCa"
    if np.isnan(tails).any():
        tails, method = np.array([tail, 1 - tail]), "percentile"
    low, high = np.quantile(means, tails)
    mean = x.mean()
    return Interval(float(min(low, mean - spread)), float(max(high, mean + spread)), method)


def _bca_tails(x: np.ndarray, means: np.ndarray, tail: float) -> np.ndarray:
    """Return which quantiles of the resampled `means` are BCa's ends; nan where it is undefined.

    Equal to `scipy.stats.bootstrap`'s, which finds the acceleration by leaving out each value
    once, in time that grows with the square of their number. As leaving one out moves the mean in
    proportion to its distance d from it, the acceleration is Σd³ / (6 (Σd²)^1.5) (Efron 1987).
    """
    mean = x.mean()
    distances = x - mean
    acceleration = (distances**3).sum() / (6 * (distances**2).sum() ** 1.5)
    # A resample whose mean is the sample's counts as half below it.
    below = (np.count_nonzero(means < mean) + np.count_nonzero(means <= mean)) / 2
    bias = stats.norm.ppf(below / len(means))
    # ∞ − ∞ or ∞ ÷ ∞ where it is undefined.
    with np.errstate(divide="ignore", invalid="ignore"):
        z = bias + stats.norm.ppf(tail) * np.array([1, -1])
        return np.asarray(stats.norm.cdf(bias + z / (1 - acceleration * z)))


def _expanded(confidence: float, n: int) -> float:
    """Return the level whose normal quantile is √(n / (n − 1)) times t's at `confidence`."""
    quantile = stats.t.ppf((1 + confidence) / 2, n - 1) * np.sqrt(n / (n - 1))
    return float(2 * stats.norm.cdf(quantile) - 1)


def _t_half_width(x: np.ndarray, confidence: float) -> float:
    return float(stats.t.ppf((1 + confidence) / 2, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))


def sign_flip_p(differences: Sequence[float] | np.ndarray, resamples: int, seed: int) -> float:
    """Return the two-sided p of the mean being 0 when each difference's sign is exchangeable.

    p = (k + 1) / (resamples + 1), where k random sign assignments give a mean at least as far from
    0 as the observed one (Phipson & Smyth 2010). When there are no more than `resamples` possible
    assignments, all are counted instead, the observed one among them, and p is exact.
    `scipy.stats.permutation_test` gives the same numbers but is ten times slower at 3,000 reports.
    """
    d = _checked(differences)
    scale = float(np.abs(d).sum())
    if scale == 0:
        return 1.0
    d = d / scale
    # Rounded, so that assignments that tie in exact arithmetic tie here as well.
    observed = abs(round(float(d.sum()), 12))
    exact = len(d) < 63 and 2 ** len(d) <= resamples
    count = 2 ** len(d) if exact else resamples
    rng = np.random.default_rng(seed)
    chunk = max(1, CHUNK // len(d))
    extreme = 0
    for start in range(0, count, chunk):
        rows = np.arange(start, min(start + chunk, count))
        flips = _all_bits(rows, len(d)) if exact else _random_bits(rng, len(rows), len(d))
        means = d.sum() - 2 * (flips @ d)
        extreme += int(np.count_nonzero(np.abs(np.round(means, 12)) >= observed))
    return extreme / count if exact else (extreme + 1) / (count + 1)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return p-values adjusted for their number by Holm's step-down method (1979)."""
    adjusted: dict[str, float] = {}
    running = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = running
    return {name: adjusted[name] for name in p_values}


def detectable_difference(n: int, sd: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """Return the smallest true mean difference that `n` pairs would show with `power`.

    Two-sided test at level `alpha`, normal approximation: (z_{1−α/2} + z_power) · sd / √n.
    """
    return float(_z_sum(alpha, power) * sd / np.sqrt(n))


def pairs_needed(difference: float, sd: float, alpha: float = 0.05, power: float = 0.8) -> int:
    """Return how many pairs would show a true mean `difference` (> 0) with `power`; at least 2."""
    return _whole(_z_sum(alpha, power) * sd / difference)


def pairs_to_settle(margin: float, sd: float, alpha: float = 0.05, power: float = 0.8) -> int:
    """Return how many pairs show, with `power`, either a difference of `margin` or equivalence.

    Equivalence within ±`margin` of systems that do not differ at all takes ((z_{1−α} +
    z_{(1+power)/2}) · sd / margin)² pairs (two one-sided tests, normal approximation), always a few
    more than the difference does; at least 2.
    """
    z = stats.norm.ppf(1 - alpha) + stats.norm.ppf((1 + power) / 2)
    equivalence = _whole(z * sd / margin)
    return max(equivalence, pairs_needed(margin, sd, alpha, power))


def implied_sd(low: float, high: float, n: int, confidence: float) -> float:
    """Return the standard deviation of `n` values whose mean has the t interval `low` to `high`."""
    if not low < high:
        raise UserError(f"an interval from {low} to {high} is none; give the lower end first")
    return float((high - low) / 2 * np.sqrt(n) / stats.t.ppf((1 + confidence) / 2, n - 1))


def chance_difference(difference: float, sd: float, n: int) -> float:
    """Return how often `n` pairs of equally good systems differ by `difference` or more.

    In either direction, in the mean, by the normal approximation.
    """
    return float(2 * stats.norm.sf(difference * np.sqrt(n) / sd))


def equivalence_p(differences: Sequence[float] | np.ndarray, margin: float) -> float:
    """Return the p of two one-sided paired t tests (Schuirmann 1987) against ±`margin`.

    A small p says that the mean lies within the margin. Differences that are all equal have no
    t statistic: p is then 0 within the margin and 1 outside it.
    """
    d = _checked(differences)
    if _constant(d):
        return 0.0 if abs(d[0]) < margin else 1.0
    above = stats.ttest_1samp(d, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(d, margin, alternative="less").pvalue
    return float(max(above, below))


def _whole(root: float) -> int:
    """Return how many pairs `root` squared is, at least 2."""
    if not abs(root) <= MOST_ROOT:
        raise UserError(
            "the difference or the margin is so small beside the spread that no number of reports "
            "would show it; take a larger one"
        )
    return max(2, int(np.ceil(root**2)))


def _z_sum(alpha: float, power: float) -> float:
    return float(stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power))


def _checked(values: Sequence[float] | np.ndarray) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) < 2:
        raise UserError(
            f"{array.size} report(s) are too few for statistics; evaluate at least 2 "
            "(config key evaluation: reports)"
        )
    if not np.isfinite(array).all():
        raise UserError("a score is not a finite number; delete results/scores and run again")
    return array


def _constant(values: np.ndarray) -> bool:
    """Tell whether all values are equal, but for what subtracting two floats leaves."""
    return bool(np.ptp(values) <= 1e-12 * max(1.0, np.abs(values).max()))


def _random_bits(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Return fair random bits as float64 [rows, columns]; one random byte makes eight of them."""
    width = -(-columns // 8)
    packed = np.frombuffer(rng.bytes(rows * width), dtype=np.uint8).reshape(rows, width)
    return np.unpackbits(packed, axis=1, count=columns).astype(np.float64)


def _all_bits(numbers: np.ndarray, columns: int) -> np.ndarray:
    """Return the binary digits of `numbers` as float64 [len(numbers), columns]."""
    return ((numbers[:, None] >> np.arange(columns)) & 1).astype(np.float64)
