"""No weight of a model is an infinity or NaN: not as it is stored, nor in the dtype it runs in."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from radquant.errors import UserError
from radquant.failures import loading
from radquant.finite import first_not_finite, is_finite
from radquant.model_files import StoredTensor, stored_tensors
from radquant.packed.linear import QuantizedLinear


def load_finite(stored: StoredTensor) -> Tensor:
    """Read a tensor; UserError with its file, its name and the place of what is no number."""
    with loading(stored.file):
        tensor = stored.load()
    if not is_finite(tensor):
        raise UserError(
            f"{stored.file}: tensor {stored.key} holds {first_not_finite(tensor)}; fetch the model "
            "again, or take one whose weights are all numbers"
        )
    return tensor


def require_finite_files(stored: Iterable[StoredTensor], dtype: torch.dtype | None = None) -> None:
    """Raise UserError for a stored weight that is no number, or is none in `dtype`.

    Reads all of it, one tensor at a time.
    """
    for each in stored:
        if not each.dtype.startswith(("F", "BF")):
            continue
        tensor = load_finite(each)
        if dtype is None:
            continue
        narrower = torch.finfo(dtype).max < torch.finfo(tensor.dtype).max
        if narrower and not is_finite(tensor.to(dtype)):
            raise overflow(f"{each.file}: tensor {each.key}", float(tensor.abs().max()), dtype)


def require_finite_model(model: nn.Module, directory: Path, dtype: torch.dtype) -> None:
    """The same of a model that was loaded from `directory` in `dtype`, which costs no reading.

    What is on the meta device was not loaded.
    """
    tensors: Mapping[str, Tensor] = {**dict(model.named_parameters()), **dict(packed_parts(model))}
    for name, tensor in tensors.items():
        if not tensor.is_meta and not is_finite(tensor):
            require_finite_files(stored_tensors(directory).values(), dtype)  # names the file
            wider = ", or use compute.dtype bfloat16 or float32" if dtype == torch.float16 else ""
            raise UserError(
                f"{directory}: {name} holds {first_not_finite(tensor)} once it is loaded; fetch or "
                f"save the model again{wider}"
            )


def packed_parts(model: nn.Module) -> Iterable[tuple[str, Tensor]]:
    """Scales, values and biases of quantized layers, which are buffers."""
    for name, module in model.named_modules():
        if isinstance(module, QuantizedLinear):
            yield from ((f"{name}.{own}", buffer) for own, buffer in module.named_buffers())


def overflow(what: str, largest: float, dtype: torch.dtype) -> UserError:
    name, narrow = str(dtype).removeprefix("torch."), dtype == torch.float16
    remedy = "use compute.dtype bfloat16 or float32" if narrow else "take a model of usual weights"
    return UserError(
        f"{what} holds {largest:.3g}, which {name} cannot (at most {torch.finfo(dtype).max:.3g}); "
        f"{remedy}"
    )
