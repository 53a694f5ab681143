"""The GPTQ format: integers packed along the input channels, zeros along the output channels.

Tensors of a packed linear layer (AutoGPTQ and GPTQModel, `nn_modules/qlinear`):

    qweight  int32   [in·bits / 32, out]
    qzeros   int32   [groups, out·bits / 32]
    scales   float16 [groups, out]
    g_idx    int32   [in]: the group of each input channel

Values follow one another lowest bit first, so 32 values of 3 bits fill three words and two of them
lie across a border. In the first version of the format, `gptq`, every zero is stored less one;
readers add the one back to the unpacked field and not all of them cut the sum to the field's width,
so zero 0 has no place in it. The second, `gptq_v2`, stores zeros as they are.
"""

import torch
from torch import Tensor

from radquant.packed.grid import QuantizedWeight
from radquant.packed.packing import WORD, pack_bits, require_multiple, unpack_bits


def pack(weight: QuantizedWeight, bits: int, zeros_less_one: bool) -> dict[str, Tensor]:
    """The four stored tensors of one layer; `zeros_less_one` means the format's first version."""
    outputs, inputs = weight.integers.shape
    require_multiple(inputs, WORD, "inputs", "gptq")
    require_multiple(outputs, WORD, "outputs", "gptq")
    zeros = (weight.zeros - 1) & (2**bits - 1) if zeros_less_one else weight.zeros
    index = weight.group_index
    if index is None:
        index = torch.arange(inputs) // (inputs // weight.scales.shape[1])
    return {
        "qweight": pack_bits(weight.integers, bits).T.contiguous(),
        "qzeros": pack_bits(zeros.T, bits),
        "scales": weight.scales.T.contiguous(),
        "g_idx": index.to(torch.int32),
    }


def unpack(packed: dict[str, Tensor], bits: int, zeros_less_one: bool) -> QuantizedWeight:
    """The inverse of `pack`; the group index is left out where it only counts in runs."""
    groups, outputs = packed["scales"].shape
    inputs = packed["qweight"].shape[0] * WORD // bits
    zeros = unpack_bits(packed["qzeros"], bits, outputs)
    if zeros_less_one:
        zeros = (zeros + 1) & (2**bits - 1)
    index = packed.get("g_idx")
    if index is not None and inputs % groups == 0:
        runs = torch.arange(inputs, device=index.device) // (inputs // groups)
        index = None if torch.equal(index.long(), runs) else index
    return QuantizedWeight(
        unpack_bits(packed["qweight"].T.contiguous(), bits, inputs),
        packed["scales"].T.contiguous(),
        zeros.T.contiguous(),
        index,
    )
