"""The grid of a uniform quantizer, by groups of input channels.

An integer q in [0, 2^bits − 1] stands for the weight (q − zero)·scale, with one scale and one zero
for `group_size` neighbouring input channels of one output channel (AWQ, Lin et al. 2023, eq. 1).
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Recipe:
    """How the weights of a checkpoint are quantized."""

    method: str  # "awq" or "rtn" (plain rounding to nearest)
    bits: int
    group_size: int
    zero_point: bool = True  # False: the grid is symmetric about 0


@dataclass(frozen=True)
class QuantizedWeight:
    """Integers and grid of one linear layer, as they are stored."""

    integers: Tensor  # [out, in] uint8
    scales: Tensor  # [out, in / group_size] float16
    zeros: Tensor  # [out, in / group_size] uint8

    def dequantize(self) -> Tensor:
        """The weights that these integers stand for, [out, in] float32."""
        return dequantize(self.integers, self.scales, self.zeros)


def by_group(weight: Tensor, group_size: int) -> Tensor:
    """View [out, in] as [out, in / group_size, group_size]."""
    return weight.unflatten(-1, (-1, group_size))


def find_grid(groups: Tensor, recipe: Recipe, keep: float = 1.0) -> tuple[Tensor, Tensor]:
    """Scale and zero of each group, [..., group] float32 -> two [...] float32.

    `keep` shrinks the covered range to that share of it: what lies outside is clipped. The scale is
    already rounded to float16, the precision it is stored in, so what is searched is what is kept.
    The range always holds 0, which keeps the zero inside the integers' range.
    """
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
    return scale.clamp(min=1e-5).half().float()


def round_to_grid(groups: Tensor, scale: Tensor, zero: Tensor, bits: int) -> Tensor:
    """Nearest grid points of [..., group] weights, still as floats: what the model will compute."""
    scale, zero = scale[..., None], zero[..., None]
    integers = (groups / scale).round_().add_(zero).clamp_(0, 2**bits - 1)
    return integers.sub_(zero).mul_(scale)


def quantize(weight: Tensor, recipe: Recipe, keep: Tensor | None = None) -> QuantizedWeight:
    """Quantize [out, in] weights; `keep` is the share of each group's range, [out, groups]."""
    groups = by_group(weight.float(), recipe.group_size)
    scale, zero = find_grid(groups, recipe)
    if keep is not None:
        for share in keep.unique().tolist():
            scale_kept, zero_kept = find_grid(groups, recipe, share)
            scale = torch.where(keep == share, scale_kept, scale)
            zero = torch.where(keep == share, zero_kept, zero)
    integers = (groups / scale[..., None]).round_().add_(zero[..., None])
    integers = integers.clamp_(0, 2**recipe.bits - 1)
    return QuantizedWeight(integers.flatten(-2).to(torch.uint8), scale.half(), zero.to(torch.uint8))


def dequantize(integers: Tensor, scales: Tensor, zeros: Tensor) -> Tensor:
    """(q − zero)·scale for [out, in] integers and [out, groups] scales and zeros, in float32."""
    groups = by_group(integers, integers.shape[-1] // scales.shape[-1]).float()
    return groups.sub_(zeros.float()[..., None]).mul_(scales.float()[..., None]).flatten(-2)
