"""AutoAWQ's GEMM format: several integers to an int32, along the output channels.

Tensors of a packed linear layer (AutoAWQ, `awq/modules/linear/gemm.py`):

    qweight  int32   [in, out / per_word]
    qzeros   int32   [in / group_size, out / per_word]
    scales   float16 [in / group_size, out]

with per_word = 32 / bits. Word w holds the output channels w·per_word + ORDER[i] at bits
i·bits … (i + 1)·bits − 1. AutoAWQ itself writes 4 bits only; the order for 8 bits is the one that
vLLM's AWQ loader undoes (`awq_marlin`).
"""

import torch
from torch import Tensor

from radquant.quantization.grid import QuantizedWeight

ORDER = {4: (0, 2, 4, 6, 1, 3, 5, 7), 8: (0, 2, 1, 3)}


def column_shifts(bits: int, device: torch.device | None = None) -> Tensor:
    """The bit at which each of a word's output channels starts, in the channels' order, int32."""
    order = torch.tensor(ORDER[bits], device=device)
    return (order.argsort() * bits).to(torch.int32)


def pack_columns(integers: Tensor, bits: int) -> Tensor:
    """[rows, out] integers -> [rows, out / per_word] int32."""
    words = integers.to(torch.int64).unflatten(-1, (-1, 32 // bits))
    words = (words << column_shifts(bits, integers.device)).sum(-1)
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


def unpack_columns(words: Tensor, bits: int) -> Tensor:
    """[rows, out / per_word] int32 -> [rows, out] int32, each 0 … 2^bits − 1."""
    shifts = column_shifts(bits, words.device)
    return ((words[..., None] >> shifts) & (2**bits - 1)).flatten(-2)


def pack(weight: QuantizedWeight, bits: int) -> dict[str, Tensor]:
    """The three stored tensors of one layer."""
    return {
        "qweight": pack_columns(weight.integers.T, bits),
        "qzeros": pack_columns(weight.zeros.T, bits),
        "scales": weight.scales.T.contiguous(),
    }


def unpack(packed: dict[str, Tensor], bits: int) -> QuantizedWeight:
    """The inverse of `pack`."""
    return QuantizedWeight(
        unpack_columns(packed["qweight"], bits).T.to(torch.uint8).contiguous(),
        packed["scales"].T.contiguous(),
        unpack_columns(packed["qzeros"], bits).T.to(torch.uint8).contiguous(),
    )
