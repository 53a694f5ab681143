"""Integers on a uniform grid: q in [0, 2^bits − 1] stands for (q − zero)·scale (AWQ, Lin et al.
2023, eq. 1). With `progressive`, scales are whole multiples of an INT8 scale of the row (QoQ)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from radquant.packed.types.kind import NumberType
    from radquant.settings.recipe import Recipe

NAME = "int"
BITS: int | None = None
GROUP_SIZE: int | None = None
ZERO_POINT: bool | None = None
LEAST_SCALE = 1e-5


def problem(recipe: Recipe) -> str | None:
    return None


def outer(groups: Tensor, recipe: Recipe) -> Tensor | None:
    """The rows' INT8 scales of a progressive grid, [out, 1]."""
    from radquant.packed import progressive_grid

    return progressive_grid.channel_scales(groups)[..., None] if recipe.progressive else None


def find_grid(
    groups: Tensor, recipe: Recipe, keep: float = 1.0, outer: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Scale and zero of each group, [..., group] float32 -> two [...] float32.

    `keep` shrinks the covered range to that share of it: what lies outside is clipped. The scale is
    already as it can be stored, so what is searched is what is kept. It is rounded to float16 or,
    if progressive, a whole multiple of `outer`. The range always holds 0, which keeps the zero
    inside the integers' range.
    """
    import torch

    from radquant.packed import progressive_grid

    if recipe.progressive:
        if outer is None:
            outer = progressive_grid.channel_scales(groups)[..., None]
        return progressive_grid.find_grid(groups, outer, keep)
    largest = 2**recipe.bits - 1
    if recipe.zero_point:
        low = groups.amin(-1).clamp(max=0) * keep
        high = groups.amax(-1).clamp(min=0) * keep
        scale = storable((high - low) / largest)
        return scale, (-low / scale).round().clamp(0, largest)
    half = 2 ** (recipe.bits - 1)
    scale = storable(groups.abs().amax(-1) * keep / (half - 1))
    return scale, torch.full_like(scale, half)


def storable(scale: Tensor) -> Tensor:
    """Round scales to float16, away from the zero that an empty group would give."""
    return scale.clamp(min=LEAST_SCALE).half().float()


def nearest_integers(weight: Tensor, scale: Tensor, zero: Tensor, bits: int) -> Tensor:
    """The integers in [0, 2^bits − 1] whose grid points are nearest, as a new float tensor."""
    return (weight / scale).round_().add_(zero).clamp_(0, 2**bits - 1)


def round_to_integers(groups: Tensor, scale: Tensor, zero: Tensor, bits: int) -> Tensor:
    """Nearest grid points of [..., group] values, with one scale and zero for each group, [...]."""
    scale, zero = scale[..., None], zero[..., None]
    return values(nearest_integers(groups, scale, zero, bits), scale, zero)


def nearest(weight: Tensor, scale: Tensor, zero: Tensor, recipe: Recipe) -> Tensor:
    return nearest_integers(weight, scale, zero, recipe.bits)


def values(codes: Tensor, scale: Tensor, zero: Tensor, recipe: Recipe | None = None) -> Tensor:
    return codes.float().sub_(zero.float()).mul_(scale.float())


def narrowed(scale: Tensor, zero: Tensor, divisor: Tensor) -> tuple[Tensor, Tensor]:
    return scale / divisor, zero


if TYPE_CHECKING:
    from radquant.packed.types import integer

    _: NumberType = integer
