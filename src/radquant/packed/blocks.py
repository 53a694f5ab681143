"""Weights whose scales belong to rectangles of them, as FP8 with blocks of 128 × 128 has them."""

import torch
from torch import Tensor

from radquant.errors import UserError


def scaled_blocks(values: Tensor, scales: Tensor, block: tuple[int, int]) -> Tensor:
    """Each value times its block's scale, [out, in] float32.

    values: [out, in] float32. scales: one for each block of block[0] outputs and block[1] inputs,
    of which the last of a side may be cut off. Raises UserError for a scale that is no number.
    """
    scales = scales.float()
    if not torch.isfinite(scales).all():
        raise UserError("one of its scales is not finite; the checkpoint is damaged")
    rows, columns = block
    by_row = scales.repeat_interleave(rows, 0)[: values.shape[0]]
    return values * by_row.repeat_interleave(columns, 1)[:, : values.shape[1]]
