"""Blocks of GGUF's number types: codes and grids into bytes and back.

Layouts are those of llama.cpp (https://github.com/ggml-org/llama.cpp, ggml/src/ggml-common.h,
`block_q4_0` … `block_q6_K`). A row is a run of blocks. Those of 32 weights have a float16 scale;
those of 256 (K) a float16 scale of their groups' whole-numbered scales. All is little-endian.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from radquant.errors import UserError
from radquant.settings.recipe import Recipe, fixed_by_type

if TYPE_CHECKING:
    from torch import Tensor

    from radquant.packed.grid import QuantizedWeight

BLOCK, SUPER_BLOCK = 32, 256
# What llama.cpp takes for rows that are no multiple of 256 (`llama_tensor_get_type`).
FALLBACKS = {"q4_k": "q5_0", "q6_k": "q8_0"}


def recipe_for_width(recipe: Recipe, inputs: int) -> Recipe:
    """The recipe of a layer with so many inputs.

    Where rows are no multiple of 256, a type of 32 weights to a block takes the place of one of
    256.
    """
    if recipe.type not in FALLBACKS or inputs % SUPER_BLOCK == 0:
        return recipe
    name = FALLBACKS[recipe.type]
    return recipe.model_copy(update={"type": name, **fixed_by_type(name)})


@dataclass(frozen=True)
class Layout:
    """How many weights and bytes a block has, how many of its weights share a scale, and the way
    there and back."""

    weights: int
    bytes: int
    group: int
    encode: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
    decode: Callable[[Tensor], tuple[Tensor, Tensor, Tensor, Tensor | None]]


def encode(weight: QuantizedWeight) -> Tensor:
    """The bytes of each row, [out, bytes] uint8; raises UserError for rows of broken blocks."""
    layout, (outputs, inputs) = LAYOUTS[weight.type], weight.integers.shape
    if inputs % layout.weights:
        raise UserError(
            f"its {inputs} inputs are no multiple of {layout.weights}, as blocks of {weight.type} "
            "need; use another format than gguf"
        )
    groups = layout.weights // layout.group
    blocks = layout.encode(
        weight.integers.reshape(-1, layout.weights),
        weight.scales.reshape(-1, groups),
        weight.zeros.reshape(-1, groups),
        None if weight.outer is None else weight.outer.reshape(-1, groups, weight.outer.shape[-1]),
    )
    return blocks.reshape(outputs, -1)


def decode(blocks: Tensor, type: str) -> QuantizedWeight:
    """The codes and grid of rows of blocks, [out, bytes] uint8; the inverse of `encode`."""
    from radquant.packed.grid import QuantizedWeight

    layout, outputs = LAYOUTS[type], len(blocks)
    codes, scale, zero, outer = layout.decode(blocks.reshape(-1, layout.bytes))
    return QuantizedWeight(
        codes.reshape(outputs, -1),
        scale.reshape(outputs, -1),
        zero.reshape(outputs, -1),
        type=type,
        outer=None if outer is None else outer.reshape(outputs, -1, outer.shape[-1]),
    )


def halves(values: Tensor) -> Tensor:
    """The bytes of float16 numbers that float32 `values` [blocks, n] are, [blocks, 2·n]."""
    import torch

    return values.half().contiguous().view(torch.uint8)


def floats(data: Tensor) -> Tensor:
    """The float32 values of float16 numbers in bytes, [blocks, 2·n] -> [blocks, n]."""
    import torch

    return data.contiguous().view(torch.float16).float()


def nibbles(codes: Tensor) -> Tensor:
    """Two 4-bit codes to a byte: the first half of a run low, the second high."""
    low, high = codes.chunk(2, -1)
    return low | (high << 4)


def from_nibbles(data: Tensor) -> Tensor:
    import torch

    return torch.cat((data & 15, data >> 4), -1)


def encode_q4_0(codes: Tensor, scale: Tensor, zero: Tensor, outer: Tensor | None) -> Tensor:
    import torch

    return torch.cat((halves(scale), nibbles(codes)), 1)


def decode_q4_0(data: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    scale = floats(data[:, :2])
    return from_nibbles(data[:, 2:]), scale, scale.new_zeros(scale.shape), None


def encode_q4_1(codes: Tensor, scale: Tensor, zero: Tensor, outer: Tensor | None) -> Tensor:
    import torch

    return torch.cat((halves(scale), halves(zero), nibbles(codes)), 1)


def decode_q4_1(data: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    return from_nibbles(data[:, 4:]), floats(data[:, :2]), floats(data[:, 2:4]), None


def encode_q5_0(codes: Tensor, scale: Tensor, zero: Tensor, outer: Tensor | None) -> Tensor:
    """The fifth bits of a block stand together, before the nibbles."""
    import torch

    places = torch.arange(8, device=codes.device)
    fifth = ((codes >> 4).unflatten(-1, (4, 8)).long() << places).sum(-1).to(torch.uint8)
    return torch.cat((halves(scale), fifth, nibbles(codes & 15)), 1)


def decode_q5_0(data: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    import torch

    places = torch.arange(8, device=data.device)
    fifth = ((data[:, 2:6, None].long() >> places) & 1).flatten(1).to(torch.uint8)
    scale = floats(data[:, :2])
    return from_nibbles(data[:, 6:]) | (fifth << 4), scale, scale.new_zeros(scale.shape), None


def encode_q8_0(codes: Tensor, scale: Tensor, zero: Tensor, outer: Tensor | None) -> Tensor:
    """A code is its INT8 value plus 128, so that its highest bit is the other one."""
    import torch

    return torch.cat((halves(scale), codes ^ 128), 1)


def decode_q8_0(data: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    scale = floats(data[:, :2])
    return data[:, 2:] ^ 128, scale, scale.new_zeros(scale.shape), None


def encode_q4_k(codes: Tensor, scale: Tensor, zero: Tensor, outer: Tensor | None) -> Tensor:
    """Eight 6-bit scales and minima lie in 12 bytes: the last four's high bits fill up the first's.

    outer: the float16 scale of the scales and that of the minima, [blocks, groups, 2].
    """
    import torch

    assert outer is not None
    of_scale, of_least = outer[..., 0], outer[..., 1]
    scales = (scale / of_scale).round().to(torch.uint8)
    least = (-zero / of_least).round().to(torch.uint8)
    packed = torch.cat(
        (
            scales[:, :4] | (scales[:, 4:] >> 4 << 6),
            least[:, :4] | (least[:, 4:] >> 4 << 6),
            (scales[:, 4:] & 15) | (least[:, 4:] << 4),
        ),
        1,
    )
    weights = nibbles(codes.unflatten(-1, (4, 64))).flatten(1)
    return torch.cat((halves(outer[:, 0]), packed, weights), 1)


def decode_q4_k(data: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    import torch

    outer = floats(data[:, :4])
    first, second, third = data[:, 4:8], data[:, 8:12], data[:, 12:16]
    scales = torch.cat((first & 63, (third & 15) | (first >> 6 << 4)), 1)
    least = torch.cat((second & 63, (third >> 4) | (second >> 6 << 4)), 1)
    codes = from_nibbles(data[:, 16:].unflatten(-1, (4, 32))).flatten(1)
    shared = outer[:, None].expand(-1, 8, -1)
    return codes, outer[:, :1] * scales, -(outer[:, 1:] * least), shared


def encode_q6_k(codes: Tensor, scale: Tensor, zero: Tensor, outer: Tensor | None) -> Tensor:
    """Low nibbles, then high pairs of bits, of each half of a block in four runs of 32 weights.

    outer: the float16 scale of the 16 INT8 scales, [blocks, groups, 1].
    """
    import torch

    assert outer is not None
    runs = codes.unflatten(-1, (2, 4, 32))
    low, high = runs & 15, runs >> 4
    low = torch.cat((nibbles(low[:, :, 0::2].flatten(2)), nibbles(low[:, :, 1::2].flatten(2))), 2)
    pairs = high[:, :, 0] | (high[:, :, 1] << 2) | (high[:, :, 2] << 4) | (high[:, :, 3] << 6)
    scales = (scale / outer[..., 0]).round().to(torch.int8).view(torch.uint8)
    return torch.cat((low.flatten(1), pairs.flatten(1), scales, halves(outer[:, 0])), 1)


def decode_q6_k(data: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    import torch

    low, pairs = data[:, :128].unflatten(-1, (2, 2, 32)), data[:, 128:192].unflatten(-1, (2, 32))
    runs = torch.cat((low & 15, low >> 4), 2)  # of 32 weights: 0, 1, 2, 3
    high = torch.stack([(pairs >> shift) & 3 for shift in (0, 2, 4, 6)], 2)
    outer = floats(data[:, 208:])
    scale = outer * data[:, 192:208].contiguous().view(torch.int8)
    codes = (runs | (high << 4)).flatten(1)
    return codes, scale, scale.new_zeros(scale.shape), outer[:, None].expand(-1, 16, -1)


LAYOUTS = {
    "q4_0": Layout(BLOCK, 18, BLOCK, encode_q4_0, decode_q4_0),
    "q4_1": Layout(BLOCK, 20, BLOCK, encode_q4_1, decode_q4_1),
    "q5_0": Layout(BLOCK, 22, BLOCK, encode_q5_0, decode_q5_0),
    "q8_0": Layout(BLOCK, 34, BLOCK, encode_q8_0, decode_q8_0),
    "q4_k": Layout(SUPER_BLOCK, 144, BLOCK, encode_q4_k, decode_q4_k),
    "q6_k": Layout(SUPER_BLOCK, 210, 16, encode_q6_k, decode_q6_k),
}
