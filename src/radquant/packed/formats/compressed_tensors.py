"""The `pack-quantized` format of compressed-tensors.

Tensors of a packed linear layer (compressed-tensors, `compressors/pack_quantized`):

    weight_packed      int32   [out, ceil(in·bits / 32)]
    weight_scale       float16 [out, groups]
    weight_zero_point  int32   [ceil(out·bits / 32), groups]; asymmetric grids only
    weight_shape       int64   [2]: out, in
    weight_g_idx       int32   [in]; only where groups were formed in order of activation, which
                               the package's later versions and vLLM refuse: read, never written

In `int-quantized` (and `naive-quantized`) nothing is packed:

    weight              int8    [out, in]
    weight_scale        a float [out, groups], [1] where the whole tensor shares it
    weight_zero_point   int8    likewise; asymmetric grids only

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
from radquant.packed.formats.mixtures import by_recipe, patterns
from radquant.settings.recipe import INT, WHOLE_ROW, Recipe, mixture, uses_gptq_rounding

if TYPE_CHECKING:
    from torch import Tensor

    from radquant.packed.grid import QuantizedWeight, StoredValues

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
PACKED, UNPACKED = "pack-quantized", "int-quantized"
# Of each type, the formats that hold its weights.
FORMS: dict[str, tuple[str, ...]] = {
    INT: (PACKED, UNPACKED, floats.WEIGHTS_ALONE),
    **{kind: (form, floats.WEIGHTS_ALONE) for kind, form in floats.FORMATS.items()},
}
READ = frozenset(form for forms in FORMS.values() for form in forms)
LINEAR, CLASS_NAME = "Linear", re.compile(r"[A-Z]\w*")  # targets that are names of classes
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
    return recipe.type != INT or (mixture(recipe) is not None and not uses_gptq_rounding(recipe))


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


def mixed_config(recipes: Mapping[str, Recipe], left_out: Sequence[str]) -> dict[str, Any]:
    """A group of layers for each of the recipes, which differ in bits and in groups of channels.

    No target is a class: vLLM would take what it fuses by its class before it looks for a name.
    """
    groups = {}
    for number, (recipe, layers) in enumerate(by_recipe(recipes)):
        whole = config(recipe, left_out)
        group = whole["config_groups"]["group_0"]
        targets = [f"re:{pattern}" for pattern in patterns(layers)]
        groups[f"group_{number}"] = {**group, "targets": targets, "format": whole["format"]}
    return {**whole, "config_groups": groups}


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
    refuse_unapplied(config, APPLIED)
    for key, harmless in (("sparsity_config", "format"), ("transform_config", "config_groups")):
        said = config.get(key) or {}
        if said.get(harmless) not in (None, "dense", {}):
            raise UserError(f"quantization_config says {key}, which is not applied here")
    groups = config.get("config_groups") or {}
    if not groups:
        raise UserError("quantization_config has no config_groups; the checkpoint is not complete")
    for name, group in groups.items():
        refuse_unapplied(group, OF_GROUP, f"quantization_config, {name},")
        if not names_of(group, "targets"):
            raise UserError(f"quantization_config, {name}, has no targets; fetch it again")
    cache = floats.read_cache(config.get("kv_cache_scheme"))
    ignored = tuple(pattern_of(name) for name in names_of(config, "ignore"))
    return by_target(
        [
            (
                names_of(group, "targets"),
                replace(read_group(group, config.get("format")), left_out=ignored, kv_cache=cache),
            )
            for group in groups.values()
        ]
    )


def pattern_of(target: str) -> str:
    """A regular expression for a name as it is, or for a pattern."""
    return target.removeprefix("re:") if target.startswith("re:") else f"{re.escape(target)}$"


def by_target(groups: Sequence[tuple[list[str], Settings]]) -> Settings:
    """One group's settings, with the others' by the names of their layers.

    A layer is of the group that has its own name, or else a pattern that matches it, the first by
    the alphabet, or else its class (compressed-tensors, `match_targets`).
    """
    rounded = {own.activations for _, own in groups} - {None}
    if len(rounded) > 1:
        raise UserError(
            "quantization_config rounds the inputs of some layers otherwise than those of others, "
            "which cannot be run; take a checkpoint with one rounding of activations"
        )
    each = {target: own for targets, own in groups for target in targets}
    named = sorted(each.items(), key=lambda each: each[0])
    of_class = [(target, own) for target, own in named if CLASS_NAME.fullmatch(target)]
    patterns = [each for each in named if each[0].startswith("re:")]
    exact = [each for each in named if each not in of_class and each not in patterns]
    others: list[tuple[str, Settings | None]] = [
        (pattern_of(target), own) for target, own in [*exact, *patterns]
    ]
    linear = next((own for target, own in of_class if target == LINEAR), None)
    if linear is None and not of_class:
        others.append(("", None))  # nothing else is quantized
    base = linear or next((own for _, own in of_class), groups[0][1])
    if not base.activations:
        base = replace(base, activations=next(iter(rounded), None), keeps_inputs=bool(rounded))
    others = [(pattern, own and keeping(own, base)) for pattern, own in others]
    return replace(base, others=tuple(others), packs_all=linear is not None or not of_class)


def keeping(own: Settings, base: Settings) -> Settings:
    """What is said of some layers, of which it counts whether others' inputs are rounded."""
    return replace(own, keeps_inputs=not own.activations and bool(base.activations))


def read_group(group: Mapping[str, Any], form: str | None) -> Settings:
    """What a group of layers says of its weights and of what it multiplies them with.

    form: of groups that do not say theirs.
    """
    weights, form = group.get("weights") or {}, group.get("format") or form
    if form not in READ:
        raise UserError(
            f"compressed-tensors checkpoints in {form or 'no format'} cannot be read; those in "
            f"{', '.join(sorted(READ))} can"
        )
    own = floats.read_weights(weights, NAME) if floats.is_float(weights) else read_integers(weights)
    if form not in FORMS[own.type]:
        raise UserError(
            f"quantization_config says format {form} of weights of type {own.type}, which it does "
            "not hold; fetch the checkpoint again"
        )
    if own.type == INT:
        own = replace(own, layout="" if form == PACKED else form)
    return replace(own, activations=floats.read_activations(group.get("input_activations")))


def read_integers(weights: Mapping[str, Any]) -> Settings:
    """What a group of layers says of integer weights."""
    strategy = weights.get("strategy") or ("group" if weights.get("group_size") else "tensor")
    if weights.get("type", "int") != "int" or strategy not in ("group", "channel", "tensor"):
        raise UserError(
            f"compressed-tensors weights of type {weights.get('type')} by {strategy} cannot be "
            "read; integers by group, channel or tensor can"
        )
    refuse_unapplied(weights, OF_WEIGHTS, "quantization_config, weights,")
    order = weights.get("actorder")
    if order not in (None, False, "weight", "static", *IN_ORDER):
        raise UserError(f"quantization_config says actorder: {order!r}, which is not known")
    return Settings(
        NAME,
        whole(weights, "num_bits"),
        whole(weights, "group_size") if strategy == "group" else WHOLE_ROW,
        symmetric=bool(weights.get("symmetric", True)),
        in_order_of_activation=order in IN_ORDER,
    )


def layer_tensors(settings: Settings, inputs: int, outputs: int) -> dict[str, Stored]:
    if settings.type != INT:
        return floats.layer_tensors(settings, inputs, outputs)
    groups, bits = groups_of(settings, inputs), settings.bits
    if settings.layout:
        return unpacked_tensors(settings, inputs, outputs)
    zeros = {"weight_zero_point": Stored((words_for(outputs, bits), groups), dtypes=WORDS)}
    return {
        "weight_packed": Stored((outputs, words_for(inputs, bits)), dtypes=WORDS),
        "weight_scale": Stored((outputs, groups), also=by_tensor(groups), floating=True),
        "weight_g_idx": Stored((inputs,), optional=not settings.in_order_of_activation),
        **({} if settings.symmetric else zeros),
        "weight_shape": Stored((2,), values=(outputs, inputs)),
        **floats.of_inputs(settings),
    }


def by_tensor(groups: int) -> tuple[tuple[int, ...], ...]:
    """Shapes of one number for the whole tensor, where rows are no groups."""
    return ((1,), (), (1, 1)) if groups == 1 else ()


def unpacked_tensors(settings: Settings, inputs: int, outputs: int) -> dict[str, Stored]:
    groups = groups_of(settings, inputs)
    one = ((outputs,), *by_tensor(groups)) if groups == 1 else ()
    zeros = {"weight_zero_point": Stored((outputs, groups), also=one, dtypes=("int8",))}
    return {
        "weight": Stored((outputs, inputs), dtypes=("int8",)),
        "weight_scale": Stored((outputs, groups), also=one, floating=True),
        "weight_g_idx": Stored((inputs,), optional=not settings.in_order_of_activation),
        **({} if settings.symmetric else zeros),
        **floats.of_inputs(settings),
    }


def unpack_bytes(tensors: dict[str, Tensor], settings: Settings) -> QuantizedWeight:
    """Of `int-quantized`: signed integers of up to 8 bits, one in a byte."""
    import torch

    from radquant.packed.grid import QuantizedWeight

    half = 2 ** (settings.bits - 1)
    signed = tensors["weight"].to(torch.int16)
    if int(signed.min()) < -half or int(signed.max()) >= half:
        raise UserError(f"its weight has integers that are none of {settings.bits} bits")
    rows = len(signed)
    scales = per_row(tensors["weight_scale"], rows)
    zeros = torch.full(scales.shape, half, dtype=torch.int16, device=scales.device)
    if not settings.symmetric:
        zeros = per_row(tensors["weight_zero_point"], rows).to(torch.int16) + half
    if int(zeros.min()) < 0 or int(zeros.max()) >= 2 * half:
        raise UserError(f"its weight_zero_point has integers that are none of {settings.bits} bits")
    return QuantizedWeight(
        (signed + half).to(torch.uint8),
        scales,
        zeros.to(torch.uint8),
        tensors.get("weight_g_idx"),
    )


def per_row(stored: Tensor, rows: int) -> Tensor:
    """Scales or zeros of groups, of rows or of a whole tensor: [rows, groups]."""
    one_each = stored.reshape(rows if stored.numel() > 1 else 1, -1)
    return one_each.expand(rows, -1).contiguous()


def unpack(tensors: dict[str, Tensor], settings: Settings) -> QuantizedWeight | StoredValues:
    import torch

    from radquant.packed.grid import QuantizedWeight
    from radquant.packed.packing import WORD, unpack_bits

    if settings.type != INT:
        return floats.unpack(tensors, settings)
    if settings.layout:
        return unpack_bytes(tensors, settings)
    bits, (outputs, inputs) = settings.bits, tensors["weight_shape"].tolist()
    words = tensors["weight_packed"].shape[-1]
    if words != math.ceil(inputs * bits / WORD):
        raise UserError(
            f"{words} words cannot be read as {inputs} integers of {bits} bits; the checkpoint is "
            "damaged, or its integers are padded as in an older version of compressed-tensors"
        )
    scales = per_row(tensors["weight_scale"], outputs)
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
    from radquant.packed.grid import QuantizedWeight
    from radquant.packed.in_memory import packed_tensors

    weight = unpack(tensors, settings)
    assert isinstance(weight, QuantizedWeight)  # integers are
    return packed_tensors(weight, settings.bits)


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
    if settings.type != INT:
        return floats.vllm_problem(settings, on_cpu)
    if settings.layout and settings.activations is None:
        return f"multiply by integers in bytes (format {settings.layout}) with inputs as they are"
    if settings.layout and not settings.symmetric:
        return "read 8-bit integers with zero points; use a symmetric grid"
    lacking = other_programs.vllm_lacks_bits(settings, VLLM_BITS, on_cpu)
    return lacking or other_programs.vllm_lacks_order(settings)


def loading(settings: Settings, dtype: str) -> list[str]:
    if settings.type != INT:
        return floats.loading(settings, dtype)
    kind = "" if settings.symmetric else " of the Hopper kind, for 8 bits with zero points"
    hindrance = other_programs.vllm_hindrance(settings)
    return [
        other_programs.transformers_text("the package compressed-tensors:", dtype),
        other_programs.vllm_text(settings, dtype, hindrance, f"on a GPU{kind}"),
    ]
