"""No infinity and no NaN may pass. A comparison with NaN is false, so it looks like no error."""

from collections.abc import Iterable

import torch
from torch import Tensor

from radquant.errors import UserError

NOT_FINITE = (
    "the calibration activations of a linear layer hold infinities or NaN; quantize the model from "
    "bfloat16 or float32 weights, and look for broken ones"
)


def require_finite(name: str, *tensors: Tensor) -> None:
    """Raise UserError that names a linear layer whose calibration activations are not finite."""
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
        raise UserError(f"{name}: {NOT_FINITE}")


def largest_of(values: Iterable[float]) -> float:
    """The largest value, NaN if one of them is: Python's `max` may leave it out."""
    return float(torch.tensor(list(values), dtype=torch.float64).max())
