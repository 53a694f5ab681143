"""torchao's checkpoints as transformers stores them in safetensors: read, never written.

Tensors of a linear layer (torchao, `prototype/safetensors`; classes Int8Tensor,
IntxUnpackedToInt8Tensor and Float8Tensor):

    _weight_qdata       int8 or float8_e4m3fn [out, in]
    _weight_scale       a float [out, groups]
    _weight_zero_point  int8 [out, groups]; of integers

A weight is (integer − zero) · scale, or number · scale. Integers of 4 bits that are packed for one
kind of GPU (Int4Tensor and the like) are not read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from radquant.errors import UserError
from radquant.packed.formats.kind import Settings, Stored, names_of, refuse_unapplied
from radquant.settings.precision import FP8, INT, TENSOR, TOKEN, Activations
from radquant.settings.recipe import WHOLE_ROW

if TYPE_CHECKING:
    from torch import Tensor

    from radquant.packed.grid import StoredValues

NAME = "torchao"
METHOD = "torchao"
BITS: tuple[int, ...] = (8,)
VALUES = True
DATA, SCALE, ZERO = (f"_weight_{name}" for name in ("qdata", "scale", "zero_point"))
MARKS: tuple[str, ...] = (DATA,)
SUFFIXES: tuple[str, ...] = (DATA, SCALE, ZERO)
APPLIED = frozenset({"quant_method", "quant_type", "modules_to_not_convert"})
WEIGHTS = {
    "Int8WeightOnlyConfig": INT,
    "IntxWeightOnlyConfig": INT,
    "Int8DynamicActivationInt8WeightConfig": INT,
    "Int8DynamicActivationIntxWeightConfig": INT,
    "Float8WeightOnlyConfig": FP8,
    "Float8DynamicActivationFloat8WeightConfig": FP8,
}
DYNAMIC, UNPACKED = "DynamicActivation", "UNPACKED_TO_INT8"


def recognises(config: Mapping[str, Any]) -> bool:
    return config.get("quant_method") == METHOD


def read_config(config: Mapping[str, Any]) -> Settings:
    refuse_unapplied(config, APPLIED)
    said = config.get("quant_type")
    default = said.get("default") if isinstance(said, Mapping) and len(said) == 1 else None
    name = str(default.get("_type") if isinstance(default, Mapping) else said)
    if name not in WEIGHTS:
        raise UserError(
            f"torchao checkpoints of {name[:60]} cannot be read; those of {', '.join(WEIGHTS)} can"
        )
    assert isinstance(default, Mapping)
    details = default.get("_data") or {}
    if details.get("intx_packing_format", {}).get("_data", UNPACKED) != UNPACKED:
        raise UserError("torchao checkpoints of packed integers cannot be read; save it unpacked")
    left_out = names_of(config, "modules_to_not_convert")
    return Settings(
        NAME,
        8,  # as they are stored
        WHOLE_ROW,
        symmetric=False,
        type=WEIGHTS[name],
        left_out=tuple(f".*{re.escape(each)}" for each in left_out),
        activations=activations(WEIGHTS[name], details) if DYNAMIC in name else None,
    )


def activations(kind: str, details: Mapping[str, Any]) -> Activations:
    """What is said of the rounding of inputs, which is dynamic."""
    mapping = details.get("act_mapping_type", {}).get("_data", "SYMMETRIC")
    by = granularity_of(details.get("granularity"))
    if kind == INT and mapping in ("SYMMETRIC", "ASYMMETRIC"):
        return Activations(bits=8, granularity=TOKEN, symmetric=mapping == "SYMMETRIC")
    if kind == FP8 and by in ("PerRow", "PerTensor"):
        return Activations(type=FP8, bits=8, granularity=TOKEN if by == "PerRow" else TENSOR)
    raise UserError(f"torchao's rounding of inputs by {by}, {mapping}, is not known")


def granularity_of(said: Any) -> str:
    """What shares a scale, of inputs where weights' differs."""
    first = said[0] if isinstance(said, list) and said else said
    return str(first.get("_type")) if isinstance(first, Mapping) else "PerTensor"


def layer_tensors(settings: Settings, inputs: int, outputs: int) -> dict[str, Stored]:
    of_floats = settings.type == FP8
    kind = "float8_e4m3fn" if of_floats else "int8"
    zero = {} if of_floats else {ZERO: Stored(None, optional=True, dtypes=("int8",))}
    return {
        DATA: Stored((outputs, inputs), floating=of_floats, dtypes=(kind,)),
        SCALE: Stored(None, floating=True),
        **zero,
    }


def unpack(tensors: dict[str, Tensor], settings: Settings) -> StoredValues:
    import torch

    from radquant.packed.blocks import scaled_blocks
    from radquant.packed.grid import StoredValues

    weight, scale, zero = tensors[DATA].float(), tensors[SCALE], tensors.get(ZERO)
    rows, columns = weight.shape
    scale = scale.reshape(-1, 1) if scale.ndim < 2 else scale
    if scale.ndim != 2 or rows % scale.shape[0] or columns % scale.shape[1]:
        raise UserError(f"its scales have shape {list(scale.shape)}, which its weight has not")
    block = (rows // scale.shape[0], columns // scale.shape[1])
    if zero is not None:
        if zero.numel() != scale.numel():
            raise UserError("it has not as many zeros as scales; the checkpoint is damaged")
        zeros = zero.reshape(scale.shape).float()
        weight = weight - scaled_blocks(torch.ones_like(weight), zeros, block)
    return StoredValues(scaled_blocks(weight, scale, block))


def vllm_problem(settings: Settings, on_cpu: bool) -> str | None:
    return "read torchao's checkpoints without torchao; use another format" if on_cpu else None


def loading(settings: Settings, dtype: str) -> list[str]:
    return []
