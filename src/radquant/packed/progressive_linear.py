"""Progressive weights in memory, and the W4A8 product in integers, as QServe's kernel computes it.

Source: QServe (Lin et al., 2024, arXiv:2405.04532, section 5.2) and OmniServe at 02b2925,
kernels/csrc/qgemm/w4a8_per_group/gemm_cuda.cu. Here in plain PyTorch: exact, and slow.
"""

import torch
from torch import Tensor

from radquant.packed.linear import PackedLinear
from radquant.packed.packing import unpack_columns
from radquant.packed.progressive_grid import int8_weights

MOST_INPUTS = 2**17  # so many products of two INT8 stay below 2^31


class ProgressiveLinear(PackedLinear):
    """A packed linear layer whose group scales are whole multiples of its channels' INT8 scales.

    `scales` is [groups, out] uint8 here. `forward` multiplies in floating point by the weights that
    the integers stand for, which are exact; `int8_forward` computes in integers.
    """

    channel_scales: Tensor  # [out] float16

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bits: int,
        group_size: int,
        bias: bool = False,
        ordered: bool = False,
    ) -> None:
        super().__init__(in_features, out_features, bits, group_size, bias, ordered)
        self.scales = self.scales.to(torch.uint8)
        self.register_buffer("channel_scales", torch.zeros(out_features, dtype=torch.float16))

    def group_scales(self) -> Tensor:
        return self.scales.float() * self.channel_scales.float()

    def int8_weights(self) -> Tensor:
        """(q − zero)·s_group, [out, in] int8."""
        integers = unpack_columns(self.qweight, self.bits).to(torch.uint8)
        zeros = unpack_columns(self.qzeros, self.bits).to(torch.uint8)
        return int8_weights(integers.T, zeros.T, self.scales.T)


def quantize_tokens(x: Tensor) -> tuple[Tensor, Tensor]:
    """INT8 activations with one symmetric scale per token: [..., in] int8, [...] float16.

    As QServe's quant_kernel: multiplied by 127 / max|x| in float32 and rounded to even, while the
    scale that the product gets is max|x| / 127, rounded to float16.
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
    sums = integer_product(x, layer.int8_weights()).float()
    y = (sums * (layer.channel_scales.float() * scales.float()[..., None])).to(dtype)
    return y if layer.bias is None else y + layer.bias.to(dtype)
