"""The W4A8 product in integers, as QServe's kernel computes it, to hold other products against.

Source: QServe (Lin et al., 2024, arXiv:2405.04532, section 5.2) and OmniServe at 02b2925,
kernels/csrc/qgemm/w4a8_per_group/gemm_cuda.cu. Here in plain PyTorch: exact, and slow.
"""

import torch
from torch import Tensor

from radquant.packed.packing import unpack_columns
from radquant.packed.progressive_grid import int8_weights
from radquant.packed.progressive_linear import MOST_INPUTS, ProgressiveLinear


def stored_levels(layer: ProgressiveLinear) -> Tensor:
    """(q − zero)·s_group, [out, in] int8."""
    integers = unpack_columns(layer.qweight, layer.bits).to(torch.uint8)
    zeros = unpack_columns(layer.qzeros, layer.bits).to(torch.uint8)
    return int8_weights(integers.T, zeros.T, layer.scales.T)


def quantize_tokens(x: Tensor) -> tuple[Tensor, Tensor]:
    """INT8 activations with one symmetric scale per token: [..., in] int8, [...] float16.

    It rounds as QServe's quant_kernel: multiplied by 127 / max|x| in float32 and rounded to even.
    The scale that the product gets is max|x| / 127, rounded to float16.
    """
    x = x.float()
    largest = x.abs().amax(-1).clamp(min=1e-12)
    integers = (x * (127 / largest)[..., None]).round().clamp(-128, 127)
    return integers.to(torch.int8), (largest / 127).half()


def integer_product(x: Tensor, weight: Tensor) -> Tensor:
    """x·Wᵀ in INT32, exactly: [..., in] and [out, in] int8 -> [..., out] int32.

    In float64, where sums below 2^53 are exact in any order, and which multiplies faster on a CPU
    than int32. Raises ValueError for more inputs than an INT32 sum bears.
    """
    if x.dtype != torch.int8 or weight.dtype != torch.int8:
        raise ValueError(f"both must be int8, not {x.dtype} and {weight.dtype}")
    if x.shape[-1] >= MOST_INPUTS:
        raise ValueError(f"{x.shape[-1]} inputs can overflow INT32")
    return (x.double() @ weight.double().T).to(torch.int32)


def int8_forward(
    layer: ProgressiveLinear, x: Tensor, scales: Tensor, dtype: torch.dtype = torch.float16
) -> Tensor:
    """The layer's output for INT8 activations, [..., in] int8 with scales [...] -> [..., out].

    The epilogue is in float32 and in the kernel's order: sum·(s_channel·s_token), then rounded to
    `dtype`, and only then the bias.
    """
    if layer.order is not None:
        raise ValueError("progressive weights are not stored in order of activation")
    sums = integer_product(x, stored_levels(layer)).float()
    y = (sums * (layer.channel_scales.float() * scales.float()[..., None])).to(dtype)
    return y if layer.bias is None else y + layer.bias.to(dtype)
