"""MXFP4 (OCP microscaling formats v1.0): E2M1 in blocks of 32 with a power of two for a scale.

The scale is stored as E8M0, a byte e for 2^(e − 127). The specification puts the largest magnitude
of a block between 4 and 8 times the scale (section 6.3: the floor of its logarithm, less 2).
Magnitudes above 6 times the scale are then lost. Here the next larger scale is tried, too, and the
better of both taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from radquant.packed.types.kind import NumberType
    from radquant.settings.recipe import Recipe

NAME = "mxfp4"
BITS: int | None = 4
GROUP_SIZE: int | None = 32
ZERO_POINT: bool | None = False
BIAS = 127
LARGEST_EXPONENT = 2  # of an E2M1 number: floor(log2(6))
# Exponents of scales, such that neither a half nor six times them leaves float32's normal numbers.
LEAST, MOST = -120, 124


def problem(recipe: Recipe) -> str | None:
    return None


def outer(groups: Tensor, recipe: Recipe) -> Tensor | None:
    return None


def find_grid(
    groups: Tensor, recipe: Recipe, keep: float = 1.0, outer: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The scale of the specification, or twice that if it leaves the smaller squared error.

    With less than the whole range kept, it is the specification's alone. Zeros are 0.
    """
    import torch

    # frexp's mantissa is in [½, 1), so that the floor of the logarithm is its exponent less 1.
    exponent = torch.frexp(groups.abs().amax(-1) * keep).exponent - 1 - LARGEST_EXPONENT
    scale = power_of_two(exponent)
    zero = torch.zeros_like(scale)
    if keep == 1:
        scale = better_scale(groups, scale, power_of_two(exponent + 1))
    return scale, zero


def better_scale(groups: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Of two scales for each block the one with the smaller squared error; the first of equals.

    groups: [..., group] float32; one, other: [...].
    """
    import torch

    from radquant.packed.float4 import code_values, nearest_codes

    def error(scale: Tensor) -> Tensor:  # in steps of `one`, whose square no float exceeds
        scale = scale[..., None]
        rounded = code_values(nearest_codes(groups / scale)).mul_(scale)
        return rounded.sub_(groups).div_(one[..., None]).square_().sum(-1)

    return torch.where(error(other) < error(one), other, one)


def power_of_two(exponent: Tensor) -> Tensor:
    """2^exponent, exactly, for integers; held between 2^LEAST and 2^MOST."""
    import torch

    bits = (exponent.clamp(LEAST, MOST).to(torch.int32) + BIAS) << 23  # a float32's exponent
    return bits.view(torch.float32)


def stored_scales(scale: Tensor) -> Tensor:
    """The E8M0 bytes of scales that are powers of two, uint8."""
    import torch

    return (torch.frexp(scale).exponent - 1 + BIAS).to(torch.uint8)


def scales_of(stored: Tensor) -> Tensor:
    """The scales that E8M0 bytes stand for, float32: 2^(e − 127); 255 is NaN."""
    import torch

    exponent = stored.to(torch.int32)
    bits = torch.where(exponent == 0, 1 << 22, exponent << 23)  # 2^−127 is no normal number
    return torch.where(exponent == 255, torch.nan, bits.to(torch.int32).view(torch.float32))


def nearest(weight: Tensor, scale: Tensor, zero: Tensor, recipe: Recipe) -> Tensor:
    from radquant.packed.float4 import nearest_codes

    return nearest_codes(weight / scale)


def values(codes: Tensor, scale: Tensor, zero: Tensor, recipe: Recipe | None = None) -> Tensor:
    from radquant.packed.float4 import code_values

    return code_values(codes).mul_(scale)


def narrowed(scale: Tensor, zero: Tensor, divisor: Tensor) -> tuple[Tensor, Tensor]:
    return scale / divisor, zero


if TYPE_CHECKING:
    from radquant.packed.types import mxfp4

    _: NumberType = mxfp4
