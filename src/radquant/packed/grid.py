"""The grid of a uniform quantizer, by groups of input channels.

An integer q in [0, 2^bits − 1] stands for the weight (q − zero)·scale, with one scale and one zero
for `group_size` input channels of one output channel (AWQ, Lin et al. 2023, eq. 1). The channels of
a group are neighbours, unless GPTQ formed the groups in order of activation.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from radquant.errors import UserError
from radquant.finite import norm
from radquant.packed import progressive_grid
from radquant.settings.recipe import WHOLE_ROW, Recipe

LEAST_SCALE = 1e-5
# The most that rounding may cost a layer because its weights are too small for the least scale, as
# a share of their length: 4 bits cost a tenth by themselves.
MOST_LOST = 0.25


@dataclass(frozen=True)
class QuantizedWeight:
    """Integers and grid of one linear layer, as they are stored."""

    integers: Tensor  # [out, in] uint8
    scales: Tensor  # [out, groups] float16; progressive: uint8 multiples of the channel scales
    zeros: Tensor  # [out, groups] uint8
    group_index: Tensor | None = None  # [in] int32, each channel's group; None: in runs
    channel_scales: Tensor | None = None  # [out] float16; None: not progressive

    def dequantize(self) -> Tensor:
        """The weights that these integers stand for, [out, in] float32."""
        scales = self.scales.float()
        if self.channel_scales is not None:
            scales = scales * self.channel_scales.float()[:, None]
        return dequantize(self.integers, scales, self.zeros, self.group_index)


def by_group(weight: Tensor, group_size: int) -> Tensor:
    """View [out, in] as [out, groups, in / groups]; group size -1 makes one group."""
    return weight.unflatten(-1, (1, -1) if group_size == WHOLE_ROW else (-1, group_size))


def find_grid(
    groups: Tensor, recipe: Recipe, keep: float = 1.0, channel: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Scale and zero of each group, [..., group] float32 -> two [...] float32.

    `keep` shrinks the covered range to that share of it: what lies outside is clipped. The scale is
    already as it can be stored, so what is searched is what is kept: rounded to float16 or, if
    progressive, a whole multiple of `channel`, the rows' INT8 scales (None: `groups` are all
    groups of their rows, which give them; else [...]). The range always holds 0, which keeps the
    zero inside the integers' range.
    """
    if recipe.progressive:
        if channel is None:
            channel = progressive_grid.channel_scales(groups)[..., None]
        return progressive_grid.find_grid(groups, channel, keep)
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


def find_kept_grid(groups: Tensor, recipe: Recipe, keep: Tensor | None) -> tuple[Tensor, Tensor]:
    """`find_grid` of [out, groups, group] weights with each group's own `keep`, [out, groups]."""
    scale, zero = find_grid(groups, recipe)
    if keep is not None:
        for share in keep.unique().tolist():
            scale_kept, zero_kept = find_grid(groups, recipe, share)
            scale = torch.where(keep == share, scale_kept, scale)
            zero = torch.where(keep == share, zero_kept, zero)
    return scale, zero


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
    groups = by_group(weight, recipe.group_size)
    wide = (groups.amax(-1).clamp(min=0) - groups.amin(-1).clamp(max=0)) / (2**recipe.bits - 1)
    small = wide < LEAST_SCALE
    lost = by_group(rounded - weight, recipe.group_size)[small]
    if norm(lost) > MOST_LOST * norm(weight):
        raise UserError(
            f"its weights are so small (at most {float(weight.abs().max()):.3g}) that rounding to "
            f"{recipe.bits} bits would lose them: the least scale is {LEAST_SCALE:g}; take more "
            "bits, or a model whose weights are of usual size"
        )


def nearest_integers(weight: Tensor, scale: Tensor, zero: Tensor, bits: int) -> Tensor:
    """The integers in [0, 2^bits − 1] whose grid points are nearest, as a new float tensor."""
    return (weight / scale).round_().add_(zero).clamp_(0, 2**bits - 1)


def round_to_grid(groups: Tensor, scale: Tensor, zero: Tensor, bits: int) -> Tensor:
    """Nearest grid points of [..., group] weights, still as floats: what the model will compute."""
    scale, zero = scale[..., None], zero[..., None]
    return nearest_integers(groups, scale, zero, bits).sub_(zero).mul_(scale)


def quantize(weight: Tensor, recipe: Recipe, keep: Tensor | None = None) -> QuantizedWeight:
    """Round [out, in] weights to nearest; `keep` is the share of each group's range, [out, groups].

    Works for every bit width and group size, whatever the recipe's method.
    """
    groups = by_group(weight.float(), recipe.group_size)
    scale, zero = find_kept_grid(groups, recipe, keep)
    integers = nearest_integers(groups, scale[..., None], zero[..., None], recipe.bits)
    scales, channel = stored_scales(scale, groups, recipe)
    return QuantizedWeight(
        integers.flatten(-2).to(torch.uint8), scales, zero.to(torch.uint8), channel_scales=channel
    )


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
