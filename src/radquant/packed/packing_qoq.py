"""The format `qoq`: weights quantized progressively (see `progressive`). This program's own.

Tensors of a packed linear layer:

    qweight         int32   [out, in / 8]: q, lowest bits first
    group_scales    uint8   [out, in / group_size]: whole numbers, 1 … 16
    group_zeros     uint8   [out, in / group_size]: 0 … 15
    channel_scales  float16 [out]

with weight = (q − group_zero)·group_scale·channel_scale; the product of the first two is always an
INT8 value. QServe's own layout follows from these by reordering (`omniserve`).
"""

from torch import Tensor

from radquant.packed.grid import QuantizedWeight
from radquant.packed.packing import WORD, pack_bits, require_multiple, unpack_bits
from radquant.packed.progressive_grid import int8_weights

BITS = 4


def pack(weight: QuantizedWeight) -> dict[str, Tensor]:
    """The four stored tensors of one layer; raises UserError if a weight is no INT8 value."""
    if weight.channel_scales is None:
        raise ValueError("the weight was not quantized progressively")
    # In memory, eight output channels share a word.
    require_multiple(weight.integers.shape[0], WORD // BITS, "outputs", "qoq")
    int8_weights(weight.integers, weight.zeros, weight.scales)
    return {
        "qweight": pack_bits(weight.integers, BITS),
        "group_scales": weight.scales.contiguous(),
        "group_zeros": weight.zeros.contiguous(),
        "channel_scales": weight.channel_scales.contiguous(),
    }


def unpack(packed: dict[str, Tensor]) -> QuantizedWeight:
    """The inverse of `pack`."""
    inputs = packed["qweight"].shape[1] * WORD // BITS
    integers = unpack_bits(packed["qweight"], BITS, inputs)
    zeros, scales = packed["group_zeros"], packed["group_scales"]
    int8_weights(integers, zeros, scales)
    return QuantizedWeight(
        integers,
        scales.contiguous(),
        zeros.contiguous(),
        channel_scales=packed["channel_scales"].contiguous(),
    )
