"""Linear layers through the Triton kernels: which tile runs, and the PyTorch operators.

Which parts of the input channels are summed by themselves (`splits`) follows from the shape alone.
The tile, which is timed on the device, changes no sum's order. So results do not depend on what was
timed, and those of up to 64 tokens not on how many others there are.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from triton.testing import do_bench

from radquant.errors import UserError
from radquant.kernels import triton_kernels as kernels
from radquant.kernels.triton_layout import KMajorWeight

ENOUGH_PROGRAMS = 256  # fill the 132 multiprocessors of an H100 about twice
TOKENS_TOGETHER = 64  # up to so many, each token's result has the same bits
FLOATS = (torch.float16, torch.bfloat16)


class Tile(NamedTuple):
    """What one program computes, and how it is compiled."""

    outputs: int
    tokens: int
    warps: int
    stages: int


# By the largest number of tokens. The first that fits runs where nothing can be timed.
TILES = {
    16: (Tile(128, 16, 4, 4), Tile(64, 16, 4, 5), Tile(64, 16, 4, 3), Tile(128, 16, 8, 4)),
    32: (Tile(128, 32, 4, 4), Tile(64, 32, 4, 4), Tile(128, 32, 8, 3)),
    64: (Tile(128, 64, 8, 3), Tile(64, 64, 4, 4), Tile(64, 64, 4, 3)),
    128: (Tile(128, 128, 8, 3), Tile(128, 128, 8, 4), Tile(128, 64, 8, 3), Tile(64, 128, 4, 3)),
}
# Without a scale to each group there is one sum to hold instead of two.
WHOLE_TILES = (Tile(128, 256, 8, 3), Tile(256, 128, 8, 3))


def tiles(tokens: int, whole: bool) -> tuple[Tile, ...]:
    """Those worth trying for so many tokens. whole: INT8 times progressive weights."""
    size = next((size for size in TILES if tokens <= size), max(TILES))
    return TILES[size] + (WHOLE_TILES if whole and tokens > size else ())


def shared_bytes(tile: Tile, half: int, x_bytes: int) -> int:
    """The most that a tile needs of a multiprocessor's shared memory.

    That is for the loads in flight, or for the result on its way from the layout of the tensor
    cores to that of memory.
    """
    words = 4 * 2 * tile.outputs
    stage = tile.outputs * half + 2 * tile.tokens * half * x_bytes + words
    return max(tile.stages * stage, 4 * tile.outputs * tile.tokens)


def splits(tokens: int, outputs: int, blocks: int) -> int:
    """In how many parts the input channels are summed: a power of two, from the shape alone."""
    programs = triton.cdiv(outputs, 128) * triton.cdiv(tokens, TOKENS_TOGETHER)
    wanted = max(1, min(ENOUGH_PROGRAMS // programs, blocks // 2))
    return 1 << (wanted.bit_length() - 1)


def interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels on the CPU (TRITON_INTERPRET=1)."""
    return bool(triton.knobs.runtime.interpret)


def require_device(x: Tensor) -> None:
    if not x.is_cuda and not interpreted():
        raise UserError(f"the Triton kernels need a CUDA device, not {x.device}")


def on_device(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Triton launches on the current device, which may be another than the tensors'."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


def product(
    x: Tensor,  # [tokens, in], contiguous
    x_scales: Tensor | None,  # [tokens] float32 of int8 activations
    packed: Tensor,
    scale_zero: Tensor,
    channel_scales: Tensor | None,
    bias: Tensor | None,
    group_size: int,
    dtype: torch.dtype,
    tile: Tile | None = None,
) -> Tensor:
    """x·W of float16, bfloat16 or int8 x in `dtype`, [tokens, out]; `tile` None: the fastest."""
    require_device(x)
    tokens, inputs = x.shape
    blocks, outputs, half = packed.shape
    out = x.new_empty(tokens, outputs, dtype=dtype)
    if not tokens:
        return out
    parts = splits(tokens, outputs, blocks)
    whole = channel_scales is not None and x_scales is not None
    sums = torch.int32 if whole else torch.float32
    first = out if parts == 1 else x.new_empty(parts, tokens, outputs, dtype=sums)

    def launch(tile: Tile) -> None:
        grid = (triton.cdiv(outputs, tile.outputs), triton.cdiv(tokens, tile.tokens), parts)
        kernels.product[grid](
            x,
            packed,
            scale_zero,
            x_scales,
            channel_scales,
            bias,
            first,
            tokens,
            outputs,
            inputs,
            blocks,
            scale_zero.shape[0] - 1,
            GROUP=group_size,
            HALF=half,
            SPLITS=parts,
            PROGRESSIVE=channel_scales is not None,
            BIAS=bias is not None,
            EVEN=blocks * 2 * half == inputs,
            ASSEMBLY=not interpreted(),
            BN=tile.outputs,
            BM=tile.tokens,
            num_warps=tile.warps,
            num_stages=tile.stages,
        )

    with on_device(x):
        if tile is None:
            bucket = min(triton.next_power_of_2(tokens), 4096)
            key = (x.device, x.dtype, bucket, packed.shape, group_size, sums)
            tile = fastest(key, tiles(tokens, whole), half, x, launch)
        launch(tile)
        if parts > 1:
            grid = (triton.cdiv(outputs, 256), tokens)
            kernels.add_splits[grid](
                first,
                x_scales,
                channel_scales,
                bias,
                out,
                tokens,
                outputs,
                SPLITS=parts,
                INT8=x_scales is not None,
                PROGRESSIVE=channel_scales is not None,
                BIAS=bias is not None,
                BN=256,
            )
    return out


measured: dict[tuple[Any, ...], Tile] = {}


def fastest(
    key: tuple[Any, ...],
    candidates: tuple[Tile, ...],
    half: int,
    x: Tensor,
    launch: Callable[[Tile], None],
) -> Tile:
    """The tile that this device was fastest with for `key`, timed when it is asked for first."""
    if interpreted():
        return candidates[0]
    if key not in measured:
        limit = shared_limit(x.device)
        fitting = [t for t in candidates if shared_bytes(t, half, x.element_size()) <= limit]
        if not fitting:
            raise UserError(f"no tile of the Triton kernels fits {limit} bytes of shared memory")
        if torch.cuda.is_current_stream_capturing():
            return fitting[0]  # nothing can be timed while a CUDA graph is recorded
        measured[key] = min(fitting, key=lambda t: do_bench(lambda: launch(t), 5, 20))
    return measured[key]


@functools.cache
def shared_limit(device: torch.device) -> int:
    """Bytes of shared memory that one program can have."""
    properties = triton.runtime.driver.active.utils.get_device_properties(device.index)
    return int(properties["max_shared_mem"])


@torch.library.custom_op("radquant::w4a16", mutates_args=())
def w4a16(
    x: Tensor,
    tiles: Tensor,
    scale_zero: Tensor,
    channel_scales: Tensor | None,
    bias: Tensor | None,
    group_size: int,
) -> Tensor:
    """x [tokens, in] float16 or bfloat16 times 4-bit weights -> [tokens, out] in x's dtype."""
    return product(x, None, tiles, scale_zero, channel_scales, bias, group_size, x.dtype)


@w4a16.register_fake
def _(
    x: Tensor,
    tiles: Tensor,
    scale_zero: Tensor,
    channel_scales: Tensor | None,
    bias: Tensor | None,
    group_size: int,
) -> Tensor:
    return x.new_empty(x.shape[0], tiles.shape[1])


@torch.library.custom_op("radquant::w4a8", mutates_args=())
def w4a8(
    x: Tensor,
    x_scales: Tensor,
    tiles: Tensor,
    scale_zero: Tensor,
    channel_scales: Tensor | None,
    bias: Tensor | None,
    group_size: int,
    dtype: torch.dtype,
) -> Tensor:
    """x [tokens, in] int8 with scales [tokens] float32 times 4-bit weights -> [tokens, out]."""
    return product(x, x_scales, tiles, scale_zero, channel_scales, bias, group_size, dtype)


@w4a8.register_fake
def _(
    x: Tensor,
    x_scales: Tensor,
    tiles: Tensor,
    scale_zero: Tensor,
    channel_scales: Tensor | None,
    bias: Tensor | None,
    group_size: int,
    dtype: torch.dtype,
) -> Tensor:
    return x.new_empty(x.shape[0], tiles.shape[1], dtype=dtype)


@torch.library.custom_op("radquant::quantize_by_token", mutates_args=())
def quantize_by_token(
    x: Tensor, norm_weight: Tensor | None, eps: float, gemma: bool
) -> tuple[Tensor, Tensor]:
    """x [tokens, channels] -> int8 of the same shape and its scales [tokens] float32.

    norm_weight: of an RMSNorm that comes first; `gemma` says that one was taken off its weights.
    """
    require_device(x)
    tokens, channels = x.shape
    integers = torch.empty_like(x, dtype=torch.int8)
    scales = x.new_empty(tokens, dtype=torch.float32)
    if not tokens:
        return integers, scales
    norm = "none" if norm_weight is None else "gemma" if gemma else "llama"
    block = triton.next_power_of_2(channels)
    with on_device(x):
        kernels.quantize[(tokens,)](
            x,
            norm_weight,
            integers,
            scales,
            channels,
            eps,
            NORM=norm,
            BLOCK=block,
            num_warps=min(16, max(4, block // 1024)),
        )
    return integers, scales


@quantize_by_token.register_fake
def _(x: Tensor, norm_weight: Tensor | None, eps: float, gemma: bool) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x, dtype=torch.int8), x.new_empty(x.shape[0], dtype=torch.float32)


def in_rows(x: Tensor, weight: KMajorWeight) -> Tensor:
    """[..., in] -> [tokens, in], contiguous, channels in the order of the weight's rows."""
    if x.shape[-1] != weight.in_features:
        raise ValueError(f"{x.shape[-1]} inputs for a layer of {weight.in_features}")
    if weight.order is not None:
        x = x.index_select(-1, weight.order)
    return x.reshape(-1, weight.in_features).contiguous()


def linear_w4a16(x: Tensor, weight: KMajorWeight) -> Tensor:
    """[..., in] float16 or bfloat16 -> [..., out] in the same dtype."""
    if x.dtype not in FLOATS:
        raise UserError(f"the Triton kernels take float16 and bfloat16 activations, not {x.dtype}")
    y = w4a16(
        in_rows(x, weight),
        weight.tiles,
        weight.scale_zero,
        weight.channel_scales,
        weight.bias,
        weight.group_size,
    )
    return y.reshape(*x.shape[:-1], y.shape[1])


def linear_w4a8(x: Tensor, weight: KMajorWeight) -> Tensor:
    """[..., in] -> [..., out] in x's dtype, x rounded to INT8 with a scale for each token."""
    integers, scales = quantize_by_token(in_rows(x, weight), None, 0.0, False)
    y = linear_int8(integers, scales, weight, x.dtype)
    return y.reshape(*x.shape[:-1], y.shape[1])


def linear_int8(x: Tensor, scales: Tensor, weight: KMajorWeight, dtype: torch.dtype) -> Tensor:
    """x [tokens, in] int8, channels in the order of the weight's rows, with scales [tokens]
    float32 -> [tokens, out]."""
    return w4a8(
        x,
        scales,
        weight.tiles,
        weight.scale_zero,
        weight.channel_scales,
        weight.bias,
        weight.group_size,
        dtype,
    )
