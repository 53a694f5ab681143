"""The 4-bit floating-point number E2M1 of the OCP microscaling formats (MX v1.0, section 5.3.3).

A code has a sign in bit 3, two bits of exponent and one of mantissa. Its values are 0, ½, 1, 1½, 2,
3, 4, 6 and their negatives. There is no infinity and no NaN; what is larger than 6 becomes 6. Two
codes share a byte, the first channel's in its lower half, as in compressed-tensors.
"""

import torch
from torch import Tensor

LARGEST = 6.0
SIGN = 8  # bit 3 of a code
POSITIVE = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def nearest_codes(values: Tensor) -> Tensor:
    """The codes of the nearest numbers, ties to the even mantissa, as a new float tensor.

    The code of a magnitude a is round(2a) up to 2, round(a) + 2 up to 4 and round(a/2) + 4 from
    there on. Each rounds ties to even. Where one of the three is right, no other is smaller. A
    negative value that becomes zero keeps its sign, as in compressed-tensors.
    """
    size = values.abs()
    codes = torch.minimum((size * 2).round_(), size.round().add_(2))
    codes = torch.minimum(codes, size.mul_(0.5).round_().add_(4)).clamp_(max=7)
    return codes.add_((values < 0).to(codes.dtype), alpha=SIGN)


def code_values(codes: Tensor) -> Tensor:
    """The numbers that codes 0 … 15 stand for, float32; code 8 is −0."""
    table = torch.tensor([*POSITIVE, *(-each for each in POSITIVE)], device=codes.device)
    return table[codes.long()]


def pack_codes(codes: Tensor) -> Tensor:
    """[out, in] codes -> [out, in / 2] uint8; `in` is even."""
    pairs = codes.to(torch.uint8).unflatten(-1, (-1, 2))
    return pairs[..., 0] | (pairs[..., 1] << 4)


def unpack_codes(words: Tensor) -> Tensor:
    """[out, in / 2] uint8 -> [out, in] uint8 codes."""
    return torch.stack((words & 15, words >> 4), -1).flatten(-2)
