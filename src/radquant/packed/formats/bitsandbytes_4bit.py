"""bitsandbytes' NF4 and FP4 (QLoRA, Dettmers et al. 2023): read, never written.

Tensors of a linear layer (bitsandbytes, `functional.QuantState.as_dict`):

    weight                uint8, or any other type of numbers over the same bytes: two codes a byte,
                          the first in its upper half, of the whole weight row after row
    weight.absmax         float32 [blocks]: the scale of `blocksize` codes; uint8 if nested
    weight.quant_map      float32 [16]: what codes stand for
    weight.nested_absmax, weight.nested_quant_map
                          float32 [⌈blocks / nested_blocksize⌉] and [256]: double quantization
    weight.quant_state.bitsandbytes__nf4 (or …__fp4)
                          uint8: JSON with blocksize, shape and nested_offset

A nested scale is map[byte] · nested_absmax + nested_offset; a weight is map[code] · scale. Blocks
may span rows.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from radquant.errors import UserError
from radquant.packed.formats.kind import Settings, Stored, names_of, refuse_unapplied
from radquant.settings.recipe import WHOLE_ROW

if TYPE_CHECKING:
    from torch import Tensor

    from radquant.packed.grid import StoredValues

NAME = "bitsandbytes-4bit"
METHOD = "bitsandbytes"
BITS: tuple[int, ...] = (4,)
VALUES = True
STATE = "weight.quant_state.bitsandbytes__"
MARKS: tuple[str, ...] = (f"{STATE}nf4", f"{STATE}fp4")
NESTED = ("weight.nested_absmax", "weight.nested_quant_map")
SUFFIXES: tuple[str, ...] = (*MARKS, "weight.absmax", "weight.quant_map", *NESTED, "weight")
# Keys that are applied, that the tensors say too, or that only say in which dtype bitsandbytes
# computes.
APPLIED = frozenset(
    {"quant_method", "load_in_4bit", "_load_in_4bit", "bnb_4bit_quant_type"}
    | {"bnb_4bit_use_double_quant", "bnb_4bit_compute_dtype", "bnb_4bit_quant_storage"}
    | {"llm_int8_skip_modules", "llm_int8_threshold", "llm_int8_enable_fp32_cpu_offload"}
)
LONGEST = 1 << 16  # bytes of a state's JSON
LARGEST_BLOCK = 1 << 20


def recognises(config: Mapping[str, Any]) -> bool:
    return config.get("quant_method") == METHOD and not of_8_bits(config)


def of_8_bits(config: Mapping[str, Any]) -> bool:
    return bool(config.get("load_in_8bit") or config.get("_load_in_8bit"))


def read_config(config: Mapping[str, Any]) -> Settings:
    refuse_unapplied(config, APPLIED)
    if not (config.get("load_in_4bit") or config.get("_load_in_4bit")):
        raise UserError("quantization_config says neither load_in_4bit nor load_in_8bit")
    kind = config.get("bnb_4bit_quant_type", "fp4")
    if kind not in ("nf4", "fp4"):
        raise UserError(f"bitsandbytes weights of type {kind!r} cannot be read; nf4 and fp4 can")
    return Settings(NAME, 4, WHOLE_ROW, symmetric=True, layout=kind, left_out=skipped(config))


def skipped(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Patterns of the layers that are left as they were."""
    return tuple(f".*{re.escape(name)}" for name in names_of(config, "llm_int8_skip_modules"))


def layer_tensors(settings: Settings, inputs: int, outputs: int) -> dict[str, Stored]:
    return {
        f"{STATE}{settings.layout}": Stored(None, dtypes=("uint8",)),
        "weight": Stored(None, floating=None),
        "weight.absmax": Stored(None, floating=None),
        "weight.quant_map": Stored((16,), floating=True),
        "weight.nested_absmax": Stored(None, floating=True, optional=True),
        "weight.nested_quant_map": Stored((256,), floating=True, optional=True),
    }


def unpack(tensors: dict[str, Tensor], settings: Settings) -> StoredValues:
    import torch

    from radquant.packed.grid import StoredValues

    shape, state = read_state(tensors[f"{STATE}{settings.layout}"])
    size = number(state, "blocksize", LARGEST_BLOCK)
    count = math.prod(shape)
    stored = tensors["weight"].contiguous().flatten().view(torch.uint8)
    scales = block_scales(tensors, state)
    if len(stored) != math.ceil(count / 2) or len(scales) != math.ceil(count / size):
        raise UserError(
            f"it has {len(stored)} bytes and {len(scales)} scales, which are not those of "
            f"{shape[0]} × {shape[1]} weights in blocks of {size}; the checkpoint is damaged"
        )
    codes = torch.stack((stored >> 4, stored & 15), -1).flatten()[:count].long()
    values = tensors["weight.quant_map"].float()[codes]
    values = values * scales.repeat_interleave(size)[:count]
    return StoredValues(values.reshape(shape))


def block_scales(tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> Tensor:
    """The scale of each block, [blocks] float32."""
    import torch

    absmax = tensors["weight.absmax"].flatten()
    nested = [name for name in NESTED if name in tensors]
    if not nested and absmax.is_floating_point():
        return absmax.float()
    if len(nested) != len(NESTED) or absmax.dtype != torch.uint8:
        raise UserError("its scales are quantized themselves and not complete; fetch it again")
    size, offset = number(state, "nested_blocksize", LARGEST_BLOCK), state.get("nested_offset")
    outer = tensors[NESTED[0]].float().flatten()
    if not isinstance(offset, int | float) or len(outer) != math.ceil(len(absmax) / size):
        raise UserError("the scales of its scales do not fit; the checkpoint is damaged")
    values = tensors[NESTED[1]].float()[absmax.long()]
    return values * outer.repeat_interleave(size)[: len(absmax)] + float(offset)


def read_state(tensor: Tensor) -> tuple[tuple[int, int], dict[str, Any]]:
    """[out, in] of the weight, and all that the JSON in a tensor of bytes says."""
    try:
        if tensor.numel() > LONGEST:
            raise ValueError
        state = json.loads(bytes(tensor.flatten().tolist()))
        outputs, inputs = state["shape"]
        if type(outputs) is not int or type(inputs) is not int or min(outputs, inputs) < 1:
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError("its quant_state is no JSON of bitsandbytes; fetch it again") from None
    return (outputs, inputs), state


def number(state: Mapping[str, Any], name: str, most: int) -> int:
    value = state.get(name)
    if type(value) is not int or not 1 <= value <= most:
        raise UserError(f"its quant_state has no {name}; fetch the checkpoint again")
    return value


def vllm_problem(settings: Settings, on_cpu: bool) -> str | None:
    return "multiply by bitsandbytes' weights on a CPU" if on_cpu else None


def loading(settings: Settings, dtype: str) -> list[str]:
    return []
