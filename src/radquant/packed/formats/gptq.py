"""The GPTQ format: integers packed along the input channels, zeros along the output channels.

Tensors of a packed linear layer (AutoGPTQ and GPTQModel, `nn_modules/qlinear`):

    qweight  int32   [in·bits / 32, out]
    qzeros   int32   [groups, out·bits / 32]
    scales   float16 [groups, out]
    g_idx    int32   [in]: the group of each input channel

Values follow one another lowest bit first, so 32 values of 3 bits fill three words and two of them
lie across a border. In the first version of the format, `gptq`, every zero is stored less one.
Readers add the one back to the unpacked field, and not all of them cut the sum to the field's
width. So zero 0 cannot be stored in it. The second, `gptq_v2`, stores zeros as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import radquant
from radquant.errors import UserError
from radquant.packed.formats import other_programs
from radquant.packed.formats.kind import (
    HEAD,
    WORDS,
    Settings,
    Stored,
    Table,
    groups_of,
    lacks_progressive_scales,
    refuse_unapplied,
    stream_value,
    stream_values,
    whole,
    words_for,
)
from radquant.packed.formats.mixtures import by_recipe, patterns
from radquant.settings.recipe import WHOLE_ROW, Recipe, mixture, uses_gptq_rounding

if TYPE_CHECKING:
    from torch import Tensor

    from radquant.packed.grid import QuantizedWeight

NAME = "gptq"
METHOD = "gptq"
BITS: tuple[int, ...] = (2, 3, 4, 8)
TYPES: tuple[str, ...] = ("int",)
VALUES = False
SUFFIXES: tuple[str, ...] = ("qweight", "qzeros", "scales", "g_idx")
VLLM_BITS = (4, 8)
OF_SOME = frozenset({"bits", "group_size", "sym", "desc_act"})  # what `dynamic` says of layers
APPLIED = frozenset(
    {"quant_method", "bits", "group_size", "sym", "desc_act", "checkpoint_format", "format"}
    | {"pack_dtype", "dynamic", "lm_head"}
)
# Keys of other programs that say how the weights were found, and how to run them. The tensors show
# which layers are packed.
SAID_OF_MAKING = frozenset(
    {"method", "meta", "quantizer", "damp_percent", "damp_auto_increment", "static_groups"}
    | {"true_sequential", "model_name_or_path", "model_file_base_name", "dataset", "tokenizer"}
    | {"use_cuda_fp16", "model_seqlen", "block_name_to_quantize", "batch_size", "pad_token_id"}
    | {"module_name_preceding_first_block", "modules_in_block_to_quantize", "use_exllama"}
    | {"disable_exllama", "exllama_config", "max_input_length", "cache_block_outputs", "backend"}
    | {"mse", "act_group_aware", "gptaq", "autoround_version", "iters", "lr", "nsamples", "seqlen"}
    | {"is_marlin_format", "data_type", "enable_quanted_input", "minmax_lr", "packing_format"}
)


def problem(recipe: Recipe) -> str | None:
    return lacks_progressive_scales(NAME, recipe)


def usual_for(recipe: Recipe) -> bool:
    """For all that gemm does not take, but mixtures of AWQ's usual widths."""
    return not recipe.progressive and (mixture(recipe) is None or uses_gptq_rounding(recipe))


def config(recipe: Recipe, left_out: Sequence[str]) -> dict[str, Any]:
    """What AutoGPTQ and GPTQModel write; `dynamic` is GPTQModel's way to leave modules out."""
    config = {
        "quant_method": METHOD,
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


def mixed_config(recipes: Mapping[str, Recipe], left_out: Sequence[str]) -> dict[str, Any]:
    """The recipe of most layers, and GPTQModel's `dynamic` for those of other bits or groups."""
    (usual, _), *others = by_recipe(recipes)
    found = config(usual, left_out)
    of_others = {
        f"+:{pattern}": {"bits": recipe.bits, "group_size": recipe.group_size}
        for recipe, layers in others
        for pattern in patterns(layers)
    }
    dynamic = {**found.pop("dynamic", {}), **of_others}
    return found | ({"dynamic": dynamic} if dynamic else {})


def pack(weight: QuantizedWeight, recipe: Recipe) -> dict[str, Tensor]:
    """Symmetric grids are stored in the format's first version, others in its second."""
    import torch

    from radquant.packed.packing import WORD, pack_bits, require_multiple

    outputs, inputs = weight.integers.shape
    require_multiple(inputs, WORD, "inputs", NAME)
    require_multiple(outputs, WORD, "outputs", NAME)
    zeros = weight.zeros if recipe.zero_point else (weight.zeros - 1) & (2**recipe.bits - 1)
    index = weight.group_index
    if index is None:
        index = torch.arange(inputs) // (inputs // weight.scales.shape[1])
    return {
        "qweight": pack_bits(weight.integers, recipe.bits).T.contiguous(),
        "qzeros": pack_bits(zeros.T, recipe.bits),
        "scales": weight.scales.T.contiguous(),
        "g_idx": index.to(torch.int32),
    }


def recognises(config: Mapping[str, Any]) -> bool:
    return config.get("quant_method") == METHOD


def read_config(config: Mapping[str, Any]) -> Settings:
    version = str(config.get("checkpoint_format") or config.get("format") or "gptq").lower()
    if version not in ("gptq", "gptq_v2") or config.get("pack_dtype", "int32") != "int32":
        raise UserError(
            f"GPTQ checkpoints in format {version!r} with {config.get('pack_dtype', 'int32')} "
            "words cannot be read; 'gptq' and 'gptq_v2' with int32 can"
        )
    both = {str(config[key]).lower() for key in ("checkpoint_format", "format") if config.get(key)}
    if len(both) > 1:
        raise UserError("quantization_config names two formats, under checkpoint_format and format")
    refuse_unapplied(config, APPLIED | SAID_OF_MAKING)
    dynamic = config.get("dynamic") or {}
    others = []
    for pattern, said in dynamic.items():
        if not pattern.startswith("-:"):
            refuse_unapplied(said, OF_SOME, f"quantization_config, dynamic, {pattern},")
            others.append((pattern.removeprefix("+:"), read_layer({**config, **said}, version)))
    return replace(
        read_layer(config, version),
        left_out=tuple(name.removeprefix("-:") for name in dynamic if name.startswith("-:")),
        others=tuple(others),
        packs_all="modules_in_block_to_quantize" not in config,
        packs_head=config.get("lm_head") is True,
    )


def read_layer(config: Mapping[str, Any], version: str) -> Settings:
    """What is said of a layer's own numbers."""
    group_size = whole(config, "group_size")
    return Settings(
        NAME,
        whole(config, "bits"),
        group_size,
        symmetric=bool(config.get("sym", True)),
        zeros_less_one=version == "gptq",
        in_order_of_activation=bool(config.get("desc_act")) and group_size != WHOLE_ROW,
    )


def layer_tensors(settings: Settings, inputs: int, outputs: int) -> dict[str, Stored]:
    groups, bits = groups_of(settings, inputs), settings.bits
    return {
        "qweight": Stored((words_for(inputs, bits), outputs), dtypes=WORDS),
        "g_idx": Stored((inputs,), optional=not settings.in_order_of_activation),
        "qzeros": Stored((groups, words_for(outputs, bits)), dtypes=WORDS),
        "scales": Stored((groups, outputs), floating=True),
    }


def unpack(tensors: dict[str, Tensor], settings: Settings) -> QuantizedWeight:
    """The group index is left out where it only counts in runs."""
    import torch

    from radquant.packed.grid import QuantizedWeight
    from radquant.packed.packing import WORD, unpack_bits

    bits, (groups, outputs) = settings.bits, tensors["scales"].shape
    inputs = tensors["qweight"].shape[0] * WORD // bits
    zeros = unpack_bits(tensors["qzeros"], bits, outputs)
    if settings.zeros_less_one:
        zeros = (zeros + 1) & (2**bits - 1)
    index = tensors.get("g_idx")
    if index is not None and inputs % groups == 0:
        runs = torch.arange(inputs, device=index.device) // (inputs // groups)
        index = None if torch.equal(index.long(), runs) else index
    return QuantizedWeight(
        unpack_bits(tensors["qweight"].T.contiguous(), bits, inputs),
        tensors["scales"].T.contiguous(),
        zeros.T.contiguous(),
        index,
    )


def in_memory(tensors: dict[str, Tensor], settings: Settings) -> dict[str, Tensor]:
    from radquant.packed.in_memory import packed_tensors

    return packed_tensors(unpack(tensors, settings), settings.bits)


def plain_values(packed: dict[str, Tensor], recipe: Recipe) -> tuple[Table, Table]:
    bits, out = recipe.bits, packed["scales"].shape[1]
    zeros = packed["qzeros"].tolist()
    one = 0 if recipe.zero_point else 1  # symmetric grids are stored in the format's first version
    return (
        [stream_values(column, bits) for column in packed["qweight"].T.tolist()],
        [[stream_value(row, place, bits) + one for row in zeros] for place in range(out)],
    )


def vllm_problem(settings: Settings, on_cpu: bool) -> str | None:
    if lacking := other_programs.vllm_lacks_bits(settings, VLLM_BITS, on_cpu):
        return lacking
    if not settings.symmetric:
        return "read GPTQ with zero points; use zero_point: false, or format compressed-tensors"
    return other_programs.vllm_lacks_order(settings)


def loading(settings: Settings, dtype: str) -> list[str]:
    hindrance = other_programs.vllm_hindrance(settings)
    if hindrance is None and not settings.symmetric:
        hindrance = "which reads the GPTQ format on a symmetric grid only"
    return [
        other_programs.transformers_text("gptqmodel, optimum and torchvision:", dtype),
        other_programs.vllm_text(settings, dtype, hindrance),
    ]
