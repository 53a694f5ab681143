"""How many reports a comparison needs, and what a number of them can show."""

import math

import numpy as np
from scipy import special

from radquant.errors import UserError

MOST_ROOT = 1e150  # of a number of pairs: its square is still a number
MOST_REPORTS = 2**200


def detectable_difference(n: int, sd: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """Return the smallest true mean difference that `n` pairs would show with `power`.

    Two-sided test at level `alpha`, normal approximation: (z_{1−α/2} + z_power) · sd / √n.
    """
    return float(_z_sum(alpha, power) * sd / np.sqrt(n))


def pairs_needed(difference: float, sd: float, alpha: float = 0.05, power: float = 0.8) -> int:
    """Return how many pairs would show a true mean `difference` (> 0) with `power`; at least 2."""
    return _whole(_z_sum(alpha, power) * sd / difference)


def reports_to_settle(
    margin: float,
    sd: float,
    precisions: int,
    alpha: float,
    power: float,
    worst: float,
    reports_per_patient: float = 1,
) -> int:
    """Return how many reports settle with `power` whether a loss as large as `margin` is there.

    That is: show that the loss is smaller where nothing differs, or show a loss of the margin. sd:
    of the differences, such that the mean's standard error is sd ÷ √reports. precisions: how many
    are tested. Each must hold at `alpha` (one-sided) ÷ their number, with which Holm's correction
    begins. worst: the largest loss that a report can have, above the margin. reports_per_patient:
    of the patient who has most, all of whose reports may be lost together.

    Both take ((z_{1−α/m} + z_power) · sd ÷ margin)² reports by the normal approximation. The guard
    against losses that were not seen (Gaffke's, see `bounded_means`) takes more; its p is that of a
    normal sum less an exponential.
    """
    if not 0 < margin < worst:
        raise UserError(
            f"a margin of {margin:g} must lie between 0 and the largest loss, {worst:g}"
        )
    level = alpha / precisions
    low = max(2, _whole((_z(1 - level) + _z(power)) * sd / margin))
    size = max(1.0, reports_per_patient)

    def enough(n: int) -> bool:
        # The mean gain that is exceeded with a chance of `power`.
        mean = margin - _z(power) * sd / math.sqrt(n)
        return mean > 0 and _guard_p(n, mean, sd, size, worst - margin) <= level

    high = low
    while not enough(high):
        high *= 2
        if high > MOST_REPORTS:
            raise UserError("no number of reports would settle this; take a larger margin")
    low = max(2, high // 2) if high > low else low
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return high


def settle_range(
    margin: float,
    spread: tuple[float, float],
    precisions: int,
    alpha: float,
    power: float,
    worst: float,
    reports_per_patient: float = 1,
) -> tuple[int, int]:
    """Return `reports_to_settle` for both ends of the interval of the spread, to two digits."""
    low, high = (
        reports_to_settle(margin, sd, precisions, alpha, power, worst, reports_per_patient)
        for sd in spread
    )
    return rounded(low), rounded(high)


def rounded(number: int) -> int:
    """Return a number of reports to two significant digits, upwards."""
    unit = 10 ** max(0, len(str(number)) - 2)
    return -(-number // unit) * unit


def _guard_p(n: int, mean: float, sd: float, size: float, loss: float) -> float:
    """Return Gaffke's p of `n` gains of that mean and spread: P(normal sum ≤ exponential loss)."""
    center, rate = n * mean, loss * size
    spread = math.sqrt(n) * math.hypot(sd, math.sqrt(size) * mean)
    below = special.log_ndtr(-center / spread)
    beyond = (
        -center / rate
        + (spread / rate) ** 2 / 2
        + special.log_ndtr(center / spread - spread / rate)
    )
    return float(np.exp(min(0.0, np.logaddexp(below, beyond))))


def implied_sd(low: float, high: float, n: int, confidence: float) -> float:
    """Return the standard deviation of `n` values whose mean has the t interval `low` to `high`."""
    if not low < high:
        raise UserError(f"an interval from {low} to {high} is none; give the lower end first")
    return float((high - low) / 2 * np.sqrt(n) / special.stdtrit(n - 1, (1 + confidence) / 2))


def sd_interval(sd: float, n: int, confidence: float) -> tuple[float, float]:
    """Return the χ² interval of a standard deviation of `n` values, which takes them for normal."""
    tails = np.array([(1 + confidence) / 2, (1 - confidence) / 2])
    low, high = sd * np.sqrt((n - 1) / (2 * special.gammaincinv((n - 1) / 2, tails)))
    return float(low), float(high)


def chance_difference(difference: float, sd: float, n: int) -> float:
    """Return how often `n` pairs of equally good systems differ by `difference` or more.

    In either direction, in the mean, by the normal approximation.
    """
    return float(2 * special.ndtr(-difference * np.sqrt(n) / sd))


def _whole(root: float) -> int:
    """Return how many pairs `root` squared is, at least 2."""
    if not abs(root) <= MOST_ROOT:
        raise UserError(
            "the difference or the margin is so small beside the spread that no number of reports "
            "would show it; take a larger one"
        )
    return max(2, int(np.ceil(root**2)))


def _z(level: float) -> float:
    return float(special.ndtri(level))


def _z_sum(alpha: float, power: float) -> float:
    return _z(1 - alpha / 2) + _z(power)
