"""The word for one comparison with the original: one of five, from its interval and tests."""

from collections.abc import Mapping
from typing import Any

WORSE, NO_WORSE, BETTER = "worse", "no worse than the margin", "better"
NOT_SETTLED, UNFIT = "not settled", "unfit"
WORDS = (WORSE, NO_WORSE, BETTER, NOT_SETTLED, UNFIT)

Row = Mapping[str, Any]


def judge(row: Row, confidence: float, fit: bool = True, less_is_better: bool = False) -> str:
    """Return the word for a comparison.

    A word needs both its Holm-corrected test and the interval that the report shows, so that no
    sentence can contradict the interval. Without one, or where no margin applies, it is not said.

    - *worse*: two-sided p below 1 − confidence, and the interval all on the side of loss. It is the
      one word that an unfit run can have besides *unfit*.
    - *better*: the same on the side of gain.
    - *no worse than the margin*: one-sided p of non-inferiority below (1 − confidence) / 2, and the
      interval above the margin. A loss that is shown and smaller than the margin is this, too
      (CONSORT for non-inferiority, doi:10.1001/jama.2012.87802, figure 1).
    """
    low, high = gains(row, less_is_better)
    differs = row["p_holm"] < 1 - confidence
    within = _within(row, low, confidence)
    if differs and high < 0 and not (fit and within):
        return WORSE
    if not fit:
        return UNFIT
    if differs and low > 0:
        return BETTER
    return NO_WORSE if within else NOT_SETTLED


def gains(row: Row, less_is_better: bool = False) -> tuple[float, float]:
    """Return the interval's ends as gains: above 0 is better than the original."""
    low, high = row["interval"]["low"], row["interval"]["high"]
    return (-high, -low) if less_is_better else (low, high)


def alone_within(row: Row, confidence: float) -> bool:
    """Whether non-inferiority would be shown if this were the only comparison."""
    p = row["noninferiority_p"]
    return p is not None and p < (1 - confidence) / 2


def _within(row: Row, low: float, confidence: float) -> bool:
    p = row["noninferiority_p_holm"]
    return p is not None and p < (1 - confidence) / 2 and low > -row["margin"]
