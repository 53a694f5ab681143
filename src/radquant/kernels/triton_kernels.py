# mypy: allow-untyped-defs
# (Triton reads the annotations of a kernel's arguments itself.)
"""Triton kernels: products with packed 4-bit weights, and activations rounded to INT8 by token.

Products are computed as W·Xᵀ, [out, tokens]. Tensor cores can take unpacked weights from registers
as this operand, so that they need not go back to shared memory. A few tokens fill the small side of
the instruction. Nothing is rounded to the activations' dtype before the end. The tensor cores get q
− zero, which is whole, and scales multiply the FP32 (or INT32) sum of a group.

Every sum has one order, whatever the tile: input channels in blocks of 2·HALF from the first to the
last. With SPLITS > 1 each part of the blocks is summed by itself, then the parts in order. No
atomics.
"""

import triton
import triton.language as tl

from radquant.kernels.triton_unpack import unpack

ROUNDER = tl.constexpr(12582912.0)  # 1.5·2^23: added and taken off, it rounds to even below 2^22
TINY = tl.constexpr(1e-12)  # as radquant.runtime.activations has it


@triton.jit
def scale_of(word, PROGRESSIVE: tl.constexpr):
    """The scale in a word of `scale_zero`, float32; a whole number where it is progressive."""
    if PROGRESSIVE:
        return (word & 0xFFFF).to(tl.float32)
    else:
        return word.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)


@triton.jit
def scaled(
    total,
    tokens,
    rows,
    real_tokens,
    real_rows,
    token_scales_ptr,
    channel_scales_ptr,
    INT8: tl.constexpr,
    PROGRESSIVE: tl.constexpr,
):
    """A finished sum times the scales of its token and of its output channel, float32."""
    y = total.to(tl.float32)
    if PROGRESSIVE:
        factor = tl.load(channel_scales_ptr + rows, mask=real_rows, other=0)
        if INT8:
            factor = factor * tl.load(token_scales_ptr + tokens, mask=real_tokens, other=0)
        y = y * factor
    elif INT8:
        y = y * tl.load(token_scales_ptr + tokens, mask=real_tokens, other=0)
    return y


@triton.jit(do_not_specialize=["M"])
def product(
    x_ptr,  # [M, K] float16, bfloat16 or int8
    tiles_ptr,  # [blocks, N, HALF] uint8
    words_ptr,  # [groups, N] int32
    token_scales_ptr,  # [M] float32, read for int8
    channel_scales_ptr,  # [N] float32, read for PROGRESSIVE
    bias_ptr,  # [N], read for BIAS
    out_ptr,  # [M, N]; for SPLITS > 1 the parts, [SPLITS, M, N] in the sums' dtype
    M,
    N,
    K,
    blocks,  # of 2·HALF input channels
    last_group,
    GROUP: tl.constexpr,
    HALF: tl.constexpr,
    SPLITS: tl.constexpr,
    PROGRESSIVE: tl.constexpr,
    BIAS: tl.constexpr,
    EVEN: tl.constexpr,  # K = blocks·2·HALF
    ASSEMBLY: tl.constexpr,  # unpack by inline assembly, which the interpreter lacks
    BN: tl.constexpr,
    BM: tl.constexpr,
):
    dtype: tl.constexpr = x_ptr.dtype.element_ty
    INT8: tl.constexpr = dtype == tl.int8
    SUM: tl.constexpr = tl.int32 if INT8 else tl.float32
    WHOLE: tl.constexpr = INT8 and PROGRESSIVE  # integers up to the end
    ONE_GROUP: tl.constexpr = GROUP % (2 * HALF) == 0  # both halves of a block lie in one group
    rows = tl.program_id(0) * BN + tl.arange(0, BN)
    tokens = tl.program_id(1) * BM + tl.arange(0, BM)
    split = tl.program_id(2)
    inner = tl.arange(0, HALF)
    real_rows, real_tokens = rows < N, tokens < M
    share = tl.cdiv(blocks, SPLITS)
    first = split * share

    x_ptrs = x_ptr + tokens.to(tl.int64)[:, None] * K + inner[None, :]
    tile_ptrs = tiles_ptr + first.to(tl.int64) * N * HALF + rows[:, None] * HALF + inner[None, :]
    acc = tl.zeros((BN, BM), dtype=tl.int32 if WHOLE else tl.float32)
    for b in range(first, tl.minimum(first + share, blocks)):
        k = b * 2 * HALF
        mask_a, mask_b = real_tokens[:, None], real_tokens[:, None]
        if not EVEN:
            mask_a = mask_a & (k + inner < K)[None, :]
            mask_b = mask_b & (k + HALF + inner < K)[None, :]
        xa = tl.load(x_ptrs + k, mask=mask_a, other=0)
        xb = tl.load(x_ptrs + k + HALF, mask=mask_b, other=0)
        q = tl.load(tile_ptrs, mask=real_rows[:, None], other=0)
        tile_ptrs += N * HALF
        word = tl.load(words_ptr + (k // GROUP) * N + rows, mask=real_rows, other=0)
        if ONE_GROUP:
            next_word = word
        else:
            next_group = tl.minimum((k + HALF) // GROUP, last_group)
            next_word = tl.load(words_ptr + next_group * N + rows, mask=real_rows, other=0)
        low = unpack(q, word, dtype, False, WHOLE, ASSEMBLY)
        high = unpack(q, next_word, dtype, True, WHOLE, ASSEMBLY)
        if WHOLE:
            acc = tl.dot(low, tl.trans(xa), acc, out_dtype=SUM)
            acc = tl.dot(high, tl.trans(xb), acc, out_dtype=SUM)
        elif ONE_GROUP:
            part = tl.dot(low, tl.trans(xa), out_dtype=SUM)
            part = tl.dot(high, tl.trans(xb), part, out_dtype=SUM)
            acc += part.to(tl.float32) * scale_of(word, PROGRESSIVE)[:, None]
        else:
            part = tl.dot(low, tl.trans(xa), out_dtype=SUM)
            acc += part.to(tl.float32) * scale_of(word, PROGRESSIVE)[:, None]
            part = tl.dot(high, tl.trans(xb), out_dtype=SUM)
            acc += part.to(tl.float32) * scale_of(next_word, PROGRESSIVE)[:, None]

    out_ptrs = out_ptr + tokens.to(tl.int64)[None, :] * N + rows[:, None]
    mask = real_tokens[None, :] & real_rows[:, None]
    if SPLITS > 1:
        tl.store(out_ptrs + split.to(tl.int64) * M * N, acc, mask=mask)
    else:
        y = scaled(
            acc,
            tokens[None, :],
            rows[:, None],
            real_tokens[None, :],
            real_rows[:, None],
            token_scales_ptr,
            channel_scales_ptr,
            INT8,
            PROGRESSIVE,
        ).to(out_ptr.dtype.element_ty)
        if BIAS:
            bias = tl.load(bias_ptr + rows, mask=real_rows, other=0)[:, None]
            y = y + bias.to(out_ptr.dtype.element_ty)
        tl.store(out_ptrs, y, mask=mask)


@triton.jit(do_not_specialize=["M"])
def add_splits(
    parts_ptr,  # [SPLITS, M, N] float32 or int32
    token_scales_ptr,  # [M] float32, read for INT8
    channel_scales_ptr,  # [N] float32, read for PROGRESSIVE
    bias_ptr,  # [N], read for BIAS
    out_ptr,  # [M, N]
    M,
    N,
    SPLITS: tl.constexpr,
    INT8: tl.constexpr,
    PROGRESSIVE: tl.constexpr,
    BIAS: tl.constexpr,
    BN: tl.constexpr,
):
    """The parts' sum, first to last, with the end of `product`."""
    token = tl.program_id(1)
    rows = tl.program_id(0) * BN + tl.arange(0, BN)
    real = rows < N
    place = token.to(tl.int64) * N + rows
    size = (token * 0 + M).to(tl.int64) * N
    total = tl.load(parts_ptr + place, mask=real, other=0)
    for split in tl.static_range(1, SPLITS):
        total += tl.load(parts_ptr + split * size + place, mask=real, other=0)
    y = scaled(
        total,
        token + rows * 0,
        rows,
        real,
        real,
        token_scales_ptr,
        channel_scales_ptr,
        INT8,
        PROGRESSIVE,
    ).to(out_ptr.dtype.element_ty)
    if BIAS:
        y = y + tl.load(bias_ptr + rows, mask=real, other=0).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + place, y, mask=real)


@triton.jit
def quantize(
    x_ptr,  # [M, K]
    weight_ptr,  # [K], the norm's, read for NORM
    out_ptr,  # [M, K] int8
    scales_ptr,  # [M] float32
    K,
    eps,
    NORM: tl.constexpr,  # "none", "llama" or "gemma"
    BLOCK: tl.constexpr,  # at least K
):
    """One token's values as INT8 with the scale max|x| / 127, after its RMSNorm if there is one.

    A norm's output is rounded to x's dtype first, as the module would return it. A token with NaN
    gets the scale NaN: a conversion to int8 would hide it.
    """
    token = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    real = columns < K
    x = tl.load(x_ptr + token * K + columns, mask=real, other=0)
    dtype: tl.constexpr = x_ptr.dtype.element_ty
    x = x.to(tl.float32)
    if NORM != "none":
        weight = tl.load(weight_ptr + columns, mask=real, other=0).to(tl.float32)
        x = x * tl.rsqrt(tl.sum(x * x, 0) / K + eps)
        if NORM == "gemma":  # its weights are stored less one
            x = (x * (1.0 + weight)).to(dtype).to(tl.float32)
        else:
            x = (x.to(dtype).to(tl.float32) * weight).to(dtype).to(tl.float32)
    largest = tl.max(tl.abs(x), 0)
    scale = tl.div_rn(tl.maximum(largest, TINY), 127.0)
    levels = (tl.div_rn(x, tl.zeros_like(x) + scale) + ROUNDER) - ROUNDER
    broken = tl.max((x != x).to(tl.int32), 0) > 0
    tl.store(out_ptr + token * K + columns, levels.to(tl.int8), mask=real)
    tl.store(scales_ptr + token, tl.where(broken, float("nan"), scale))
