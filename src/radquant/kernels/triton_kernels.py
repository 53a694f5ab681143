# mypy: allow-untyped-defs
# (Triton reads the annotations of a kernel's arguments itself.)
"""Triton kernels: products with packed 4-bit weights, and activations rounded to INT8 by token.

Products are computed as W·Xᵀ, [out, tokens]: unpacked weights are the operand that tensor cores can
take from registers, so that they need not go back to shared memory, and a few tokens fill the small
side of the instruction. Nothing is rounded to the activations' dtype before the end: the tensor
cores get q − zero, which is whole, and scales multiply the FP32 (or INT32) sum of a group.

Every sum has one order, whatever the tile: input channels in blocks of 2·HALF from the first to the
last; with SPLITS > 1 each part of the blocks by itself, then the parts in order. No atomics.
"""

import triton
import triton.language as tl

ROUNDER = tl.constexpr(12582912.0)  # 1.5·2^23: added and taken off, it rounds to even below 2^22
TINY = tl.constexpr(1e-12)  # as radquant.quantization.activations has it


# Four fields of 8 bits at once, in one register; no byte borrows from the next. $1 holds four bytes
# of `tiles`, the arguments after it are of one output, once for each of the four.
# With the top bit set, a field is at least as large as its zero ($2, in every byte).
MINUS_ZERO = """
    or.b32 t, t, 0x80808080;
    sub.u32 t, t, $2;
    xor.b32 $0, t, 0x80808080;
}"""
# field·scale ($2) is below 256. $6: the low 7 bits of zero·scale, in every byte; $10: the inverse
# of its top bit, there.
SCALED_MINUS_ZERO = """
    mul.lo.u32 t, t, $2;
    xor.b32 u, t, $10;
    and.b32 u, u, 0x80808080;
    or.b32 t, t, 0x80808080;
    sub.u32 t, t, $6;
    xor.b32 $0, t, u;
}"""
LOW = """{
    .reg .b32 t, u;
    and.b32 t, $1, 0x0f0f0f0f;"""
HIGH = """{
    .reg .b32 t, u;
    shr.u32 t, $1, 4;
    and.b32 t, t, 0x0f0f0f0f;"""
LOW_MINUS_ZERO = tl.constexpr(LOW + MINUS_ZERO)
HIGH_MINUS_ZERO = tl.constexpr(HIGH + MINUS_ZERO)
LOW_SCALED = tl.constexpr(LOW + SCALED_MINUS_ZERO)
HIGH_SCALED = tl.constexpr(HIGH + SCALED_MINUS_ZERO)


@triton.jit
def whole_int8(q, word, HIGH_FIELD: tl.constexpr, SCALED: tl.constexpr):
    """What `whole` gives for int8, from bytes of `tiles`: a quarter of the instructions."""
    zeros = (word >> 16)[:, None] * 0x01010101
    if SCALED:
        scale = (word & 0xFF)[:, None]
        zeros = zeros * scale
        return tl.inline_asm_elementwise(
            HIGH_SCALED if HIGH_FIELD else LOW_SCALED,
            "=r,r" + ",r" * 12,
            [q, scale, zeros & 0x7F7F7F7F, (~zeros) & -0x7F7F7F80],
            dtype=tl.int8,
            is_pure=True,
            pack=4,
        )
    else:
        return tl.inline_asm_elementwise(
            HIGH_MINUS_ZERO if HIGH_FIELD else LOW_MINUS_ZERO,
            "=r,r" + ",r" * 4,
            [q, zeros],
            dtype=tl.int8,
            is_pure=True,
            pack=4,
        )


@triton.jit
def whole(field, word, dtype: tl.constexpr, SCALED: tl.constexpr):
    """Fields [BN, HALF] uint8 below 16 -> field − zero, or (field − zero)·scale, whole, in dtype.

    word: [BN], of `scale_zero`. A conversion to floating point is slow on a GPU: with the exponent
    of 2^10 (2^7 in bfloat16) put before it a field is that power of two more than itself.
    """
    zero = word >> 16
    if dtype == tl.int8:
        w = field.to(tl.int8) - zero.to(tl.int8)[:, None]
        if SCALED:
            w = w * word.to(tl.int8)[:, None]
    elif dtype == tl.float16:
        w = (field.to(tl.int16) | 0x6400).to(tl.float16, bitcast=True)
        w -= (zero.to(tl.int16) | 0x6400).to(tl.float16, bitcast=True)[:, None]
    else:
        w = (field.to(tl.int16) | 0x4300).to(tl.bfloat16, bitcast=True)
        w -= (zero.to(tl.int16) | 0x4300).to(tl.bfloat16, bitcast=True)[:, None]
    return w


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
        if ASSEMBLY and INT8:
            low = whole_int8(q, word, False, WHOLE)
            high = whole_int8(q, next_word, True, WHOLE)
        else:
            low = whole(q & 15, word, dtype, WHOLE)
            high = whole(q >> 4, next_word, dtype, WHOLE)
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
