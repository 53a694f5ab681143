"""FP8 as transformers stores it (`quant_method: fp8`; DeepSeek-V3's format): read, never written.

Tensors of a linear layer (transformers, `integrations/finegrained_fp8`):

    weight            float8_e4m3fn [out, in]
    weight_scale_inv  float32, one for each block of 128 × 128, or for the whole tensor; E8M0 where
                      `scale_fmt` is ue8m0. A weight is code · scale, whatever the name says.
    activation_scale  float32 [1]; static activations alone

AutoFP8, which has the same `quant_method`, calls them weight_scale and input_scale.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from radquant.errors import UserError
from radquant.packed.formats.kind import Settings, Stored, names_of, refuse_unapplied
from radquant.settings.precision import DYNAMIC, FP8, GROUP, STATIC, TENSOR, Activations
from radquant.settings.recipe import WHOLE_ROW

if TYPE_CHECKING:
    from torch import Tensor

    from radquant.packed.grid import StoredValues

NAME = "fp8"
METHOD = "fp8"
BITS: tuple[int, ...] = (8,)
VALUES = True
MARKS: tuple[str, ...] = ("weight_scale_inv", "weight_scale")
SUFFIXES: tuple[str, ...] = (*MARKS, "weight", "activation_scale", "input_scale")
SCHEMES = {"dynamic": DYNAMIC, "static": STATIC}
SCALES = ("float32", "bfloat16", "float16", "float8_e8m0fnu", "uint8")
APPLIED = frozenset(
    {"quant_method", "activation_scheme", "weight_block_size", "modules_to_not_convert"}
    | {"ignored_layers", "fmt", "scale_fmt", "expert_dtype"}
)


def recognises(config: Mapping[str, Any]) -> bool:
    return config.get("quant_method") == METHOD


def read_config(config: Mapping[str, Any]) -> Settings:
    refuse_unapplied(config, APPLIED)
    if config.get("fmt", "e4m3") != "e4m3":
        raise UserError(f"FP8 weights in format {config['fmt']!r} cannot be read; 'e4m3' can")
    scheme = config.get("activation_scheme", "dynamic")
    if scheme not in SCHEMES:
        raise UserError(f"quantization_config says activation_scheme: {scheme!r}; it is not known")
    block = config.get("weight_block_size")
    if block is not None and not is_pair(block):
        raise UserError(
            f"quantization_config says weight_block_size: {block!r}, which are no sizes"
        )
    left_out = [*names_of(config, "modules_to_not_convert"), *names_of(config, "ignored_layers")]
    return Settings(
        NAME,
        8,
        WHOLE_ROW,
        symmetric=True,
        type=FP8,
        block=None if block is None else (block[0], block[1]),
        left_out=tuple(f".*{re.escape(name)}" for name in left_out),
        activations=activations(SCHEMES[scheme], block),
    )


def is_pair(value: Any) -> bool:
    pair = isinstance(value, list | tuple) and len(value) == 2
    return pair and all(type(each) is int and each > 0 for each in value)


def activations(scheme: str, block: Any) -> Activations:
    """With blocks, channels of one token share a scale as far as a block reaches."""
    if block is not None and scheme == DYNAMIC:
        return Activations(type=FP8, bits=8, granularity=GROUP, group_size=block[1])
    return Activations(type=FP8, bits=8, granularity=TENSOR, range=scheme)


def layer_tensors(settings: Settings, inputs: int, outputs: int) -> dict[str, Stored]:
    one = ((), (1,), (1, 1))
    if settings.block is None:
        scale = Stored(
            (outputs, 1), also=((outputs,), *one), floating=None, optional=True, dtypes=SCALES
        )
    else:
        rows, columns = settings.block
        shape = (math.ceil(outputs / rows), math.ceil(inputs / columns))
        scale = Stored(shape, floating=None, optional=True, dtypes=SCALES)
    of_inputs = Stored((1,), also=one, floating=True, optional=True)
    static = settings.activations is not None and settings.activations.range == STATIC
    return {
        "weight": Stored((outputs, inputs), floating=True, dtypes=("float8_e4m3fn",)),
        **dict.fromkeys(MARKS, scale),
        **(dict.fromkeys(("activation_scale", "input_scale"), of_inputs) if static else {}),
    }


def unpack(tensors: dict[str, Tensor], settings: Settings) -> StoredValues:
    import torch

    from radquant.packed.blocks import scaled_blocks
    from radquant.packed.grid import StoredValues
    from radquant.packed.types import mxfp4

    weight = tensors["weight"].float()
    found = [tensors[name] for name in MARKS if name in tensors]
    if len(found) > 1:
        raise UserError(f"it has both {' and '.join(MARKS)}; fetch the checkpoint again")
    scales = mxfp4.scales_of(found[0]) if found[0].dtype == torch.uint8 else found[0].float()
    if settings.block is None:
        rows = scales.reshape(-1, 1)
        return StoredValues(
            scaled_blocks(weight, rows, (len(weight) // len(rows), weight.shape[1]))
        )
    return StoredValues(scaled_blocks(weight, scales, settings.block))


def vllm_problem(settings: Settings, on_cpu: bool) -> str | None:
    return "multiply by 8-bit floating-point weights on a CPU" if on_cpu else None


def loading(settings: Settings, dtype: str) -> list[str]:
    return []
