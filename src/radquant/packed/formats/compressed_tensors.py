"""The `compressed-tensors` format: what its `quantization_config` says, of which layers.

`compressed_integers` and `compressed_floats` say how weights lie in the files and are read.
`compressed_inputs` holds what is said of inputs and of keys and values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from radquant.errors import UserError
from radquant.packed.formats import compressed_floats as floats
from radquant.packed.formats import compressed_integers as integers
from radquant.packed.formats.compressed_inputs import is_float, read_activations, read_cache
from radquant.packed.formats.kind import (
    HEAD,
    Settings,
    Stored,
    Table,
    lacks_order_of_activation,
    lacks_progressive_scales,
    names_of,
    refuse_unapplied,
)
from radquant.packed.formats.mixtures import by_recipe, patterns
from radquant.settings.precision import INT
from radquant.settings.recipe import Recipe, mixture, uses_gptq_rounding

if TYPE_CHECKING:
    from torch import Tensor

    from radquant.packed.grid import QuantizedWeight, StoredValues

NAME = "compressed-tensors"
METHOD = "compressed-tensors"
BITS: tuple[int, ...] = (2, 4, 8)
TYPES: tuple[str, ...] = (INT, "fp8", "mxfp4", "nvfp4")
VALUES = False
# Every quantized layer has the first of these, and no other layer has it.
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
# Keys that are applied, or only say how the weights were made.
APPLIED = frozenset(
    {"quant_method", "format", "quantization_status", "config_groups", "ignore", "version"}
    | {"kv_cache_scheme"}
    | {"global_compression_ratio", "sparsity_config", "transform_config"}
)
# By type: the formats that hold its weights.
FORMS: dict[str, tuple[str, ...]] = {
    INT: (integers.PACKED, integers.UNPACKED, floats.WEIGHTS_ALONE),
    **{kind: (form, floats.WEIGHTS_ALONE) for kind, form in floats.FORMATS.items()},
}
READ = frozenset(form for forms in FORMS.values() for form in forms)
LINEAR, CLASS_NAME = "Linear", re.compile(r"[A-Z]\w*")  # targets that are names of classes
OF_GROUP = frozenset({"targets", "weights", "format", "input_activations"})


def problem(recipe: Recipe) -> str | None:
    if recipe.type != INT:
        return floats.problem(recipe)
    return lacks_progressive_scales(NAME, recipe) or lacks_order_of_activation(NAME, recipe)


def usual_for(recipe: Recipe) -> bool:
    return recipe.type != INT or (mixture(recipe) is not None and not uses_gptq_rounding(recipe))


def config(recipe: Recipe, left_out: Sequence[str]) -> dict[str, Any]:
    """What llm-compressor writes."""
    of_type = integers.config_group if recipe.type == INT else floats.config_group
    form, weights, inputs = of_type(recipe)
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
    return integers.pack(weight, recipe) if weight.type == INT else floats.pack(weight)


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
    cache = read_cache(config.get("kv_cache_scheme"))
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
    the alphabet. Otherwise it is of the group of its class (compressed-tensors, `match_targets`).
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
    read_weights = floats.read_weights if is_float(weights) else integers.read_weights
    own = read_weights(weights, NAME)
    if form not in FORMS[own.type]:
        raise UserError(
            f"quantization_config says format {form} of weights of type {own.type}, which it does "
            "not hold; fetch the checkpoint again"
        )
    if own.type == INT:
        own = replace(own, layout="" if form == integers.PACKED else form)
    return replace(own, activations=read_activations(group.get("input_activations")))


def layer_tensors(settings: Settings, inputs: int, outputs: int) -> dict[str, Stored]:
    if settings.type != INT:
        return floats.layer_tensors(settings, inputs, outputs)
    return integers.layer_tensors(settings, inputs, outputs)


def unpack(tensors: dict[str, Tensor], settings: Settings) -> QuantizedWeight | StoredValues:
    if settings.type != INT:
        return floats.unpack(tensors, settings)
    return integers.unpack(tensors, settings)


def in_memory(tensors: dict[str, Tensor], settings: Settings) -> dict[str, Tensor]:
    from radquant.packed.grid import QuantizedWeight
    from radquant.packed.in_memory import packed_tensors

    weight = unpack(tensors, settings)
    assert isinstance(weight, QuantizedWeight)  # integers are
    return packed_tensors(weight, settings.bits)


def plain_values(packed: dict[str, Tensor], recipe: Recipe) -> tuple[Table, Table]:
    if recipe.type != INT:
        return floats.plain_values(packed, recipe.type)
    return integers.plain_values(packed, recipe)


def vllm_problem(settings: Settings, on_cpu: bool) -> str | None:
    if settings.type != INT:
        return floats.vllm_problem(settings, on_cpu)
    return integers.vllm_problem(settings, on_cpu)


def loading(settings: Settings, dtype: str) -> list[str]:
    if settings.type != INT:
        return floats.loading(settings, dtype)
    return integers.loading(settings, dtype)
