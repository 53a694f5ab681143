"""Numbers on a command line that are no settings: each within its bounds."""

import math
from collections.abc import Callable
from typing import TypeVar

from radquant.errors import UserError

N = TypeVar("N", int, float)


def between(option: str, kind: type[N], least: float, most: float) -> Callable[[str], N]:
    """What makes a number of the text of `option`, as `type` of `add_argument`.

    It raises UserError for what does not lie between `least` and `most`, and so for infinities and
    NaN.
    """

    def number(text: str) -> N:
        try:
            value = kind(text)
            within = math.isfinite(value) and least <= value <= most
        except (ValueError, OverflowError):
            within = False
        if not within:
            wanted = "a whole number" if kind is int else "a number"
            raise UserError(
                f"{option} is {text[:100]!r} and must be {wanted} from {least:.15g} to {most:.15g}"
            )
        return value

    return number
