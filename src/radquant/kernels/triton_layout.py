"""4-bit weights as the Triton kernels read them: repacked once, when a model is loaded.

AutoAWQ packs along the output channels. A kernel that multiplies 8-bit integers wants the input
channels of one output side by side ("K-major"). One that unpacks in registers wants to use both
nibbles of a byte without reordering anything. So the input channels are cut into runs of `half`
(64, or 32 where groups are no multiple of 64). One byte holds the same place of two neighbouring
runs:

    tiles       uint8 [blocks, out, half]  low nibbles: inputs 2·half·b + j, high: half more
    scale_zero  int32 [groups, out]        low 16 bits: the scale; from bit 16 on: the zero point

The scale is a float16's bits, or a whole number where the weights are progressive. Memory is that
of the packed checkpoint: 4 bits a weight, and for a group 32 instead of 20.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from radquant.errors import UserError
from radquant.packed.linear import PackedLinear
from radquant.packed.packing import ORDER, unpack_bits
from radquant.packed.progressive_linear import MOST_INPUTS, ProgressiveLinear


class KMajorWeight(NamedTuple):
    """A packed linear layer in the kernels' layout."""

    tiles: Tensor
    scale_zero: Tensor
    group_size: int
    in_features: int
    channel_scales: Tensor | None  # [out] float32 of progressive weights
    order: Tensor | None  # [in] int32: the input channel of each row
    bias: Tensor | None  # [out]


def half_block(group_size: int) -> int:
    """How many neighbouring input channels of one nibble a tile holds; all lie in one group."""
    return 64 if group_size % 64 == 0 else 32


def why_not(layer: PackedLinear) -> str | None:
    """Why the kernels cannot take a layer, or None if they can."""
    if layer.bits != 4:
        return f"{layer.bits}-bit fields"
    if layer.group_size % 32:
        return f"groups of {layer.group_size} inputs, which is no multiple of 32"
    if layer.in_features >= MOST_INPUTS:
        return f"{layer.in_features} inputs, whose products can overflow INT32"
    if not isinstance(layer, ProgressiveLinear) and not fits_half(layer.scales):
        return "scales that float16 does not hold exactly"
    return None


def fits_half(scales: Tensor) -> bool:
    return torch.equal(scales.half().float(), scales.float())


def repack(layer: PackedLinear) -> KMajorWeight:
    """The layer's weights in the kernels' layout, on the layer's device; the layer stays as it is.

    Raises UserError for a layer that the kernels cannot take.
    """
    reason = why_not(layer)
    if reason is not None:
        raise UserError(f"the GPU kernels do not take a layer with {reason}; use the reference")
    half = half_block(layer.group_size)
    integers = unpack_bits(layer.qweight, 4, layer.out_features, ORDER[4])  # [in, out]
    integers = torch.nn.functional.pad(integers, (0, 0, 0, -layer.in_features % (2 * half)))
    low, high = integers.unflatten(0, (-1, 2, half)).unbind(1)  # [blocks, half, out]
    zeros = unpack_bits(layer.qzeros, 4, layer.out_features, ORDER[4]).to(torch.int32)
    if isinstance(layer, ProgressiveLinear):
        scales, channel_scales = layer.scales, layer.channel_scales.float()
    else:
        scales, channel_scales = layer.scales.half().view(torch.int16), None
    return KMajorWeight(
        tiles=(low | high << 4).transpose(1, 2).contiguous(),
        scale_zero=(scales.to(torch.int32) & 0xFFFF) | zeros << 16,
        group_size=layer.group_size,
        in_features=layer.in_features,
        channel_scales=channel_scales,
        order=layer.order,
        bias=layer.bias,
    )
