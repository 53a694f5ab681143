"""Progressive weights in memory: QServe (Lin et al., 2024, arXiv:2405.04532, section 5.2)."""

import torch
from torch import Tensor

from radquant.packed.linear import PackedLinear

MOST_INPUTS = 2**17  # so many products of two INT8 stay below 2^31


class ProgressiveLinear(PackedLinear):
    """A packed linear layer whose group scales are whole multiples of its channels' INT8 scales.

    `scales` is [groups, out] uint8 here. `forward` multiplies in floating point by the weights that
    the integers stand for, which are exact.
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
