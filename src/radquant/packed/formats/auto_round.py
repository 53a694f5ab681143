"""Checkpoints of auto-round (`quant_method: auto-round`): GPTQ's or AWQ's tensors under another
name. Read, never written.

`packing_format` names whose tensors they are: `auto_round:auto_gptq` (GPTQ's first version),
`auto_round:auto_awq` (AWQ's GEMM), else auto-round's own, which is GPTQ's with zeros as they are.
`extra_config` has what differs, by the name of a layer or a pattern; 16 bits are not quantized.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from radquant.errors import UserError
from radquant.packed.formats import gemm, gptq
from radquant.packed.formats.kind import Settings, refuse_unapplied, whole

NAME = "auto-round"
METHOD = "auto-round"
BITS: tuple[int, ...] = gptq.BITS
VALUES = False
MARKS: tuple[str, ...] = ("qweight",)
SUFFIXES: tuple[str, ...] = gptq.SUFFIXES
WIDE = 16  # bits: not quantized
OWN_PACKINGS = ("auto_round", "auto_round:exllamav2", "auto_round:tritonv2", "auto_round:gptqmodel")
OF_NUMBERS = frozenset({"bits", "group_size", "sym", "data_type"})
OF_INPUTS = frozenset({"act_bits", "act_group_size", "act_sym", "act_dynamic", "act_data_type"})
APPLIED = OF_NUMBERS | {"quant_method", "packing_format", "backend", "extra_config"}
SAID_OF_MAKING = gptq.SAID_OF_MAKING | {
    *(
        "to_quant_block_names",
        "static_attention_granularity",
        "static_kv_granularity",
        "scale_dtype",
    ),
    *(
        "amp",
        "batch_size",
        "gradient_accumulate_steps",
        "low_gpu_mem_usage",
        "enable_minmax_tuning",
    ),
    *("enable_norm_bias_tuning", "train_bs", "super_bits", "super_group_size", "quant_block_list"),
    *("enable_quanted_input", "enable_alg_ext", "supported_types", "seed", "momentum"),
}


def recognises(config: Mapping[str, Any]) -> bool:
    return config.get("quant_method") in (METHOD, "intel/auto-round", "auto_round")


def read_config(config: Mapping[str, Any]) -> Settings:
    refuse_unapplied(config, APPLIED | SAID_OF_MAKING | OF_INPUTS)
    check_numbers(config, "quantization_config")
    form = packing(str(config.get("packing_format") or config.get("backend") or "auto_round"))
    found = read_layer(config, form)
    others: list[tuple[str, Settings | None]] = []
    for name, said in (config.get("extra_config") or {}).items():
        refuse_unapplied(
            said, OF_NUMBERS | OF_INPUTS, f"quantization_config, extra_config, {name},"
        )
        own = None
        if whole({"bits": found.bits, **said}, "bits") < WIDE:
            check_numbers(said, f"quantization_config, extra_config, {name},")
            own = read_layer({**config, **said}, form)
        others.append((pattern_of(name), own))
    return replace(found, others=tuple(others))


def packing(said: str) -> str:
    """Whose tensors they are: gemm, gptq or gptq_v2."""
    if said in OWN_PACKINGS:
        return "gptq_v2"
    known = {"auto_gptq": "gptq", "auto_awq": gemm.NAME, "gptq": "gptq", "awq": gemm.NAME}
    name = said.removeprefix("auto_round:")
    if name not in known:
        raise UserError(
            f"auto-round checkpoints packed as {said!r} cannot be read; those packed as auto_gptq, "
            "auto_awq or auto_round can"
        )
    return known[name]


def check_numbers(said: Mapping[str, Any], place: str) -> None:
    if said.get("data_type", "int") != "int":
        raise UserError(f"{place} says data_type: {said['data_type']!r}, which cannot be read")
    rounded = said.get("act_bits")
    if rounded is not None and whole(said, "act_bits") < WIDE:
        raise UserError(f"{place} says act_bits: {rounded}, which are not applied here")


def read_layer(config: Mapping[str, Any], form: str) -> Settings:
    own = {"bits": config.get("bits"), "group_size": config.get("group_size")}
    symmetric = config.get("sym", True) is not False
    if form == gemm.NAME:
        return gemm.read_config({**own, "zero_point": not symmetric})
    return gptq.read_config({**own, "sym": symmetric, "checkpoint_format": form})


def pattern_of(name: str) -> str:
    """A layer's name, or a pattern that is one by its signs."""
    return name if re.search(r"[\\*+?\[\]()|^$]", name) else f"{re.escape(name)}$"
