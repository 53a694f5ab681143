"""PyTorch's own 4-bit product on a CPU, for machines that cannot compile this package's kernels.

It is made for bfloat16 and keeps a group's scale and offset in it. Each has eight bits, as a weight
has that was unpacked to bfloat16.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from radquant.kernels.cpu import hand_over
from radquant.packed.linear import PackedLinear
from radquant.packed.packing import unpack_columns

GROUPS, ALIGNED = (32, 64, 128, 256), 16  # what PyTorch takes: sizes of groups, output channels
TILES = 1  # of the packed layout; a CPU ignores it


def fits(layer: PackedLinear) -> bool:
    """Whether PyTorch multiplies by this layer."""
    shape = layer.bits == 4 and layer.group_size in GROUPS and layer.out_features % ALIGNED == 0
    return type(layer) is PackedLinear and shape


class Int4PackLinear(nn.Module):
    """A packed linear layer of bfloat16 activations, by PyTorch."""

    packed: Tensor  # as _convert_weight_to_int4pack_for_cpu leaves them
    scale_zero: Tensor  # [groups, out, 2] bfloat16: weight = (integer − 8)·scale + zero
    order: Tensor | None
    bias: Tensor | None  # [out]

    def __init__(self, layer: PackedLinear) -> None:
        super().__init__()
        self.group_size = layer.group_size
        integers = unpack_columns(layer.qweight, 4).T.to(torch.int32).contiguous()
        packed = torch._convert_weight_to_int4pack_for_cpu(integers, TILES)
        scales = layer.group_scales()
        zeros = (8 - unpack_columns(layer.qzeros, 4).float()) * scales
        self.register_buffer("packed", packed)
        self.register_buffer("scale_zero", torch.stack([scales, zeros], -1).bfloat16())
        self.register_buffer("order", layer.order)
        self.register_buffer("bias", layer.bias)

    def forward(self, x: Tensor) -> Tensor:  # [..., in] -> [..., out], both bfloat16
        if self.order is not None:
            x = x.index_select(-1, self.order)
        rows = x.reshape(-1, x.shape[-1]).contiguous()
        y = torch._weight_int4pack_mm_for_cpu(rows, self.packed, self.group_size, self.scale_zero)
        y = y.unflatten(0, x.shape[:-1])
        return y if self.bias is None else y + self.bias.to(y.dtype)


def install(layers: Mapping[str, PackedLinear]) -> str:
    """Let PyTorch multiply by those of `layers` that it takes; what runs, in a few words."""
    taken = [layer for layer in layers.values() if fits(layer)]
    for layer in taken:
        hand_over(layer, Int4PackLinear(layer))
    left = len(layers) - len(taken)
    return f"PyTorch int4pack; {left} layers reference" if left else "PyTorch int4pack"
