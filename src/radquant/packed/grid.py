"""The grid that weights are rounded to, by groups of input channels, whatever their number type.

A group of `group_size` input channels of one output channel has one scale and one zero. Its type
says what a code then stands for (`packed/types`). The channels of a group are neighbours, unless
GPTQ formed the groups in order of activation.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from radquant.errors import UserError
from radquant.finite import norm
from radquant.packed import progressive_grid
from radquant.packed.types.integer import LEAST_SCALE
from radquant.packed.types.kind import number_type
from radquant.settings.precision import INT
from radquant.settings.recipe import WHOLE_ROW, Recipe

# The most that rounding may cost a layer because its weights are too small for the least scale. It
# is a share of their length: 4 bits cost a tenth by themselves.
MOST_LOST = 0.25
COARSE_SCALE = 2.0**-20  # below it float16 has fewer than five bits of a scale


@dataclass(frozen=True)
class QuantizedWeight:
    """Codes and grid of one linear layer, as they are stored."""

    integers: Tensor  # [out, in] uint8: integers, or the codes of another type
    # [out, groups] float16, float32 of other types; progressive: uint8 multiples of channel scales
    scales: Tensor
    zeros: Tensor  # [out, groups] uint8; other types: float32
    group_index: Tensor | None = None  # [in] int32, each channel's group; None: in runs
    channel_scales: Tensor | None = None  # [out] float16; None: not progressive
    type: str = INT
    outer: Tensor | None = None  # as `shared_by_rows` has it; not for integers

    def dequantize(self) -> Tensor:
        """The weights that these codes stand for, [out, in] float32."""
        if self.type != INT:
            size = self.integers.shape[-1] // self.scales.shape[-1]
            codes = by_group(self.integers, size).float()
            kind = number_type(self.type)
            return kind.values(codes, self.scales[..., None], self.zeros[..., None]).flatten(-2)
        scales = self.scales.float()
        if self.channel_scales is not None:
            scales = scales * self.channel_scales.float()[:, None]
        return dequantize(self.integers, scales, self.zeros, self.group_index)

    def rows(self, rows: slice) -> "QuantizedWeight":
        """Some output channels, as copies: a tensor that goes into a file may not be a part of
        another."""

        def some(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor[rows].clone()

        return QuantizedWeight(
            self.integers[rows],
            self.scales[rows].clone(),
            self.zeros[rows].clone(),
            None if self.group_index is None else self.group_index.clone(),
            some(self.channel_scales),
            self.type,
            some(self.outer),
        )


@dataclass(frozen=True)
class StoredValues:
    """The weights of a layer in a format of which no more is asked than its values."""

    values: Tensor  # [out, in] float32

    def dequantize(self) -> Tensor:
        return self.values


def by_group(weight: Tensor, group_size: int) -> Tensor:
    """View [out, in] as [out, groups, in / groups]; group size -1 makes one group."""
    return weight.unflatten(-1, (1, -1) if group_size == WHOLE_ROW else (-1, group_size))


def shared_by_rows(groups: Tensor, recipe: Recipe) -> Tensor | None:
    """What groups share, [out, groups or 1, …]; None if nothing. groups: [out, groups, group]."""
    return number_type(recipe.type).outer(groups, recipe)


def of_group(outer: Tensor | None, group: int) -> Tensor | None:
    """One group's part of `shared_by_rows`, [out, …]."""
    return None if outer is None else outer[:, min(group, outer.shape[1] - 1)]


def find_grid(
    groups: Tensor, recipe: Recipe, keep: float = 1.0, outer: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Scale and zero of each group, [..., group] float32 -> two [...] float32, as can be stored.

    keep: the share of the range to cover. outer: `shared_by_rows` of the rows that `groups` belong
    to, or `of_group` of it for one group; None: `groups` are all of their rows.
    """
    return number_type(recipe.type).find_grid(groups, recipe, keep, outer)


def find_kept_grid(
    groups: Tensor, recipe: Recipe, keep: Tensor | None, outer: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`find_grid` of [out, groups, group] weights with each group's own `keep`, [out, groups]."""
    if outer is None:
        outer = shared_by_rows(groups, recipe)
    scale, zero = find_grid(groups, recipe, outer=outer)
    if keep is not None:
        for share in keep.unique().tolist():
            scale_kept, zero_kept = find_grid(groups, recipe, share, outer)
            scale = torch.where(keep == share, scale_kept, scale)
            zero = torch.where(keep == share, zero_kept, zero)
    return scale, zero


def stored(
    codes: Tensor,
    grid: tuple[Tensor, Tensor],
    groups: Tensor,
    recipe: Recipe,
    group_index: Tensor | None = None,
    outer: Tensor | None = None,
) -> QuantizedWeight:
    """What is stored of [out, in] codes and the scales and zeros that were found on `groups`.

    grid: scale and zero, [out, groups] float32. groups: the weights, [out, groups, group].
    Raises UserError for scales that float16 does not hold.
    """
    scale, zero = grid
    codes = codes.to(torch.uint8)
    if recipe.type != INT:
        if not torch.isfinite(scale).all():
            raise UserError(
                f"its weights reach {float(groups.abs().max()):.3g}, which type {recipe.type} "
                "cannot scale; look for broken weights, or take type int"
            )
        return QuantizedWeight(codes, scale, zero, type=recipe.type, outer=outer)
    scales, channel = stored_scales(scale, groups, recipe)
    return QuantizedWeight(codes, scales, zero.to(torch.uint8), group_index, channel)


def stored_scales(scale: Tensor, groups: Tensor, recipe: Recipe) -> tuple[Tensor, Tensor | None]:
    """The scales and channel scales to store for scales that were found on `groups`.

    scale: [out, groups] float32. groups: the weights, [out, groups, group]. Raises UserError for
    scales that float16 does not hold.
    """
    channel = progressive_grid.channel_scales(groups) if recipe.progressive else None
    if not torch.isfinite(scale if channel is None else channel).all():
        raise UserError(
            f"its weights reach {float(groups.abs().max()):.3g}, which takes a larger scale than "
            f"float16 holds at {recipe.bits} bits; look for broken weights, or take more bits"
        )
    if channel is None:
        return scale.half(), None
    return progressive_grid.group_scales(scale, channel), channel.half()


def require_fine_enough(weight: Tensor, rounded: Tensor, recipe: Recipe) -> None:
    """Raise UserError if weights are lost because they are too small for the least scale.

    weight, rounded: [out, in] float32, before and after rounding. A few small groups among large
    ones lose nothing that counts; where all are small, rounding may leave zeros.
    """
    least = LEAST_SCALE if recipe.type == INT else COARSE_SCALE
    groups = by_group(weight, recipe.group_size)
    wide = (groups.amax(-1).clamp(min=0) - groups.amin(-1).clamp(max=0)) / (2**recipe.bits - 1)
    small = wide < least
    if not small.any():
        return
    lost = by_group(rounded, recipe.group_size)[small] - groups[small]
    if norm(lost) > MOST_LOST * norm(weight):
        raise UserError(
            f"its weights (at most {float(weight.abs().max()):.3g}) are too small for "
            f"{recipe.bits} bits: scales of type {recipe.type} are coarse below {least:.2g}; take "
            "more bits, or another model"
        )


def nearest(weight: Tensor, scale: Tensor, zero: Tensor, recipe: Recipe) -> Tensor:
    """The codes whose grid points are nearest, as a new float tensor; scale and zero broadcast."""
    return number_type(recipe.type).nearest(weight, scale, zero, recipe)


def round_to_grid(groups: Tensor, scale: Tensor, zero: Tensor, recipe: Recipe) -> Tensor:
    """Nearest grid points of [..., group] weights, still as floats: what the model will compute."""
    kind, scale, zero = number_type(recipe.type), scale[..., None], zero[..., None]
    return kind.values(kind.nearest(groups, scale, zero, recipe), scale, zero, recipe)


def quantize(
    weight: Tensor, recipe: Recipe, keep: Tensor | None = None, outer: Tensor | None = None
) -> QuantizedWeight:
    """Round [out, in] weights to nearest; `keep` is the share of each group's range, [out, groups].

    Works for every type, bit width and group size, whatever the recipe's method. outer:
    `shared_by_rows`, where it is shared with more rows than these.
    """
    groups = by_group(weight.float(), recipe.group_size)
    outer = shared_by_rows(groups, recipe) if outer is None else outer
    scale, zero = find_kept_grid(groups, recipe, keep, outer)
    codes = nearest(groups, scale[..., None], zero[..., None], recipe)
    return stored(codes.flatten(-2), (scale, zero), groups, recipe, outer=outer)


def dequantize(
    integers: Tensor, scales: Tensor, zeros: Tensor, group_index: Tensor | None = None
) -> Tensor:
    """(q − zero)·scale for [out, in] integers and [out, groups] scales and zeros, in float32.

    group_index: each input channel's group, [in] integer; None if groups are runs of neighbours.
    """
    if group_index is not None:
        index = group_index.long()
        return integers.float().sub_(zeros.float()[:, index]).mul_(scales.float()[:, index])
    groups = by_group(integers, integers.shape[-1] // scales.shape[-1]).float()
    return groups.sub_(zeros.float()[..., None]).mul_(scales.float()[..., None]).flatten(-2)
