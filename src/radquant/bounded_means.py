"""What can be said of a mean when a report may lose much more than any that was seen.

A sample in which no report lost anything says nothing of a loss that one report in a hundred has.
Student's t and the bootstrap take the sample's spread for the truth and call such a loss excluded.
But the values have a range, and with it comes a bound that holds for every distribution in it.

Gaffke's bound adds one value to the sample, the worst that there can be, and weighs all by
Dirichlet(1, …, 1). It is from 2005: "Three test statistics for a nonparametric one-sided hypothesis
on the mean of a nonnegative variable", Mathematical Methods of Statistics 14. For values of 0 and 1
it is Clopper and Pearson's. For many it comes to Student's t. No case is known in which it errs
more often than it says (Learned-Miller & Thomas 2019, arXiv:1905.06208; Phan, Thomas &
Learned-Miller 2021, arXiv:2106.03163).
"""

import itertools
from collections.abc import Callable, Iterator

import numpy as np
from scipy import optimize, special

NODES = 4_000_000  # complex numbers in memory at a time
STEP = 0.1
SLOPE = 0.7  # below 1, so that a normal sum's integrand falls along the path
LEAST = 1e-300
# The integrand's logarithm: what counts as rising, and what is so small that it may rise.
RISE, NOTHING = 1e-6, -45.0


def share_below_zero(values: np.ndarray, counts: np.ndarray | None = None) -> float:
    """Return P(Σ aᵢEᵢ ≤ 0) for independent standard exponential Eᵢ and the `values` a.

    That is also the share of Dirichlet(1, …, 1) weights under which their mean is not above 0.
    counts: how often each value stands there.

    It is the integral of M(s) ÷ −s from −i∞ to i∞, where M(s) = Π 1 ÷ (1 − s·aᵢ) is the sum's
    moment-generating function. The path goes through the saddle point and bends as the steepest
    descent does there (Daniels 1987, "Tail probability approximations"). So the integrand neither
    oscillates nor cancels. The trapezoid rule in sinh⁻¹ then converges exponentially. Where that
    path leads uphill again, it is the vertical line.
    """
    if counts is None:
        values, counts = np.unique(values, return_counts=True)
    least, most = float(values.min()), float(values.max())
    if most <= 0:
        return 1.0
    if least >= 0:
        return LEAST
    if counts @ values < 0:  # the smaller of both shares, which is found exactly
        return 1 - share_below_zero(-values, counts)
    a = values / -least  # the pole on the left is now at −1

    def slope(s: float) -> float:
        return float((counts * a / (1 - s * a)).sum() - 1 / s)

    # The slope runs from −∞ at the pole to +∞ at 0, and grows all the way.
    s = optimize.brentq(slope, -1 + 1e-15, -1e-15 / max(1.0, most / -least), xtol=1e-300, rtol=1e-9)
    height = float(np.exp(-(counts * np.log1p(-s * a)).sum() - np.log(-s)))
    found = _bent(a, counts, s)
    return float(np.clip(height * (_straight(a, counts, s) if found is None else found), LEAST, 1))


def _logs(a: np.ndarray, counts: np.ndarray, s: float, z: np.ndarray) -> np.ndarray:
    """Return the integrand's logarithm at `z`, 0 at the saddle point `s`."""
    relative = (1 - z[:, None] * a) / (1 - s * a)
    return np.asarray(-(np.log(relative) @ counts) - np.log(z / s))


def _bent(a: np.ndarray, counts: np.ndarray, s: float) -> float | None:
    """Integrate along a path that bends as the steepest descent does at the saddle point `s`.

    None where the integrand rises again further out, as it can with values of both signs.
    """
    ratios = a / (1 - s * a)
    second, third = (
        (counts * ratios**2).sum() + 1 / s**2,
        2 * ((counts * ratios**3).sum() - 1 / s**3),
    )
    width, bend = 1 / np.sqrt(second), third / (6 * second)
    # A hyperbola: the parabola of the steepest descent leaves the valley further out.
    reach = SLOPE / max(2 * abs(bend), 1e-300)
    total, last = 0.0, 0.0
    for places in _places(len(a)):
        u = STEP * places
        y = width * np.sinh(u)
        root = np.hypot(reach, y)
        # √(r² + y²) − r, without cancelling.
        z = s + 1j * y + np.sign(bend) * SLOPE * y**2 / (root + reach)
        logs = _logs(a, counts, s, z)
        heights = np.append(last, logs.real)
        if ((np.diff(heights) > RISE) & (heights[1:] > NOTHING)).any():
            return None
        last = float(heights[-1])
        parts = np.exp(logs) * (1 - 1j * np.sign(bend) * SLOPE * y / root) * np.cosh(u)
        parts[u == 0] /= 2  # the line's other half is its mirror image
        total += float(parts.real.sum())
        if abs(parts[-1]) < 1e-17:
            break
    return total * width * STEP / np.pi


def _straight(a: np.ndarray, counts: np.ndarray, s: float) -> float:
    """Integrate along the vertical line through `s`, on which the integrand falls all the way.

    It oscillates there, so the steps are even and short beside the way to the nearest pole, which
    is at −1 or at 0. The trapezoid rule's error is e to the power of −2π × way ÷ step.
    """
    step, total = min(-s, 1 + s) / 5, 0.0
    for places in _places(len(a)):
        parts = np.exp(_logs(a, counts, s, s + 1j * step * places))
        parts[places == 0] /= 2
        total += float(parts.real.sum())
        if abs(parts[-1]) * places[-1] < 1e-10:
            break
    return total * step / np.pi


def _places(values: int) -> Iterator[np.ndarray]:
    """Yield 0, 1, 2 … in arrays that fit into memory for each of so many values."""
    rows = int(min(64, max(1, NODES // values)))
    return (np.arange(start, start + rows, dtype=float) for start in itertools.count(0, rows))


def guarded_p(totals: np.ndarray, worst: float) -> float:
    """Return the p of the mean of `totals` not being above 0, when one may be as low as `worst`."""
    return share_below_zero(np.append(totals, min(worst, float(totals.min()))))


def guarded_ends(
    totals: np.ndarray, weights: np.ndarray, size: float, bounds: tuple[float, float], tail: float
) -> tuple[float, float]:
    """Return the ends of the mean's interval, each passed with a chance of `tail` at most.

    totals, weights: by patient. size: the weight of a patient that was not seen, whose reports lie
    at an end of `bounds`.
    """
    low, high = bounds

    def below(mean: float) -> float:
        return share_below_zero(np.append(totals - mean * weights, size * (low - mean))) - tail

    def above(mean: float) -> float:
        return share_below_zero(np.append(mean * weights - totals, size * (mean - high))) - tail

    middle = float(totals.sum() / weights.sum())
    return _root(below, low, middle), _root(above, middle, high)


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    if np.sign(function(low)) == np.sign(function(high)):
        return low if abs(function(low)) < abs(function(high)) else high
    return float(optimize.brentq(function, low, high, xtol=1e-9))


def upper_share(hits: int, units: int, tail: float) -> float:
    """Return Clopper and Pearson's upper bound (1934) of a share, at level 1 − `tail`."""
    return 1.0 if hits >= units else float(special.betaincinv(hits + 1, units - hits, 1 - tail))


def share_p(hits: int, units: int, share: float) -> float:
    """Return the p of a share being `share` or more, when `hits` of `units` were seen."""
    return float(special.bdtr(hits, units, min(1.0, share)))
