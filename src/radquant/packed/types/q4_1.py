"""GGUF's Q4_1: q·d + m, q in 0 … 15, with a float16 scale d and a float16 offset m for 32 weights
(llama.cpp, ggml/src/ggml-common.h, `block_q4_1`). The offset is the `zero`, in weights' units."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from radquant.packed.types.kind import NumberType
    from radquant.settings.recipe import Recipe

NAME = "q4_1"
BITS: int | None = 4
GROUP_SIZE: int | None = 32
ZERO_POINT: bool | None = True
MOST = 15


def problem(recipe: Recipe) -> str | None:
    return None


def outer(groups: Tensor, recipe: Recipe) -> Tensor | None:
    return None


def find_grid(
    groups: Tensor, recipe: Recipe, keep: float = 1.0, outer: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Float16 scales and offsets; the range need not hold 0."""
    from radquant.packed import gguf_grid

    low, high = gguf_grid.ends(groups, keep)
    zero = gguf_grid.in_float16(low)
    scale = gguf_grid.in_float16((high - zero) / MOST)
    return gguf_grid.away_from_zero(scale), zero


def nearest(weight: Tensor, scale: Tensor, zero: Tensor, recipe: Recipe) -> Tensor:
    from radquant.packed import gguf_grid

    return gguf_grid.offset_codes(weight, scale, zero, MOST)


def values(codes: Tensor, scale: Tensor, zero: Tensor, recipe: Recipe | None = None) -> Tensor:
    from radquant.packed import gguf_grid

    return gguf_grid.offset_values(codes, scale, zero)


def narrowed(scale: Tensor, zero: Tensor, divisor: Tensor) -> tuple[Tensor, Tensor]:
    return scale / divisor, zero / divisor


if TYPE_CHECKING:
    from radquant.packed.types import q4_1

    _: NumberType = q4_1
