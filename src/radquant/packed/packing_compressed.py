"""The `pack-quantized` format of compressed-tensors.

Tensors of a packed linear layer (compressed-tensors, `compressors/pack_quantized`):

    weight_packed      int32   [out, ceil(in·bits / 32)]
    weight_scale       float16 [out, groups]
    weight_zero_point  int32   [ceil(out·bits / 32), groups]; asymmetric grids only
    weight_shape       int64   [2]: out, in
    weight_g_idx       int32   [in]; only where groups were formed in order of activation, which
                               the package's later versions and vLLM refuse: read, never written

It speaks of signed integers q − 2^(bits − 1) and of their zeros but stores them with that offset
added back, which is this program's own range. For bits that do not divide 32 its versions differ
(0.17 leaves the rest of a word empty, 0.20 fills it), so 3 bits are not written and read only as
the newer ones store them.
"""

import math

import torch
from torch import Tensor

from radquant.errors import UserError
from radquant.packed.grid import QuantizedWeight
from radquant.packed.packing import WORD, pack_bits, unpack_bits


def pack(weight: QuantizedWeight, bits: int, symmetric: bool) -> dict[str, Tensor]:
    """The stored tensors of one layer; a symmetric grid's zeros go without saying."""
    packed = {
        "weight_packed": pack_bits(weight.integers, bits),
        "weight_scale": weight.scales.contiguous(),
        "weight_shape": torch.tensor(weight.integers.shape),
    }
    if not symmetric:
        packed["weight_zero_point"] = pack_bits(weight.zeros.T, bits).T.contiguous()
    return packed


def unpack(packed: dict[str, Tensor], bits: int, symmetric: bool) -> QuantizedWeight:
    """The inverse of `pack`."""
    outputs, inputs = packed["weight_shape"].tolist()
    words = packed["weight_packed"].shape[-1]
    if words != math.ceil(inputs * bits / WORD):
        raise UserError(
            f"{words} words cannot be read as {inputs} integers of {bits} bits; the checkpoint is "
            "damaged, or its integers are padded as in an older version of compressed-tensors"
        )
    scales = packed["weight_scale"].reshape(outputs, -1)
    if symmetric:
        zeros = torch.full(scales.shape, 2 ** (bits - 1), dtype=torch.uint8, device=scales.device)
    else:
        zeros = unpack_bits(packed["weight_zero_point"].T.contiguous(), bits, outputs).T
    return QuantizedWeight(
        unpack_bits(packed["weight_packed"], bits, inputs),
        scales.contiguous(),
        zeros.contiguous(),
        packed.get("weight_g_idx"),
    )
