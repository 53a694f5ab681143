"""Activations, keys and values rounded to FP8, MXFP4 or NVFP4 at run time: simulated.

Scales are what compressed-tensors computes from the values (`calculate_qparams`), in float32:

    fp8     the largest magnitude / 448
    mxfp4   2^(floor(log2(largest)) − 2), one more from 1.75 times a power of two on
    nvfp4   E4M3 of g · largest / 6, by g, the global scale of the whole tensor
"""

import torch
from torch import Tensor

from radquant.packed import float4
from radquant.packed.types import fp8, mxfp4, nvfp4
from radquant.settings.precision import FP8, MXFP4

LEAST_SCALE = 1e-12  # of values that are all zero
ZERO_BLOCK = 0.125  # compressed-tensors' E4M3 scale of such a block
CARRY = 1 << 21  # a quarter of a float32's mantissa: what is above 1.75 gets the next exponent


def round_values(values: Tensor, kind: str, shared: Tensor | None = None) -> Tensor:
    """The nearest values of a type, [..., group] float32, one scale a group.

    shared: of NVFP4 the global scale, broadcast to [...]; of FP8 the scale itself, in place of the
    values' own.
    """
    largest = values.abs().amax(-1)
    if kind == FP8:
        scale = largest / fp8.LARGEST if shared is None else shared
        scale = scale.clamp(min=LEAST_SCALE)[..., None]
        return fp8.code_values(fp8.nearest_codes(values / scale)).mul_(scale)
    if kind == MXFP4:
        scale = power_of_two_scale(largest)
    else:
        assert shared is not None
        scale = block_scale(largest, shared)
    scale = scale[..., None]
    return float4.code_values(float4.nearest_codes(values / scale)).mul_(scale)


def power_of_two_scale(largest: Tensor) -> Tensor:
    bits = largest.contiguous().view(torch.int32) + CARRY
    exponent = (bits >> 23) - mxfp4.BIAS - mxfp4.LARGEST_EXPONENT
    return mxfp4.power_of_two(exponent)


def block_scale(largest: Tensor, global_scale: Tensor) -> Tensor:
    """s / g, float32."""
    stored = (largest / nvfp4.AT_SIX * global_scale).clamp(max=nvfp4.LARGEST_SCALE)
    stored = stored.to(torch.float8_e4m3fn).float()
    return torch.where(stored == 0, ZERO_BLOCK, stored) / global_scale


def static_scale(values: Tensor, kind: str) -> Tensor:
    """What is kept of the values of a calibration set, [1] float32.

    It is FP8's scale, so that the largest magnitude is 448, or NVFP4's global scale, so that it is
    6 · 448.
    """
    largest = values.abs().amax().float().reshape(1)
    if kind == FP8:
        return (largest / fp8.LARGEST).clamp(min=LEAST_SCALE)
    return largest_to_global(largest)


def largest_to_global(largest: Tensor) -> Tensor:
    """NVFP4's global scale for values of this largest magnitude; 1 for zeros."""
    scale = nvfp4.AT_SIX * nvfp4.LARGEST_SCALE / largest
    return torch.where(scale.isfinite(), scale, 1.0)
