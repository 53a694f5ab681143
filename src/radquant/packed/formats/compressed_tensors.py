"""The `pack-quantized` format of compressed-tensors.

Tensors of a packed linear layer (compressed-tensors, `compressors/pack_quantized`):

    weight_packed      int32   [out, ceil(in·bits / 32)]
    weight_scale       float16 [out, groups]
    weight_zero_point  int32   [ceil(out·bits / 32), groups]; asymmetric grids only
    weight_shape       int64   [2]: out, in
    weight_g_idx       int32   [in]; only where groups were formed in order of activation, which
                               the package's later versions and vLLM refuse: read, never written

It speaks of signed integers q − 2^(bits − 1) and of their zeros but stores them with that offset
added back, which is this program's own range. For bits that do not divide 32 its versions differ
(0.17 leaves the rest of a word empty, 0.20 fills it), so 3 bits are not written and read only as
the newer ones store them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from radquant.errors import UserError
from radquant.packed.formats import compressed_floats as floats
from radquant.packed.formats import other_programs
from radquant.packed.formats.kind import (
    HEAD,
    WORDS,
    Settings,
    Stored,
    Table,
    groups_of,
    lacks_order_of_activation,
    lacks_progressive_scales,
    names_of,
    refuse_unapplied,
    stream_value,
    stream_values,
    whole,
    words_for,
)
from radquant.settings.recipe import INT, WHOLE_ROW, Recipe, uses_gptq_rounding

if TYPE_CHECKING:
    from torch import Tensor

    from radquant.packed.grid import QuantizedWeight

NAME = "compressed-tensors"
METHOD = "compressed-tensors"
BITS: tuple[int, ...] = (2, 4, 8)
TYPES: tuple[str, ...] = (INT, "fp8", "mxfp4", "nvfp4")
VALUES = False
# Every quantized layer has the first, and no other has it.
SUFFIXES: tuple[str, ...] = (
    "weight_scale",
    "weight",  # of FP8
    "weight_packed",
    "weight_shape",
    "weight_zero_point",
    "weight_g_idx",
    "weight_global_scale",
    "input_scale",
    "input_global_scale",
)
VLLM_BITS = (4, 8)
# What is applied, or says only how the weights were made.
APPLIED = frozenset(
    {"quant_method", "format", "quantization_status", "config_groups", "ignore", "version"}
    | {"kv_cache_scheme"}
    | {"global_compression_ratio", "sparsity_config", "transform_config"}
)
IN_ORDER = ("group", "dynamic", True)  # actorder of groups that are no runs of channels
READ = frozenset({"pack-quantized", floats.WEIGHTS_ALONE, *floats.FORMATS.values()})
OF_GROUP = frozenset({"targets", "weights", "format", "input_activations"})
OF_WEIGHTS = frozenset(
    {"num_bits", "type", "symmetric", "strategy", "group_size", "actorder", "observer"}
    | {"observer_kwargs", "scale_dtype", "zp_dtype"}
)


def problem(recipe: Recipe) -> str | None:
    if recipe.type != INT:
        return floats.problem(recipe)
    return lacks_progressive_scales(NAME, recipe) or lacks_order_of_activation(NAME, recipe)


def usual_for(recipe: Recipe) -> bool:
    return recipe.type != INT


def config(recipe: Recipe, left_out: Sequence[str]) -> dict[str, Any]:
    """What llm-compressor writes."""
    form, inputs = "pack-quantized", None
    weights: dict[str, Any] = {
        "num_bits": recipe.bits,
        "type": "int",
        "symmetric": not recipe.zero_point,
        "strategy": "channel" if recipe.group_size == WHOLE_ROW else "group",
        "group_size": None if recipe.group_size == WHOLE_ROW else recipe.group_size,
        "dynamic": False,
        "actorder": "weight" if uses_gptq_rounding(recipe) else None,
    }
    if recipe.type != INT:
        form, weights, inputs = floats.config_group(recipe)
    group = {
        "targets": ["Linear"],
        "weights": weights,
        "input_activations": inputs,
        "output_activations": None,
    }
    return {
        "quant_method": METHOD,
        "format": form,
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": [name if name == HEAD else f"re:.*{re.escape(name)}.*" for name in left_out],
        "kv_cache_scheme": None,
        "global_compression_ratio": None,
    }


def pack(weight: QuantizedWeight, recipe: Recipe) -> dict[str, Tensor]:
    """A symmetric grid's zeros go without saying."""
    if weight.type != INT:
        return floats.pack(weight)
    import torch

    from radquant.packed.packing import pack_bits

    packed = {
        "weight_packed": pack_bits(weight.integers, recipe.bits),
        "weight_scale": weight.scales.contiguous(),
        "weight_shape": torch.tensor(weight.integers.shape),
    }
    if recipe.zero_point:
        packed["weight_zero_point"] = pack_bits(weight.zeros.T, recipe.bits).T.contiguous()
    return packed


def recognises(config: Mapping[str, Any]) -> bool:
    return config.get("quant_method") == METHOD


def read_config(config: Mapping[str, Any]) -> Settings:
    groups = list((config.get("config_groups") or {}).values())
    packed = {group.get("format") or config.get("format") for group in groups}
    if not packed or not packed <= READ:
        found = ", ".join(sorted(str(each) for each in packed)) or "no format"
        raise UserError(
            f"compressed-tensors checkpoints in {found} cannot be read; those in "
            f"{', '.join(sorted(READ))} can"
        )
    refuse_unapplied(config, APPLIED)
    for key, harmless in (("sparsity_config", "format"), ("transform_config", "config_groups")):
        said = config.get(key) or {}
        if said.get(harmless) not in (None, "dense", {}):
            raise UserError(f"quantization_config says {key}, which is not applied here")
    for name, group in (config.get("config_groups") or {}).items():
        refuse_unapplied(group, OF_GROUP, f"quantization_config, {name},")
    # Names as they are, or patterns.
    ignored = tuple(
        name.removeprefix("re:") if name.startswith("re:") else f"{re.escape(name)}$"
        for name in names_of(config, "ignore")
    )
    every = all(group.get("targets") == ["Linear"] for group in groups)
    cache = floats.read_cache(config.get("kv_cache_scheme"))
    recipes = [replace(read_group(group, ignored, every), kv_cache=cache) for group in groups]
    if len(set(recipes)) > 1:
        raise UserError("compressed-tensors checkpoints with several recipes cannot be read")
    return recipes[0]


def read_group(group: Mapping[str, Any], ignored: tuple[str, ...], every: bool) -> Settings:
    """What a group of layers says of its weights and of what it multiplies them with."""
    weights = group.get("weights") or {}
    activations = floats.read_activations(group.get("input_activations"))
    if floats.is_float(weights):
        kind, bits, size = floats.read_weights(weights)
        own = Settings(NAME, bits, size, symmetric=True, type=kind)
    else:
        own = read_integers(weights)
    return replace(own, left_out=ignored, packs_all=every, activations=activations)


def read_integers(weights: Mapping[str, Any]) -> Settings:
    """What a group of layers says of integer weights."""
    strategy = weights.get("strategy") or ("group" if weights.get("group_size") else "")
    if weights.get("type", "int") != "int" or strategy not in ("group", "channel"):
        raise UserError(
            f"compressed-tensors weights of type {weights.get('type')} by {strategy or 'tensor'} "
            "cannot be read; integers by group or channel can"
        )
    refuse_unapplied(weights, OF_WEIGHTS, "quantization_config, weights,")
    order = weights.get("actorder")
    if order not in (None, False, "weight", "static", *IN_ORDER):
        raise UserError(f"quantization_config says actorder: {order!r}, which is not known")
    group_size = WHOLE_ROW if strategy == "channel" else whole(weights, "group_size")
    return Settings(
        NAME,
        whole(weights, "num_bits"),
        group_size,
        symmetric=bool(weights.get("symmetric", True)),
        in_order_of_activation=order in IN_ORDER,
    )


def layer_tensors(settings: Settings, inputs: int, outputs: int) -> dict[str, Stored]:
    if settings.type != INT:
        return floats.layer_tensors(settings, inputs, outputs)
    groups, bits = groups_of(settings, inputs), settings.bits
    zeros = {"weight_zero_point": Stored((words_for(outputs, bits), groups), dtypes=WORDS)}
    return {
        "weight_packed": Stored((outputs, words_for(inputs, bits)), dtypes=WORDS),
        "weight_scale": Stored((outputs, groups), floating=True),
        "weight_g_idx": Stored((inputs,), optional=not settings.in_order_of_activation),
        **({} if settings.symmetric else zeros),
        "weight_shape": Stored((2,), values=(outputs, inputs)),
    }


def unpack(tensors: dict[str, Tensor], settings: Settings) -> QuantizedWeight:
    import torch

    from radquant.packed.grid import QuantizedWeight
    from radquant.packed.packing import WORD, unpack_bits

    if settings.type != INT:
        return floats.unpack(tensors, settings)
    bits, (outputs, inputs) = settings.bits, tensors["weight_shape"].tolist()
    words = tensors["weight_packed"].shape[-1]
    if words != math.ceil(inputs * bits / WORD):
        raise UserError(
            f"{words} words cannot be read as {inputs} integers of {bits} bits; the checkpoint is "
            "damaged, or its integers are padded as in an older version of compressed-tensors"
        )
    scales = tensors["weight_scale"].reshape(outputs, -1)
    if settings.symmetric:
        zeros = torch.full(scales.shape, 2 ** (bits - 1), dtype=torch.uint8, device=scales.device)
    else:
        zeros = unpack_bits(tensors["weight_zero_point"].T.contiguous(), bits, outputs).T
    return QuantizedWeight(
        unpack_bits(tensors["weight_packed"], bits, inputs),
        scales.contiguous(),
        zeros.contiguous(),
        tensors.get("weight_g_idx"),
    )


def in_memory(tensors: dict[str, Tensor], settings: Settings) -> dict[str, Tensor]:
    from radquant.packed.in_memory import packed_tensors

    return packed_tensors(unpack(tensors, settings), settings.bits)


def plain_values(packed: dict[str, Tensor], recipe: Recipe) -> tuple[Table, Table]:
    if recipe.type != INT:
        return floats.plain_values(packed, recipe.type)
    bits, (out, groups) = recipe.bits, packed["weight_scale"].shape
    integers = [stream_values(row, bits) for row in packed["weight_packed"].tolist()]
    if not recipe.zero_point:
        return integers, [[2 ** (bits - 1)] * groups for _ in range(out)]
    columns = packed["weight_zero_point"].T.tolist()
    zeros = [[stream_value(column, place, bits) for column in columns] for place in range(out)]
    return integers, zeros


def vllm_problem(settings: Settings, on_cpu: bool) -> str | None:
    lacking = other_programs.vllm_lacks_bits(settings, VLLM_BITS, on_cpu)
    return lacking or other_programs.vllm_lacks_order(settings)


def loading(settings: Settings, dtype: str) -> list[str]:
    kind = "" if settings.symmetric else " of the Hopper kind, for 8 bits with zero points"
    hindrance = other_programs.vllm_hindrance(settings)
    return [
        other_programs.transformers_text("the package compressed-tensors:", dtype),
        other_programs.vllm_text(settings, dtype, hindrance, f"on a GPU{kind}"),
    ]
