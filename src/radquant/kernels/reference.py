"""The packed linear layer in plain PyTorch: every other kernel is held against this one."""

import torch
from torch import Tensor, nn

from radquant.quantization.packing import unpack_columns


class PackedLinear(nn.Module):
    """A linear layer whose weights stay packed in memory, in AutoAWQ's GEMM format.

    `forward` unpacks the weights, multiplies and forgets them: exact, and slow.
    """

    qweight: Tensor  # [in, out / (32 / bits)] int32
    qzeros: Tensor  # [in / group_size, out / (32 / bits)] int32
    scales: Tensor  # [in / group_size, out] float16
    bias: Tensor | None  # [out]

    def __init__(
        self, in_features: int, out_features: int, bits: int, group_size: int, bias: bool = False
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.bits, self.group_size = bits, group_size
        words, groups = out_features * bits // 32, in_features // group_size
        self.register_buffer("qweight", torch.zeros(in_features, words, dtype=torch.int32))
        self.register_buffer("qzeros", torch.zeros(groups, words, dtype=torch.int32))
        self.register_buffer("scales", torch.zeros(groups, out_features, dtype=torch.float16))
        self.register_buffer("bias", torch.zeros(out_features) if bias else None)

    def dequantize(self) -> Tensor:
        """The weights that the packed integers stand for, [in, out] float32."""
        integers = unpack_columns(self.qweight, self.bits).unflatten(0, (-1, self.group_size))
        zeros = unpack_columns(self.qzeros, self.bits).float()
        weight = integers.float().sub_(zeros[:, None]).mul_(self.scales.float()[:, None])
        return weight.flatten(0, 1)

    def forward(self, x: Tensor) -> Tensor:  # [..., in] -> [..., out], in x's dtype
        y = x @ self.dequantize().to(x.dtype)
        return y if self.bias is None else y + self.bias.to(x.dtype)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bits={self.bits}, group_size={self.group_size}, bias={self.bias is not None}"
        )
