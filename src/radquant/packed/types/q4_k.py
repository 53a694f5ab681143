"""GGUF's Q4_K: a weight is q·(d·s) − e·m, with q in 0 … 15.

32 weights have a 6-bit scale s and minimum m. 256 weights have two float16 scales: d of the scales
and e of the minima (llama.cpp, ggml/src/ggml-common.h, `block_q4_K`). The `zero` is −e·m, in
weights' units, which is never above 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from radquant.packed.types.kind import NumberType
    from radquant.settings.recipe import Recipe

NAME = "q4_k"
BITS: int | None = 4
GROUP_SIZE: int | None = 32
ZERO_POINT: bool | None = True
MOST = 15
GROUPS = 8  # of a block of 256 weights


def problem(recipe: Recipe) -> str | None:
    return None


def outer(groups: Tensor, recipe: Recipe) -> Tensor | None:
    """d and e of each group's block, [out, groups, 2] float32 as float16 holds them."""
    import torch

    from radquant.packed import gguf_grid

    low = groups.amin(-1).clamp(max=0)
    scale = (groups.amax(-1) - low) / MOST
    both = torch.stack((scale, -low), -1).unflatten(1, (-1, GROUPS))
    of_block = gguf_grid.in_float16(both.amax(2) / gguf_grid.SUPER_SCALES)
    return gguf_grid.away_from_zero(of_block).repeat_interleave(GROUPS, 1)


def find_grid(
    groups: Tensor, recipe: Recipe, keep: float = 1.0, outer: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """d·s and −e·m. outer: d and e, [..., 2]."""
    from radquant.packed import gguf_grid
    from radquant.packed.types import q4_k

    shared = q4_k.outer(groups, recipe) if outer is None else outer
    assert shared is not None
    of_scale, of_least = shared.unbind(-1)
    low, high = gguf_grid.ends(groups, keep)
    least = of_least * (-low / of_least).round().clamp(0, gguf_grid.SUPER_SCALES)
    steps = ((high + least) / MOST / of_scale).round().clamp(1, gguf_grid.SUPER_SCALES)
    return of_scale * steps, -least


def nearest(weight: Tensor, scale: Tensor, zero: Tensor, recipe: Recipe) -> Tensor:
    from radquant.packed import gguf_grid

    return gguf_grid.offset_codes(weight, scale, zero, MOST)


def values(codes: Tensor, scale: Tensor, zero: Tensor, recipe: Recipe | None = None) -> Tensor:
    from radquant.packed import gguf_grid

    return gguf_grid.offset_values(codes, scale, zero)


def narrowed(scale: Tensor, zero: Tensor, divisor: Tensor) -> tuple[Tensor, Tensor]:
    return scale / divisor, zero / divisor


if TYPE_CHECKING:
    from radquant.packed.types import q4_k

    _: NumberType = q4_k
