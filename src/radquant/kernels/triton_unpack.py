# mypy: allow-untyped-defs
# (Triton reads the annotations of a kernel's arguments itself.)
"""4-bit fields as whole numbers that tensor cores multiply, in Triton.

For INT8 there is also inline assembly, which the interpreter lacks. It takes a third of the
instructions that the compiler makes of the plain code.
"""

import triton
import triton.language as tl

# Four fields in one register of 32 bits. $0: the results, $1: the bytes. The other operands belong
# to an output and come four times, once for each byte. The four are of one output in the layout in
# which matrix instructions take INT8 operands.
LOW = """{
    .reg .b32 t, u;
    and.b32 t, $1, 0x0f0f0f0f;"""
HIGH = """{
    .reg .b32 t, u;
    shr.u32 t, $1, 4;
    and.b32 t, t, 0x0f0f0f0f;"""
# With the top bit set, a field is at least as large as its zero ($2, in every byte). So no byte
# borrows from the next.
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
LOW_MINUS_ZERO, HIGH_MINUS_ZERO = tl.constexpr(LOW + MINUS_ZERO), tl.constexpr(HIGH + MINUS_ZERO)
LOW_SCALED = tl.constexpr(LOW + SCALED_MINUS_ZERO)
HIGH_SCALED = tl.constexpr(HIGH + SCALED_MINUS_ZERO)


@triton.jit
def unpack(
    q,
    word,
    dtype: tl.constexpr,
    FROM_HIGH: tl.constexpr,
    SCALED: tl.constexpr,
    ASSEMBLY: tl.constexpr,
):
    """Bytes q [BN, HALF] -> field − zero of their low or high nibbles, whole, in dtype.

    word: [BN], of `scale_zero`. SCALED: (field − zero)·scale, for int8.
    """
    if ASSEMBLY and dtype == tl.int8:
        return unpack_by_assembly(q, word, FROM_HIGH, SCALED)
    else:
        return unpack_plainly(q >> 4 if FROM_HIGH else q & 15, word, dtype, SCALED)


@triton.jit
def unpack_plainly(field, word, dtype: tl.constexpr, SCALED: tl.constexpr):
    """A conversion to floating point is slow on a GPU.

    So the exponent of 2^10 (2^7 in bfloat16) is put before a field. The field is then that power of
    two more than itself, and so is its zero.
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
def unpack_by_assembly(q, word, FROM_HIGH: tl.constexpr, SCALED: tl.constexpr):
    zeros = (word >> 16)[:, None] * 0x01010101
    if SCALED:
        scale = (word & 0xFF)[:, None]
        zeros = zeros * scale
        return tl.inline_asm_elementwise(
            HIGH_SCALED if FROM_HIGH else LOW_SCALED,
            "=r,r" + ",r" * 12,
            [q, scale, zeros & 0x7F7F7F7F, (~zeros) & -0x7F7F7F80],
            dtype=tl.int8,
            is_pure=True,
            pack=4,
        )
    else:
        return tl.inline_asm_elementwise(
            HIGH_MINUS_ZERO if FROM_HIGH else LOW_MINUS_ZERO,
            "=r,r" + ",r" * 4,
            [q, zeros],
            dtype=tl.int8,
            is_pure=True,
            pack=4,
        )
