"""The formats of packed checkpoints: what each can hold, how it is written, read and announced."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import radquant
from radquant.errors import UserError
from radquant.packed import packing, packing_compressed, packing_gptq, packing_qoq
from radquant.packed.grid import QuantizedWeight
from radquant.settings.recipe import (
    COMPRESSED,
    FORMAT_BITS,
    GEMM,
    GPTQ,
    QOQ,
    WHOLE_ROW,
    Recipe,
    format_name,
    uses_gptq_rounding,
)

HEAD = "lm_head"
QOQ_METHOD = "radquant-qoq"  # a name that no other tool takes for a format of its own


@dataclass(frozen=True)
class Settings:
    """What a checkpoint's `quantization_config` says about how its linear layers are stored."""

    format: str  # "gemm", "gptq", "compressed-tensors" or "qoq"
    bits: int
    group_size: int  # -1: one group for the whole row
    symmetric: bool  # every zero lies in the middle of the range
    zeros_less_one: bool = False  # the first version of the GPTQ format
    in_order_of_activation: bool = False  # groups are no runs of channels: there is an index


@dataclass(frozen=True)
class Format:
    """A format that checkpoints are written in."""

    name: str
    pack: Callable[[QuantizedWeight, Recipe], dict[str, Tensor]]  # tensor by suffix
    config: Callable[[Recipe, Sequence[str]], dict[str, Any]]  # recipe, modules left out


def gemm_config(recipe: Recipe, left_out: Sequence[str]) -> dict[str, Any]:
    """What AutoAWQ writes. Zeros are stored on a symmetric grid, too, so there always are some."""
    return {
        "quant_method": "awq",
        "bits": recipe.bits,
        "group_size": recipe.group_size,
        "zero_point": True,
        "version": "gemm",
        "modules_to_not_convert": list(left_out),
    }


def gptq_config(recipe: Recipe, left_out: Sequence[str]) -> dict[str, Any]:
    """What AutoGPTQ and GPTQModel write; `dynamic` is GPTQModel's way to leave modules out."""
    config = {
        "quant_method": "gptq",
        "bits": recipe.bits,
        "group_size": recipe.group_size,
        "sym": not recipe.zero_point,
        "desc_act": recipe.desc_act,
        "static_groups": not recipe.desc_act,
        "true_sequential": False,
        "damp_percent": recipe.damp_percent,
        "lm_head": False,
        "pack_dtype": "int32",
        "checkpoint_format": "gptq_v2" if recipe.zero_point else "gptq",
        "meta": {"quantizer": [f"radquant:{radquant.__version__}"]},
    }
    others: dict[str, Any] = {f"-:.*{re.escape(name)}.*": {} for name in left_out if name != HEAD}
    return config | ({"dynamic": others} if others else {})


def compressed_config(recipe: Recipe, left_out: Sequence[str]) -> dict[str, Any]:
    """What llm-compressor writes."""
    weights = {
        "num_bits": recipe.bits,
        "type": "int",
        "symmetric": not recipe.zero_point,
        "strategy": "channel" if recipe.group_size == WHOLE_ROW else "group",
        "group_size": None if recipe.group_size == WHOLE_ROW else recipe.group_size,
        "dynamic": False,
        "actorder": "weight" if uses_gptq_rounding(recipe) else None,
    }
    group = {
        "targets": ["Linear"],
        "weights": weights,
        "input_activations": None,
        "output_activations": None,
    }
    return {
        "quant_method": COMPRESSED,
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": [name if name == HEAD else f"re:.*{re.escape(name)}.*" for name in left_out],
        "kv_cache_scheme": None,
        "global_compression_ratio": None,
    }


def qoq_config(recipe: Recipe, left_out: Sequence[str]) -> dict[str, Any]:
    return {
        "quant_method": QOQ_METHOD,
        "bits": recipe.bits,
        "group_size": recipe.group_size,
        "modules_to_not_convert": list(left_out),
    }


def pack_gemm(weight: QuantizedWeight, recipe: Recipe) -> dict[str, Tensor]:
    return packing.pack(weight, recipe.bits)


def pack_gptq(weight: QuantizedWeight, recipe: Recipe) -> dict[str, Tensor]:
    return packing_gptq.pack(weight, recipe.bits, zeros_less_one=not recipe.zero_point)


def pack_compressed(weight: QuantizedWeight, recipe: Recipe) -> dict[str, Tensor]:
    return packing_compressed.pack(weight, recipe.bits, symmetric=not recipe.zero_point)


def pack_qoq(weight: QuantizedWeight, recipe: Recipe) -> dict[str, Tensor]:
    return packing_qoq.pack(weight)


FORMATS = {
    each.name: each
    for each in (
        Format(GEMM, pack_gemm, gemm_config),
        Format(GPTQ, pack_gptq, gptq_config),
        Format(COMPRESSED, pack_compressed, compressed_config),
        Format(QOQ, pack_qoq, qoq_config),
    )
}


def format_for(recipe: Recipe, asked: str | None = None) -> Format:
    """The format to store `recipe` in; raises UserError if it cannot hold the recipe."""
    return FORMATS[format_name(recipe, asked)]


def settings_of(config: Mapping[str, Any]) -> Settings:
    """Read a `quantization_config`, ours or another tool's.

    Raises UserError if it announces a format that this program does not read.
    """
    readers = {
        "awq": read_gemm,
        "gptq": read_gptq,
        COMPRESSED: read_compressed,
        QOQ_METHOD: read_qoq,
    }
    method = config.get("quant_method")
    if method not in readers:
        raise UserError(
            f"checkpoints with quant_method {method!r} cannot be read; those with "
            f"{', '.join(map(repr, readers))} can"
        )
    settings = readers[method](config)
    if settings.bits not in FORMAT_BITS[settings.format]:
        raise UserError(f"{settings.bits}-bit checkpoints in {settings.format} cannot be read")
    if settings.group_size != WHOLE_ROW and settings.group_size < 1:
        raise UserError(f"group_size {settings.group_size} in quantization_config makes no sense")
    return settings


def need(config: Mapping[str, Any], *names: str) -> Any:
    """The value of the first of `names` that is there."""
    for name in names:
        if config.get(name) is not None:
            return config[name]
    raise UserError(f"quantization_config has no {names[0]}; the checkpoint is not complete")


def read_gemm(config: Mapping[str, Any]) -> Settings:
    version = str(config.get("version") or config.get("checkpoint_format") or GEMM).lower()
    if version != GEMM:
        raise UserError(f"AWQ checkpoints in version {version!r} cannot be read; 'gemm' can")
    bits, group_size = need(config, "bits", "w_bit"), need(config, "group_size", "q_group_size")
    return Settings(GEMM, int(bits), int(group_size), symmetric=False)


def read_gptq(config: Mapping[str, Any]) -> Settings:
    version = str(config.get("checkpoint_format") or config.get("format") or GPTQ).lower()
    if version not in ("gptq", "gptq_v2") or config.get("pack_dtype", "int32") != "int32":
        raise UserError(
            f"GPTQ checkpoints in format {version!r} with {config.get('pack_dtype', 'int32')} "
            "words cannot be read; 'gptq' and 'gptq_v2' with int32 can"
        )
    if any(not name.startswith("-:") for name in config.get("dynamic") or {}):
        raise UserError("GPTQ checkpoints with several recipes (`dynamic`) cannot be read")
    bits, group_size = need(config, "bits"), need(config, "group_size")
    symmetric = bool(config.get("sym", True))
    in_order = bool(config.get("desc_act")) and group_size != WHOLE_ROW
    return Settings(GPTQ, int(bits), int(group_size), symmetric, version == "gptq", in_order)


def read_compressed(config: Mapping[str, Any]) -> Settings:
    groups = list((config.get("config_groups") or {}).values())
    packed = {group.get("format") or config.get("format") for group in groups}
    if packed != {"pack-quantized"}:
        found = ", ".join(sorted(str(each) for each in packed)) or "no format"
        raise UserError(
            f"compressed-tensors checkpoints in {found} cannot be read; pack-quantized can"
        )
    if any(group.get("input_activations") for group in groups):
        raise UserError(
            "compressed-tensors checkpoints that quantize activations cannot be read; "
            "set activations on a precision of this program instead"
        )
    recipes = [compressed_weights(group.get("weights") or {}) for group in groups]
    if len(set(recipes)) > 1:
        raise UserError("compressed-tensors checkpoints with several recipes cannot be read")
    return recipes[0]


def read_qoq(config: Mapping[str, Any]) -> Settings:
    bits, group_size = need(config, "bits"), need(config, "group_size")
    return Settings(QOQ, int(bits), int(group_size), symmetric=False)


def compressed_weights(weights: Mapping[str, Any]) -> Settings:
    strategy = weights.get("strategy") or ("group" if weights.get("group_size") else "")
    if weights.get("type", "int") != "int" or strategy not in ("group", "channel"):
        raise UserError(
            f"compressed-tensors weights of type {weights.get('type')} by {strategy or 'tensor'} "
            "cannot be read; integers by group or channel can"
        )
    group_size = WHOLE_ROW if strategy == "channel" else int(need(weights, "group_size"))
    return Settings(
        COMPRESSED,
        int(need(weights, "num_bits")),
        group_size,
        symmetric=bool(weights.get("symmetric", True)),
        in_order_of_activation=weights.get("actorder") in ("group", "dynamic", True),
    )


SUFFIXES = {
    GEMM: ("qweight", "qzeros", "scales"),
    GPTQ: ("qweight", "qzeros", "scales", "g_idx"),
    COMPRESSED: (
        "weight_packed",
        "weight_scale",
        "weight_shape",
        "weight_zero_point",
        "weight_g_idx",
    ),
    QOQ: ("qweight", "group_scales", "group_zeros", "channel_scales"),
}
FLOATING = ("scales", "weight_scale", "channel_scales")


def expected_shapes(settings: Settings, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of a packed layer, by suffix; a group index may be missing."""
    groups = 1 if settings.group_size == WHOLE_ROW else inputs // settings.group_size

    def words(count: int) -> int:
        return math.ceil(count * settings.bits / packing.WORD)

    if settings.format == COMPRESSED:
        zeros = {} if settings.symmetric else {"weight_zero_point": (words(outputs), groups)}
        return {
            "weight_packed": (outputs, words(inputs)),
            "weight_scale": (outputs, groups),
            "weight_shape": (2,),
            "weight_g_idx": (inputs,),
            **zeros,
        }
    if settings.format == QOQ:
        return {
            "qweight": (outputs, words(inputs)),
            "group_scales": (outputs, groups),
            "group_zeros": (outputs, groups),
            "channel_scales": (outputs,),
        }
    shapes: dict[str, tuple[int, ...]] = {
        "qzeros": (groups, words(outputs)),
        "scales": (groups, outputs),
    }
    if settings.format == GEMM:
        return {"qweight": (inputs, words(outputs)), **shapes}
    return {"qweight": (words(inputs), outputs), "g_idx": (inputs,), **shapes}


def check_tensors(
    tensors: Mapping[str, Tensor], settings: Settings, inputs: int, outputs: int
) -> None:
    """Raise UserError unless a packed layer's tensors fit its size and settings."""
    if settings.group_size != WHOLE_ROW and inputs % settings.group_size:
        raise UserError(f"its {inputs} inputs are no multiple of group size {settings.group_size}")
    for suffix, shape in expected_shapes(settings, inputs, outputs).items():
        if suffix not in tensors:
            if suffix.endswith("g_idx"):
                continue
            raise UserError(f"its {suffix} is missing")
        tensor = tensors[suffix]
        if tuple(tensor.shape) != shape:
            raise UserError(f"its {suffix} has shape {list(tensor.shape)}, not {list(shape)}")
        if tensor.is_floating_point() != suffix.startswith(FLOATING):
            raise UserError(f"its {suffix} holds {tensor.dtype}")
    if "weight_shape" in tensors and tensors["weight_shape"].tolist() != [outputs, inputs]:
        raise UserError(f"its weight_shape is not {[outputs, inputs]}")


def unpack(tensors: dict[str, Tensor], settings: Settings) -> QuantizedWeight:
    """The integers and grid of one packed layer, in any format."""
    if settings.format == GEMM:
        return packing.unpack(tensors, settings.bits)
    if settings.format == GPTQ:
        return packing_gptq.unpack(tensors, settings.bits, settings.zeros_less_one)
    if settings.format == QOQ:
        return packing_qoq.unpack(tensors)
    return packing_compressed.unpack(tensors, settings.bits, settings.symmetric)


def input_order(index: Tensor, groups: int) -> Tensor | None:
    """The input channels of the first group, then of the second …, [in] int32; None: as they are.

    Raises UserError unless all groups are of one size.
    """
    counts = torch.bincount(index.long().clamp(min=0), minlength=groups)
    if len(counts) != groups or int(index.min()) < 0 or len(counts.unique()) != 1:
        raise UserError(f"its group index does not make {groups} groups of one size")
    order = index.argsort(stable=True).to(torch.int32)
    return None if torch.equal(order, torch.arange(len(order), dtype=torch.int32)) else order


def field_bits(bits: int) -> int:
    """The bits of a packed layer's fields in memory: 4 or 8."""
    return 4 if bits <= 4 else 8


def in_memory(tensors: dict[str, Tensor], settings: Settings) -> dict[str, Tensor]:
    """A stored layer's tensors as kernels.reference.PackedLinear holds them, or its subclass for
    progressive scales, which has `channel_scales`, too; the same weights."""
    if settings.format == GEMM:
        return tensors
    weight = unpack(tensors, settings)
    order = None
    if weight.group_index is not None:
        order = input_order(weight.group_index, weight.scales.shape[1])
    integers = weight.integers if order is None else weight.integers[:, order.long()]
    rows = QuantizedWeight(integers, weight.scales, weight.zeros)
    packed = packing.pack(rows, field_bits(settings.bits))
    if weight.channel_scales is not None:
        packed["channel_scales"] = weight.channel_scales
    return packed if order is None else packed | {"order": order}
