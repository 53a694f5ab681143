"""Quantized linear layers in plain PyTorch: every other kernel is held against these."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from radquant.packed.packing import unpack_columns


class QuantizedLinear(nn.Module):
    """A linear layer with quantized weights, however they lie in memory."""

    in_features: int
    out_features: int
    bias: Tensor | None  # [out]
    # The scale and zero of a static range that is stored beside the weights, [1] float32. They are
    # None until a checkpoint has them.
    input_scale: Tensor | None = None
    input_zero: Tensor | None = None
    keeps_input: bool = False  # whatever is said of the rounding of other layers' inputs

    def keep_input_scale(self, stored: Mapping[str, Tensor]) -> None:
        """Take over the static scale of the input, and its zero, from a stored layer's tensors.

        Integers have both. FP8 has its scale, and NVFP4 its global scale. Any may be missing.
        """
        for name in ("input_scale", "input_global_scale", "activation_scale"):
            if name in stored:
                self.input_scale = stored[name].float().reshape(1)
        if "input_zero_point" in stored:
            self.input_zero = stored["input_zero_point"].float().reshape(1)

    def dequantize(self) -> Tensor:
        """The weights, [in, out] float32."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:  # [..., in] -> [..., out], in x's dtype
        raise NotImplementedError


class ValueLinear(QuantizedLinear):
    """A linear layer that holds the values that its stored codes stand for.

    For formats that have no kernel here: what is computed is right, and neither its memory nor its
    speed says anything of the format. In float32 the values are exact. In 16 bits they are rounded
    once, as each product would round them again.
    """

    weight: Tensor  # [out, in] in the dtype that it was given in: the model's

    def __init__(self, weight: Tensor, bias: bool = False) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.register_buffer("weight", weight.contiguous())
        self.register_buffer("bias", torch.zeros(self.out_features) if bias else None)

    def dequantize(self) -> Tensor:
        return self.weight.T.float()

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return nn.functional.linear(x, self.weight.to(x.dtype), bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}"


class PackedLinear(QuantizedLinear):
    """A linear layer whose weights stay packed in memory, in AutoAWQ's GEMM format.

    Integers of 2 and 3 bits sit in 4-bit fields. Groups may not be runs of neighbouring input
    channels (GPTQ with desc_act). The rows are then stored group by group, and `order` says which
    input channel each row belongs to. `forward` unpacks the weights, multiplies and forgets them:
    exact, and slow.
    """

    qweight: Tensor  # [in, out / (32 / bits)] int32
    qzeros: Tensor  # [groups, out / (32 / bits)] int32
    scales: Tensor  # [groups, out], in the dtype stored: float16 if this program wrote them
    order: Tensor | None  # [in] int32: the input channel of each row; None: they are in order
    bias: Tensor | None  # [out]

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bits: int,
        group_size: int,
        bias: bool = False,
        ordered: bool = False,
    ) -> None:
        """bits: of a field, 4 or 8. group_size -1: one group. ordered: there is an `order`."""
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.bits, self.group_size = bits, in_features if group_size == -1 else group_size
        words, groups = out_features * bits // 32, in_features // self.group_size
        self.register_buffer("qweight", torch.zeros(in_features, words, dtype=torch.int32))
        self.register_buffer("qzeros", torch.zeros(groups, words, dtype=torch.int32))
        self.register_buffer("scales", torch.zeros(groups, out_features, dtype=torch.float16))
        order = torch.arange(in_features, dtype=torch.int32) if ordered else None
        self.register_buffer("order", order)
        self.register_buffer("bias", torch.zeros(out_features) if bias else None)

    def group_scales(self) -> Tensor:
        """The scale of every group's weights, [groups, out] float32."""
        return self.scales.float()

    def rows(self) -> Tensor:
        """The weights that the packed integers stand for, [in, out] float32, rows as stored."""
        integers = unpack_columns(self.qweight, self.bits).unflatten(0, (-1, self.group_size))
        zeros = unpack_columns(self.qzeros, self.bits).float()
        weight = integers.float().sub_(zeros[:, None]).mul_(self.group_scales()[:, None])
        return weight.flatten(0, 1)

    def dequantize(self) -> Tensor:
        """The same weights with rows in the order of the input channels, [in, out] float32."""
        rows = self.rows()
        return rows if self.order is None else rows[self.order.argsort()]

    def forward(self, x: Tensor) -> Tensor:  # [..., in] -> [..., out], in x's dtype
        if self.order is not None:
            x = x.index_select(-1, self.order)
        y = x @ self.rows().to(x.dtype)
        return y if self.bias is None else y + self.bias.to(x.dtype)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bits={self.bits}, "
            f"group_size={self.group_size}, bias={self.bias is not None}, "
            f"ordered={self.order is not None}"
        )
