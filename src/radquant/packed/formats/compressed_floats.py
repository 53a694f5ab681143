"""The floating-point formats of compressed-tensors: what `compressed_tensors` asks for them.

Tensors of a linear layer (compressed-tensors, `compressors/naive_quantized`, `mxfp4`, `nvfp4`):

    float-quantized        weight               float8_e4m3fn [out, in]
                           weight_scale         a float [out, 1], [1] by tensor, or one for each
                                                block of [out, in]
                           input_scale          a float [1]; only where activations are static
    mxfp4-pack-quantized   weight_packed        uint8 [out, in / 2], even channels below
                           weight_scale         uint8 [out, in / 32]: E8M0
    nvfp4-pack-quantized   weight_packed        uint8 [out, in / 2]
                           weight_scale         float8_e4m3fn [out, in / 16]
                           weight_global_scale  float32 [1], by which is divided
                           input_global_scale   float32 [1]; only where activations are rounded

A weight is code · scale, for NVFP4 code · (scale / global scale), in float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from radquant.errors import UserError
from radquant.packed.formats import other_programs
from radquant.packed.formats.compressed_inputs import FLOATS, OF_VALUES, of_inputs, one_number
from radquant.packed.formats.kind import Settings, Stored, Table, refuse_unapplied, whole
from radquant.settings.precision import (
    DYNAMIC,
    FP8,
    GROUP,
    MXFP4,
    NVFP4,
    STATIC,
    TENSOR,
    TOKEN,
)
from radquant.settings.recipe import WHOLE_ROW, Recipe

if TYPE_CHECKING:
    from torch import Tensor

    from radquant.packed.grid import QuantizedWeight, StoredValues

FORMATS = {FP8: "float-quantized", MXFP4: "mxfp4-pack-quantized", NVFP4: "nvfp4-pack-quantized"}
WEIGHTS_ALONE = "naive-quantized"  # what FP8 is called where activations stay as they are
SCALE_DTYPES = {FP8: None, MXFP4: "torch.uint8", NVFP4: "torch.float8_e4m3fn"}
STRATEGIES = {FP8: "channel", MXFP4: "group", NVFP4: "tensor_group"}
ON = {
    FP8: "On a GPU: Hopper, Ada and Blackwell multiply in FP8, older ones by weights alone.",
    MXFP4: "On a GPU: Blackwell multiplies in MXFP4, older ones by weights alone.",
    NVFP4: "On a GPU: Blackwell multiplies in NVFP4, older ones by weights alone.",
}


def problem(recipe: Recipe) -> str | None:
    """What a checkpoint of this type cannot say of activations."""
    activations = recipe.activations
    if activations is None:
        return None
    if activations.type != recipe.type:
        return (
            f"weights of type {recipe.type} cannot be fitted to activations of type "
            f"{activations.type}; give them the same type, or round activations on a precision "
            "alone"
        )
    if activations.skip:
        return f"activations of type {recipe.type} are of all layers; leave skip out"
    if recipe.type == FP8 and activations.granularity == GROUP:
        return "activations of type fp8 are stored by token or tensor; leave granularity out"
    if recipe.type == NVFP4 and activations.range == DYNAMIC:
        return (
            "activations of type nvfp4 have a global scale from the calibration set; "
            "set range to static"
        )
    return None


def config_group(recipe: Recipe) -> tuple[str, dict[str, Any], dict[str, Any] | None]:
    """The format's name and what is said of weights and of inputs, as llm-compressor writes it."""
    shared = {"num_bits": recipe.bits, "type": "float", "symmetric": True}
    scale_dtype = SCALE_DTYPES[recipe.type]
    weights = {
        **shared,
        "strategy": STRATEGIES[recipe.type],
        "group_size": None if recipe.group_size == WHOLE_ROW else recipe.group_size,
        "dynamic": False,
        "scale_dtype": scale_dtype,
        "zp_dtype": scale_dtype,
    }
    activations = recipe.activations
    if activations is None:
        form = WEIGHTS_ALONE if recipe.type == FP8 else FORMATS[recipe.type]
        return form, weights, None
    static = activations.range == STATIC
    by_token = {TOKEN: "token", TENSOR: "tensor"}
    inputs = {
        **shared,
        "strategy": STRATEGIES.get(recipe.type)
        if recipe.type != FP8
        else by_token[activations.granularity],
        "group_size": None if recipe.type == FP8 else recipe.group_size,
        "dynamic": not static if recipe.type != NVFP4 else "local",
        "scale_dtype": scale_dtype,
        "zp_dtype": scale_dtype,
    }
    return FORMATS[recipe.type], weights, inputs


def pack(weight: QuantizedWeight) -> dict[str, Tensor]:
    import torch

    from radquant.packed import float4
    from radquant.packed.types import mxfp4, nvfp4

    if weight.type == FP8:
        return {
            "weight": weight.integers.view(torch.float8_e4m3fn),
            "weight_scale": weight.scales.float().contiguous(),
        }
    packed = {"weight_packed": float4.pack_codes(weight.integers)}
    if weight.type == MXFP4:
        return packed | {"weight_scale": mxfp4.stored_scales(weight.scales)}
    assert weight.outer is not None
    return packed | {
        "weight_scale": nvfp4.stored_scales(weight.scales, weight.outer),
        "weight_global_scale": weight.outer.flatten()[:1].clone(),
    }


def unpack(tensors: Mapping[str, Tensor], settings: Settings) -> QuantizedWeight | StoredValues:
    import torch

    from radquant.packed import float4
    from radquant.packed.blocks import scaled_blocks
    from radquant.packed.grid import QuantizedWeight, StoredValues
    from radquant.packed.types import mxfp4, nvfp4

    stored, outer = tensors["weight_scale"], None
    if settings.type == FP8:
        if settings.block is not None:
            return StoredValues(scaled_blocks(tensors["weight"].float(), stored, settings.block))
        codes = tensors["weight"].view(torch.uint8)
        scale = stored.float().reshape(-1, 1).expand(len(codes), 1)
    else:
        codes = float4.unpack_codes(tensors["weight_packed"])
        if settings.type == MXFP4:
            scale = mxfp4.scales_of(stored)
        else:
            outer = tensors["weight_global_scale"].float().expand(len(codes), 1)
            scale = nvfp4.scales_of(stored, outer)
    if not torch.isfinite(scale).all():
        raise UserError("its weight_scale is not finite; the checkpoint is damaged")
    return QuantizedWeight(codes, scale, torch.zeros_like(scale), type=settings.type, outer=outer)


def layer_tensors(settings: Settings, inputs: int, outputs: int) -> dict[str, Stored]:
    kind = settings.type
    if kind == FP8:
        return {
            "weight": Stored((outputs, inputs), floating=True, dtypes=("float8_e4m3fn",)),
            "weight_scale": scale_of_fp8(settings, inputs, outputs),
            **of_inputs(settings),
        }
    size = 32 if kind == MXFP4 else 16
    packed = Stored((outputs, inputs // 2), dtypes=("uint8",))
    if kind == MXFP4:
        scales = Stored((outputs, inputs // size), dtypes=("uint8",))
        return {"weight_packed": packed, "weight_scale": scales}
    return {
        "weight_packed": packed,
        "weight_scale": Stored((outputs, inputs // size), floating=True, dtypes=("float8_e4m3fn",)),
        "weight_global_scale": Stored((1,), floating=True, dtypes=("float32",)),
        **of_inputs(settings),
    }


def scale_of_fp8(settings: Settings, inputs: int, outputs: int) -> Stored:
    if settings.block is not None:
        rows, columns = settings.block
        shape = (math.ceil(outputs / rows), math.ceil(inputs / columns))
        return Stored(shape, floating=True, dtypes=FLOATS)
    if settings.layout == TENSOR:
        return one_number()
    return Stored((outputs, 1), also=((outputs,),), floating=True, dtypes=FLOATS)


def read_weights(weights: Mapping[str, Any], name: str) -> Settings:
    """What is said of floating-point weights; UserError if they are none that are known.

    name: of the format.
    """
    refuse_unapplied(weights, OF_VALUES - {"dynamic"}, "quantization_config, weights,")
    bits, strategy = whole(weights, "num_bits"), str(weights.get("strategy"))
    group = weights.get("group_size")
    kinds: dict[tuple[int, Any, Any], str] = {
        (8, "channel", None): FP8,
        (8, "tensor", None): FP8,
        (8, "block", None): FP8,
        (4, "group", 32): MXFP4,
        (4, "tensor_group", 16): NVFP4,
    }
    found = kinds.get((bits, strategy, group if bits == 4 else None))
    if found is None or not weights.get("symmetric", True):
        raise UserError(
            f"floating-point weights of {bits} bits by {strategy} in groups of {group} cannot be "
            "read; FP8 by channel, tensor or block, MXFP4 and NVFP4 can"
        )
    size = WHOLE_ROW if found == FP8 else whole(weights, "group_size")
    block = block_of(weights.get("block_structure")) if strategy == "block" else None
    return Settings(name, bits, size, symmetric=True, type=found, layout=strategy, block=block)


def block_of(said: Any) -> tuple[int, int]:
    """The outputs and inputs that share a scale."""
    if not isinstance(said, list | tuple) or len(said) != 2 or not all(map(is_size, said)):
        raise UserError(f"quantization_config says that blocks are {said!r}, not two whole numbers")
    return said[0], said[1]


def is_size(value: Any) -> bool:
    return type(value) is int and value > 0


def vllm_problem(settings: Settings, on_cpu: bool) -> str | None:
    """Words that follow "vLLM cannot …"."""
    if on_cpu and (settings.type != FP8 or settings.activations is None):
        return f"multiply by {settings.type.upper()} weights on this CPU; run it on a GPU"
    if on_cpu and settings.layout == TENSOR:  # it gives layers that it joins one scale
        return "multiply on a CPU by FP8 weights with one scale a layer; use one a channel"
    return None


def loading(settings: Settings, dtype: str) -> list[str]:
    """The model card's paragraphs on loading."""
    text = other_programs.transformers_text("the package compressed-tensors:", dtype)
    if settings.type != FP8:
        text += (
            "\n\nThe package computes these weights in bfloat16; in another dtype it needs "
            "`quantization_config=CompressedTensorsConfig(dequantize=True)`."
        )
    return [text, other_programs.vllm_text(settings, dtype, None, "") + "\n\n" + ON[settings.type]]


def plain_values(packed: Mapping[str, Tensor], kind: str) -> tuple[Table, Table]:
    """[out][in] codes and [out][group] zeros, read in plain Python from the definition."""
    import torch

    groups = len(packed["weight_scale"][0])
    if kind == FP8:
        codes = packed["weight"].view(torch.uint8).tolist()
    else:
        rows = packed["weight_packed"].tolist()
        codes = [[half for byte in row for half in (byte % 16, byte // 16)] for row in rows]
    return codes, [[0] * groups for _ in codes]
