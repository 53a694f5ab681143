"""GGUF's Q4_0: (q − 8)·d, q in 0 … 15, with a float16 scale d for 32 weights (llama.cpp,
ggml/src/ggml-common.h, `block_q4_0`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from radquant.packed.types.kind import NumberType
    from radquant.settings.recipe import Recipe

NAME = "q4_0"
BITS: int | None = 4
GROUP_SIZE: int | None = 32
ZERO_POINT: bool | None = False
MIDDLE, LEAST, MOST = 8, 0, 15  # codes: of 0, and of the ends of the grid


def problem(recipe: Recipe) -> str | None:
    return None


def outer(groups: Tensor, recipe: Recipe) -> Tensor | None:
    return None


def find_grid(
    groups: Tensor, recipe: Recipe, keep: float = 1.0, outer: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Float16 scales of either sign; zeros are 0."""
    from radquant.packed import gguf_grid

    scale = gguf_grid.signed_scale(groups, MIDDLE, keep)
    scale = gguf_grid.away_from_zero(gguf_grid.in_float16(scale))
    return scale, scale.new_zeros(scale.shape)


def nearest(weight: Tensor, scale: Tensor, zero: Tensor, recipe: Recipe) -> Tensor:
    from radquant.packed import gguf_grid

    return gguf_grid.centred_codes(weight, scale, MIDDLE, LEAST, MOST)


def values(codes: Tensor, scale: Tensor, zero: Tensor, recipe: Recipe | None = None) -> Tensor:
    from radquant.packed import gguf_grid

    return gguf_grid.centred_values(codes, scale, MIDDLE)


def narrowed(scale: Tensor, zero: Tensor, divisor: Tensor) -> tuple[Tensor, Tensor]:
    return scale / divisor, zero


if TYPE_CHECKING:
    from radquant.packed.types import q4_0

    _: NumberType = q4_0
