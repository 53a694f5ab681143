"""8-bit floating-point weights, E4M3 (OFP8 v1.0; torch.float8_e4m3fn), with one scale a row.

A code is the byte that is stored. There is no infinity; bytes 127 and 255 are NaN and never
written. The largest value is 448, and what is larger becomes 448.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from radquant.settings.recipe import WHOLE_ROW

if TYPE_CHECKING:
    from torch import Tensor

    from radquant.packed.types.kind import NumberType
    from radquant.settings.recipe import Recipe

NAME = "fp8"
BITS: int | None = 8
GROUP_SIZE: int | None = WHOLE_ROW
ZERO_POINT: bool | None = False
LARGEST = 448.0
LEAST_SCALE = 1e-12  # of a row of zeros


def problem(recipe: Recipe) -> str | None:
    return None


def outer(groups: Tensor, recipe: Recipe) -> Tensor | None:
    return None


def find_grid(
    groups: Tensor, recipe: Recipe, keep: float = 1.0, outer: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Scales that put the largest magnitude of each row at 448; zeros are 0.

    Rounded to bfloat16: readers differ in whether they keep float32, and transformers does not.
    """
    import torch

    scale = (groups.abs().amax(-1) * keep / LARGEST).clamp(min=LEAST_SCALE).bfloat16().float()
    return scale, torch.zeros_like(scale)


def nearest(weight: Tensor, scale: Tensor, zero: Tensor, recipe: Recipe) -> Tensor:
    return nearest_codes(weight / scale)


def values(codes: Tensor, scale: Tensor, zero: Tensor, recipe: Recipe | None = None) -> Tensor:
    return code_values(codes).mul_(scale)


def narrowed(scale: Tensor, zero: Tensor, divisor: Tensor) -> tuple[Tensor, Tensor]:
    return scale / divisor, zero


def nearest_codes(values: Tensor) -> Tensor:
    """The bytes of the nearest E4M3 numbers, ties to even, as a new float tensor."""
    import torch

    rounded = values.clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn)
    return rounded.view(torch.uint8).float()


def code_values(codes: Tensor) -> Tensor:
    """The numbers that bytes stand for, float32."""
    import torch

    return codes.to(torch.uint8).view(torch.float8_e4m3fn).float()


if TYPE_CHECKING:
    from radquant.packed.types import fp8

    _: NumberType = fp8
