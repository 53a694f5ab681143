"""Krippendorff's alpha from its definition, pair by pair, for the tests alone."""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations

Distance = Callable[[int, int, Sequence[int]], float]


def alpha_by_hand(units: Sequence[Sequence[int]], distance: Distance) -> float:
    """1 - observed ÷ expected disagreement (Krippendorff 2011). units: the ratings of each."""
    paired = [unit for unit in units if len(unit) > 1]
    pool = [each for unit in paired for each in unit]
    observed = sum(
        2 * sum(distance(a, b, pool) for a, b in combinations(unit, 2)) / (len(unit) - 1)
        for unit in paired
    ) / len(pool)
    expected = 2 * sum(distance(a, b, pool) for a, b in combinations(pool, 2))
    return 1 - observed / (expected / (len(pool) * (len(pool) - 1)))


def nominal(a: int, b: int, pool: Sequence[int]) -> float:
    return float(a != b)


def ordinal(a: int, b: int, pool: Sequence[int]) -> float:
    """The square of the ratings from a to b, those at both ends counted half."""
    counts, low, high = Counter(pool), min(a, b), max(a, b)
    between = sum(counts[each] for each in range(low, high + 1))
    return (between - (counts[low] + counts[high]) / 2) ** 2
