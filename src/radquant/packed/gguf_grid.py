"""What GGUF's number types have in common: grids about 0, grids with an offset, float16 scales.

The largest weight of a group need not be the largest step of its grid. Codes reach one step further
below 0 than above, so the scale takes the sign that puts the largest weight there. llama.cpp does
the same (`quantize_row_q4_0_ref`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

LEAST_SCALE = 2.0**-24  # of float16; no scale is 0, so that a weight can be divided by it
SUPER_SCALES = 63  # the largest whole-numbered scale of q4_k


def in_float16(values: Tensor) -> Tensor:
    """Rounded to float16 in float32; infinite where float16 does not reach."""
    return values.half().float()


def away_from_zero(scale: Tensor) -> Tensor:
    """Scales of either sign, none smaller than float16's least."""
    least = scale.new_tensor(LEAST_SCALE)
    return scale.where(scale.abs() >= least, least)


def largest(groups: Tensor) -> Tensor:
    """The weight of the largest magnitude of each group, with its sign, [...]."""
    low, high = groups.amin(-1), groups.amax(-1)
    return low.where(-low >= high, high)


def signed_scale(groups: Tensor, steps: int, keep: float) -> Tensor:
    """The scale, of either sign, that puts a group's largest weight at −`steps`."""
    return largest(groups) * (-keep / steps)


def ends(groups: Tensor, keep: float) -> tuple[Tensor, Tensor]:
    """The least and the largest value to cover: `keep` of the range, about its middle."""
    low, high = groups.amin(-1), groups.amax(-1)
    cut = (high - low) * ((1 - keep) / 2)
    return low + cut, high - cut


def centred_codes(weight: Tensor, scale: Tensor, middle: int, least: int, most: int) -> Tensor:
    """The codes nearest to weights on a grid whose code `middle` is 0."""
    return (weight / scale).round_().add_(middle).clamp_(least, most)


def centred_values(codes: Tensor, scale: Tensor, middle: int) -> Tensor:
    return codes.float().sub_(middle).mul_(scale)


def offset_codes(weight: Tensor, scale: Tensor, zero: Tensor, most: int) -> Tensor:
    """The codes nearest to weights on a grid that begins with `zero`."""
    return ((weight - zero) / scale).round_().clamp_(0, most)


def offset_values(codes: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """In two steps, each rounded to float32, as llama.cpp's reference does."""
    return codes.float().mul_(scale).add_(zero)
