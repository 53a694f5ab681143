"""Progressive group quantization (QoQ, Lin et al., 2024, arXiv:2405.04532, section 4.1).

A weight is (q − zero)·s_group·s_channel with a uint4 q and zero. The group scale is a whole number,
and each output channel has one float16 scale. (q − zero)·s_group is then exactly an INT8 value. So
the inner product with INT8 activations runs in INT8, and s_channel enters once, after it.

The paper rounds twice: W to INT8 in the protective range [−119, 119], and that to UINT4. The
weights that can be stored are the same if W is rounded once to the grid of both levels. The result
is never farther from W than after two roundings. So a progressive grid is an ordinary one whose
scales are whole multiples of s_channel. Every method of this package rounds to it.
"""

import torch
from torch import Tensor

from radquant.errors import UserError

# A value in this range, rounded to a group's grid, moves by at most 8, half of the largest group
# scale. So it stays an INT8 (the paper's protective range).
PROTECTIVE = 119
LEVELS = 15  # steps between the smallest uint4 and the largest
LARGEST_GROUP_SCALE = 16  # 2·119 / 15, rounded
SHORTEST = 0.9  # share of a group's range that its whole-numbered scale must cover
SMALLEST_INT8, LARGEST_INT8 = -128, 127


def channel_scales(groups: Tensor) -> Tensor:
    """The INT8 scale of each row, [..., groups, group] float32 -> [...] float32.

    It is taken from the weights before any of them is clipped. It belongs to a whole row, so that
    the ranges of groups can then be searched one by one. Rounded to float16, the precision it is
    stored in.
    """
    return (groups.abs().amax((-2, -1)) / PROTECTIVE).clamp(min=1e-5).half().float()


def find_grid(groups: Tensor, channel: Tensor, keep: float = 1.0) -> tuple[Tensor, Tensor]:
    """Scale s_group·s_channel and zero of each group, [..., group] float32 -> two [...] float32.

    channel: the INT8 scale of each group's row, broadcast to [...]. keep: share of the range to
    cover. The product of scales has 16 bits at most, so float32 holds it exactly.

    The step of a group is rounded to a whole number, as in the paper. But it is rounded up where
    rounding down would cut off more than a tenth of the range. A step of 1.4 became 1 otherwise,
    which costs groups of small weights much.
    """
    low = groups.amin(-1).clamp(max=0) * keep / channel
    high = groups.amax(-1).clamp(min=0) * keep / channel
    step = (high - low) / LEVELS
    scale = step.round()
    scale = (scale + (scale < SHORTEST * step)).clamp(1, LARGEST_GROUP_SCALE)
    # GPTQ may call for any of a group's 16 values, so all of them must be INT8 values.
    least = LEVELS - (LARGEST_INT8 / scale).floor()
    most = (-SMALLEST_INT8 / scale).floor()
    zero = (-low / scale).round().clamp(0, LEVELS)
    return scale * channel, torch.minimum(torch.maximum(zero, least), most)


def group_scales(scale: Tensor, channel: Tensor) -> Tensor:
    """The whole numbers in the scales of `find_grid`, [out, groups] and [out] -> uint8."""
    return (scale / channel[:, None]).round().to(torch.uint8)


def int8_weights(integers: Tensor, zeros: Tensor, scales: Tensor) -> Tensor:
    """(q − zero)·s_group, [out, in] int8; zeros and scales are [out, groups] uint8.

    The order is that of QServe's kernel, four bytes to a register. q·s_group is at most 15·16, and
    so without a carry into the next byte. −zero·s_group is added as it is stored, and both are
    modulo 256. Raises UserError if a value is not an INT8, which that arithmetic would wrap around.
    """
    groups = integers.unflatten(-1, (scales.shape[-1], -1))
    exact = (groups.int() - zeros.int()[..., None]) * scales.int()[..., None]
    if exact.numel() and (exact.min() < SMALLEST_INT8 or exact.max() > LARGEST_INT8):
        raise UserError(
            f"(q − zero)·scale reaches {int(exact.min())} … {int(exact.max())}, which is no INT8; "
            "the scales or zeros are damaged: quantize again"
        )
    products = groups * scales[..., None] - zeros[..., None] * scales[..., None]
    return products.view(torch.int8).flatten(-2)
