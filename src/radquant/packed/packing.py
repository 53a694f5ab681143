"""Integers in 32-bit words, and AutoAWQ's GEMM format, which is also the form in memory.

Tensors of a packed linear layer (AutoAWQ, `awq/modules/linear/gemm.py`):

    qweight  int32   [in, out / per_word]
    qzeros   int32   [in / group_size, out / per_word]
    scales   float16 [in / group_size, out]

with per_word = 32 / bits. Word w holds the output channels w·per_word + ORDER[i] at bits
i·bits … (i + 1)·bits − 1. AutoAWQ itself writes 4 bits only; the order for 8 bits is the one that
vLLM's AWQ loader undid (`awq_marlin`) while it read 8 bits.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from radquant.errors import UserError
from radquant.packed.grid import QuantizedWeight

ORDER = {4: (0, 2, 4, 6, 1, 3, 5, 7), 8: (0, 2, 1, 3)}
WORD = 32  # bits


def pack_bits(values: Tensor, bits: int, order: Sequence[int] = (0,)) -> Tensor:
    """[..., n] integers below 2^bits -> [..., ceil(n·bits / 32)] int32.

    The value in place j takes the bits j·bits … (j + 1)·bits − 1 of the words' stream, lowest bit
    first; 3-bit values lie across two words where they must. `order` says which of every len(order)
    neighbours comes first, second …; its length divides 32.
    """
    count = values.shape[-1]
    blocks = torch.nn.functional.pad(values, (0, -count % WORD)).unflatten(-1, (-1, WORD))
    words = torch.zeros(*blocks.shape[:-1], bits, dtype=torch.int32, device=values.device)
    for place in range(WORD):
        word, shift = divmod(place * bits, WORD)
        start, step = divmod(place, len(order))
        value = blocks[..., start * len(order) + order[step]].to(torch.int32)
        words[..., word] |= value << shift
        if shift + bits > WORD:
            words[..., word + 1] |= value >> (WORD - shift)
    return words.flatten(-2)[..., : math.ceil(count * bits / WORD)]


def unpack_bits(words: Tensor, bits: int, count: int, order: Sequence[int] = (0,)) -> Tensor:
    """The inverse of `pack_bits`: [..., words] int32 -> [..., count] uint8."""
    span = math.lcm(WORD, bits * len(order))  # bits after which words and order begin together
    size = span // WORD
    blocks = torch.nn.functional.pad(words, (0, -words.shape[-1] % size)).unflatten(-1, (-1, size))
    values = torch.empty(*blocks.shape[:-1], span // bits, dtype=torch.uint8, device=words.device)
    for place in range(span // bits):
        word, shift = divmod(place * bits, WORD)
        value = blocks[..., word] >> shift
        if shift + bits > WORD:
            value = value & (2 ** (WORD - shift) - 1)  # what the sign was shifted into
            value |= blocks[..., word + 1] << (WORD - shift)
        start, step = divmod(place, len(order))
        values[..., start * len(order) + order[step]] = value & (2**bits - 1)
    return values.flatten(-2)[..., :count]


def column_shifts(bits: int, device: torch.device | None = None) -> Tensor:
    """The bit at which each of a word's output channels starts, in the channels' order, int32."""
    order = torch.tensor(ORDER[bits], device=device)
    return (order.argsort() * bits).to(torch.int32)


def pack_columns(integers: Tensor, bits: int) -> Tensor:
    """[rows, out] integers -> [rows, out / per_word] int32, in AutoAWQ's order."""
    return pack_bits(integers, bits, ORDER[bits])


def unpack_columns(words: Tensor, bits: int) -> Tensor:
    """[rows, out / per_word] int32 -> [rows, out] int32, each 0 … 2^bits − 1.

    In few operations, for each forward pass; `unpack_bits` takes a quarter of the memory.
    """
    shifts = column_shifts(bits, words.device)
    return ((words[..., None] >> shifts) & (2**bits - 1)).flatten(-2)


def require_multiple(size: int, divisor: int, side: str, name: str) -> None:
    """Raise UserError if a format's words cannot hold a layer of this size."""
    if size % divisor:
        raise UserError(
            f"a linear layer with {size} {side} does not fit the {name} format, which takes "
            f"multiples of {divisor}; leave the layer out or use another format"
        )


def pack(weight: QuantizedWeight, bits: int) -> dict[str, Tensor]:
    """The three stored tensors of one layer."""
    require_multiple(weight.integers.shape[0], WORD // bits, "outputs", "gemm")
    return {
        "qweight": pack_columns(weight.integers.T, bits),
        "qzeros": pack_columns(weight.zeros.T, bits),
        "scales": weight.scales.T.contiguous(),
    }


def unpack(packed: dict[str, Tensor], bits: int) -> QuantizedWeight:
    """The inverse of `pack`."""
    outputs = packed["scales"].shape[1]
    return QuantizedWeight(
        unpack_bits(packed["qweight"], bits, outputs, ORDER[bits]).T.contiguous(),
        packed["scales"].T.contiguous(),
        unpack_bits(packed["qzeros"], bits, outputs, ORDER[bits]).T.contiguous(),
    )
