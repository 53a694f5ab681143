"""Sums over large matrices, some rows at a time.

What is computed of so few weights stays in the processor's cache, and no matrix of the layer's size
is made for it. That is ten times as fast as one operation on the whole after another.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

WEIGHTS = 1 << 17  # at a time; some tensors of so many fit into a core's cache of 1 MB


def row_blocks(matrix: Tensor) -> Iterator[slice]:
    """The rows of a matrix in parts of about `WEIGHTS`, one row at least."""
    count = max(1, WEIGHTS // max(matrix[:1].numel(), 1))
    for start in range(0, len(matrix), count):
        yield slice(start, start + count)


def column_sums(one: Tensor, other: Tensor) -> Tensor:
    """Of the products of two matrices' values, [rows, columns] twice -> [columns] float32."""
    total = one.new_zeros(one.shape[1], dtype=torch.float64)
    for rows in row_blocks(one):
        total += (one[rows] * other[rows]).sum(0)
    return total.float()


def row_sums(one: Tensor, other: Tensor) -> Tensor:
    """The same of each row, [rows]."""
    return torch.linalg.vecdot(one, other)


def squared_error(
    weight: Tensor, aim: Tensor, by_rows: Tensor | None = None, by_columns: Tensor | None = None
) -> tuple[float, float]:
    """‖W − A‖² and ‖A‖² for A = r·a·c. weight, aim: [out, in]. by_rows: [out]. by_columns: [in]."""
    error = size = 0.0
    for rows in row_blocks(weight):
        part = aim[rows]
        if by_columns is not None:
            part = part * by_columns
        if by_rows is not None:
            part = part * by_rows[rows, None]
        error, size = (
            error + float((weight[rows] - part).square().sum()),
            size + float(part.square().sum()),
        )
    return error, size


def medians(matrix: Tensor, absolute: bool = False) -> Tensor:
    """Those of the last dimension, the lower one of an even number, as `Tensor.median` gives them.

    absolute: of the values' magnitudes. NumPy finds those of a few neighbours in a fraction of
    PyTorch's time.
    """
    middle, found = (matrix.shape[-1] - 1) // 2, []
    for rows in row_blocks(matrix):
        some = matrix[rows].abs() if absolute else matrix[rows]
        part = np.ascontiguousarray(some.numpy())
        found.append(torch.from_numpy(np.partition(part, middle)[..., middle].copy()))
    return torch.cat(found)
