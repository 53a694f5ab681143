"""AutoAWQ's GEMM format; `packed.packing` says how its tensors are laid out.

Its version GEMV is read, too (AutoAWQ, `awq/modules/linear/gemv.py`), in 4 bits:

    qweight  int32   [out, in / 8], eight neighbouring inputs to a word, the first lowest
    qzeros   int32   [out, words], groups likewise; more words than groups need, see `gemv_words`
    scales   float16 [out, 8 · words], those behind the groups unused
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from radquant.errors import UserError
from radquant.packed.formats import other_programs
from radquant.packed.formats.kind import (
    WORD,
    WORDS,
    Settings,
    Stored,
    Table,
    groups_of,
    lacks_order_of_activation,
    lacks_progressive_scales,
    names_of,
    refuse_unapplied,
    whole,
    words_for,
)
from radquant.settings.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor

    from radquant.packed.grid import QuantizedWeight

NAME = "gemm"
METHOD = "awq"
BITS: tuple[int, ...] = (4, 8)
TYPES: tuple[str, ...] = ("int",)
VALUES = False
SUFFIXES: tuple[str, ...] = ("qweight", "qzeros", "scales")
APPLIED = frozenset(
    {"quant_method", "bits", "w_bit", "group_size", "q_group_size", "zero_point", "version"}
    | {"checkpoint_format", "format", "pack_dtype", "modules_to_not_convert", "lm_head"}
)
# Keys of other programs that say how the weights were found, and how to run them.
SAID_OF_MAKING = frozenset(
    {"method", "sym", "meta", "quantizer", "damp_percent", "static_groups", "true_sequential"}
    | {"do_fuse", "modules_to_fuse", "fuse_max_seq_len", "exllama_config", "backend"}
)
GEMM, GEMV = "gemm", "gemv"
GEMV_BITS = 4
READ_BY_OTHERS = (4,)  # the bits that AWQ's layers of vLLM and GPTQModel hold


def problem(recipe: Recipe) -> str | None:
    return lacks_progressive_scales(NAME, recipe) or lacks_order_of_activation(NAME, recipe)


def usual_for(recipe: Recipe) -> bool:
    return not recipe.progressive and recipe.method in ("awq", "rtn") and recipe.bits in BITS


def config(recipe: Recipe, left_out: Sequence[str]) -> dict[str, Any]:
    """What AutoAWQ writes. Zeros are stored on a symmetric grid, too, so there always are some."""
    return {
        "quant_method": METHOD,
        "bits": recipe.bits,
        "group_size": recipe.group_size,
        "zero_point": True,
        "version": "gemm",
        "modules_to_not_convert": list(left_out),
    }


def pack(weight: QuantizedWeight, recipe: Recipe) -> dict[str, Tensor]:
    from radquant.packed import packing

    return packing.pack(weight, recipe.bits)


def recognises(config: Mapping[str, Any]) -> bool:
    return config.get("quant_method") == METHOD


def read_config(config: Mapping[str, Any]) -> Settings:
    keys = ("version", "checkpoint_format", "format")
    versions = {str(config[key]).lower() for key in keys if config.get(key)} or {GEMM}
    for version in sorted(versions):
        if version not in (GEMM, GEMV):
            raise UserError(
                f"AWQ checkpoints in version {version!r} cannot be read; 'gemm' and 'gemv' can"
            )
    if len(versions) > 1:
        raise UserError("quantization_config names two versions, gemm and gemv; fetch it again")
    if config.get("pack_dtype", "int32") != "int32":
        raise UserError(f"AWQ checkpoints with {config['pack_dtype']} words cannot be read")
    refuse_unapplied(config, APPLIED | SAID_OF_MAKING)
    bits = whole(config, "bits", "w_bit")
    if GEMV in versions and bits != GEMV_BITS:
        raise UserError(f"AWQ checkpoints in version 'gemv' have 4 bits, and this one says {bits}")
    return Settings(
        NAME,
        bits,
        whole(config, "group_size", "q_group_size"),
        symmetric=config.get("zero_point") is False,
        left_out=tuple(
            f".*{re.escape(name)}" for name in names_of(config, "modules_to_not_convert")
        ),
        packs_head=config.get("lm_head") is True,
        layout=GEMV if GEMV in versions else "",
    )


def layer_tensors(settings: Settings, inputs: int, outputs: int) -> dict[str, Stored]:
    groups, words = groups_of(settings, inputs), words_for(outputs, settings.bits)
    if settings.layout:
        width = gemv_words(groups, settings.group_size)
        return {
            "qweight": Stored((outputs, words_for(inputs, settings.bits)), dtypes=WORDS),
            "qzeros": Stored((outputs, width), dtypes=WORDS),
            "scales": Stored((outputs, width * WORD // settings.bits), floating=True),
        }
    return {
        "qweight": Stored((inputs, words), dtypes=WORDS),
        "qzeros": Stored((groups, words), dtypes=WORDS),
        "scales": Stored((groups, outputs), floating=True),
    }


def gemv_words(groups: int, group_size: int) -> int:
    """Words of a row's zeros: a multiple of 2 or 4 where groups are smaller than 128."""
    several = {64: 2, 32: 4}.get(group_size, 1)
    return -(-words_for(groups, GEMV_BITS) // several) * several


def unpack(tensors: dict[str, Tensor], settings: Settings) -> QuantizedWeight:
    from radquant.packed import packing
    from radquant.packed.grid import QuantizedWeight

    if not settings.layout:
        return packing.unpack(tensors, settings.bits)
    bits = settings.bits
    inputs = tensors["qweight"].shape[1] * WORD // bits
    groups = groups_of(settings, inputs)
    return QuantizedWeight(
        packing.unpack_bits(tensors["qweight"], bits, inputs),
        tensors["scales"][:, :groups].contiguous(),
        packing.unpack_bits(tensors["qzeros"], bits, groups),
    )


def in_memory(tensors: dict[str, Tensor], settings: Settings) -> dict[str, Tensor]:
    """As they are: memory's form is this one, unless they are of version GEMV."""
    if not settings.layout:
        return tensors
    from radquant.packed.in_memory import packed_tensors

    return packed_tensors(unpack(tensors, settings), settings.bits)


def plain_values(packed: dict[str, Tensor], recipe: Recipe) -> tuple[Table, Table]:
    bits, out = recipe.bits, packed["scales"].shape[1]
    rows, zeros = packed["qweight"].tolist(), packed["qzeros"].tolist()
    return (
        [[value_at(row, place, bits) for row in rows] for place in range(out)],
        [[value_at(row, place, bits) for row in zeros] for place in range(out)],
    )


def value_at(words: list[int], place: int, bits: int) -> int:
    """Value `place` of a row: a word holds its even places first, then its odd ones."""
    per_word = WORD // bits
    word, within = divmod(place, per_word)
    field = within // 2 + (within % 2) * (per_word // 2)
    return ((words[word] & 0xFFFFFFFF) >> (field * bits)) & (2**bits - 1)


def vllm_problem(settings: Settings, on_cpu: bool) -> str | None:
    if settings.layout:
        return "read AWQ's version gemv; it can gemm"
    return other_programs.vllm_lacks_bits(settings, READ_BY_OTHERS, on_cpu)


def loading(settings: Settings, dtype: str) -> list[str]:
    return [transformers_text(settings, dtype), vllm_text(settings, dtype)]


def transformers_text(settings: Settings, dtype: str) -> str:
    if settings.bits not in READ_BY_OTHERS:
        gptqmodel = other_programs.GPTQMODEL
        return f"transformers: not with {gptqmodel}, whose AWQ layers hold 4 bits only."
    caution = (
        f" On a GPU {other_programs.TRANSFORMERS} turns AWQ models to float16, which this one does "
        "not bear: use vLLM there."
    )
    beside = f"gptqmodel, accelerate and torchvision.{caution * (dtype != 'float16')}"
    return other_programs.transformers_text(beside, dtype)


def vllm_text(settings: Settings, dtype: str) -> str:
    hindrance = None
    if settings.bits not in READ_BY_OTHERS:
        hindrance = "which reads AWQ's format in 4 bits only"
    return other_programs.vllm_text(settings, dtype, hindrance)
