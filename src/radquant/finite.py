"""No infinity and no NaN may pass, and an error relative to nothing is told as it is.

A comparison with NaN is false, so it looks like no error.
"""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from radquant.errors import UserError

NOT_FINITE = (
    "the calibration activations of a linear layer hold infinities or NaN{}; quantize the model "
    "from bfloat16 or float32 weights, and look for broken ones"
)
OVERFLOWING = (
    "its weights times the calibration activations are too large for float32; look for broken "
    "weights, or quantize with transform smooth"
)


def require_finite(name: str, *tensors: Tensor, where: Callable[[], str] | None = None) -> None:
    """Raise UserError that names a linear layer whose calibration activations are not finite.

    where: says in which sample, "" if in none but in sums of squares alone; asked only then.
    """
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
        place = "" if where is None else where() or " once they are squared"
        raise UserError(f"{name}: {NOT_FINITE.format(place)}")


def largest_of(values: Iterable[float]) -> float:
    """The largest value, NaN if one of them is: Python's `max` may leave it out."""
    return float(torch.tensor(list(values), dtype=torch.float64).max())


def is_finite(tensor: Tensor) -> bool:
    """Whether all values are numbers.

    The least and the largest tell, which are NaN if one value is: a mask would take memory.
    """
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    if tensor.itemsize == 1:  # float8, which has no order in PyTorch
        tensor = tensor.float()
    return all(math.isfinite(end) for end in tensor.detach().aminmax())


def first_not_finite(tensor: Tensor) -> str:
    """The first value that is no number, and its place: "nan at [5, 3]"."""
    place = torch.nonzero(~torch.isfinite(tensor.float()))[0].tolist()
    return f"{float(tensor[tuple(place)])} at {place}"


SQUARES = (1e-10, 1e15)  # lengths of rows whose squares float32 holds


def norm(x: Tensor) -> float:
    """The length of all values, in float64 where squares of float32 may overflow, or vanish."""
    if x.dtype == torch.float32 and x.numel():
        rows = torch.linalg.vector_norm(x, dim=-1)
        if SQUARES[0] < float(rows.max()) < SQUARES[1]:
            return float(torch.linalg.vector_norm(rows, dtype=torch.float64))
    return float(torch.linalg.vector_norm(x, dtype=torch.float64))


def relative(error: float, whole: float) -> float:
    """`error` as a share of `whole`; of nothing, no error is 0 and any other is infinite."""
    if whole:
        return error / whole
    return math.inf if error else 0.0


def relative_change(now: Tensor, before: Tensor) -> float:
    """How far `now` is from `before`, as a share of its length."""
    return relative(norm(now - before), norm(before))
