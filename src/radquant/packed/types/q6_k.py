"""GGUF's Q6_K: (q − 32)·(d·s), q in 0 … 63, for 16 weights an INT8 scale s, and for 256 a float16
scale d of the scales (llama.cpp, ggml/src/ggml-common.h, `block_q6_K`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from radquant.packed.types.kind import NumberType
    from radquant.settings.recipe import Recipe

NAME = "q6_k"
BITS: int | None = 6
GROUP_SIZE: int | None = 16
ZERO_POINT: bool | None = False
MIDDLE, MOST = 32, 63
GROUPS = 16  # of a block of 256 weights
LARGEST_SCALE = 127


def problem(recipe: Recipe) -> str | None:
    return None


def outer(groups: Tensor, recipe: Recipe) -> Tensor | None:
    """d of each group's block, [out, groups, 1] float32 as float16 holds it."""
    from radquant.packed import gguf_grid

    scale = gguf_grid.signed_scale(groups, MIDDLE, 1.0).unflatten(1, (-1, GROUPS))
    of_block = gguf_grid.in_float16(scale.abs().amax(2) / LARGEST_SCALE)
    return gguf_grid.away_from_zero(of_block).repeat_interleave(GROUPS, 1)[..., None]


def find_grid(
    groups: Tensor, recipe: Recipe, keep: float = 1.0, outer: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """d·s, of either sign; zeros are 0. outer: d, [..., 1]."""
    from radquant.packed import gguf_grid
    from radquant.packed.types import q6_k

    shared = q6_k.outer(groups, recipe) if outer is None else outer
    assert shared is not None
    of_block = shared[..., 0]
    steps = (gguf_grid.signed_scale(groups, MIDDLE, keep) / of_block).round()
    steps = steps.clamp(-LARGEST_SCALE, LARGEST_SCALE)
    scale = of_block * steps.where(steps != 0, steps.new_ones(()))
    return scale, scale.new_zeros(scale.shape)


def nearest(weight: Tensor, scale: Tensor, zero: Tensor, recipe: Recipe) -> Tensor:
    from radquant.packed import gguf_grid

    return gguf_grid.centred_codes(weight, scale, MIDDLE, 0, MOST)


def values(codes: Tensor, scale: Tensor, zero: Tensor, recipe: Recipe | None = None) -> Tensor:
    from radquant.packed import gguf_grid

    return gguf_grid.centred_values(codes, scale, MIDDLE)


def narrowed(scale: Tensor, zero: Tensor, divisor: Tensor) -> tuple[Tensor, Tensor]:
    return scale / divisor, zero


if TYPE_CHECKING:
    from radquant.packed.types import q6_k

    _: NumberType = q6_k
