"""The format `qoq`: weights quantized progressively (see `progressive`). This program's own.

Tensors of a packed linear layer:

    qweight         int32   [out, in / 8]: q, lowest bits first
    group_scales    uint8   [out, in / group_size]: whole numbers, 1 … 16
    group_zeros     uint8   [out, in / group_size]: 0 … 15
    channel_scales  float16 [out]

with weight = (q − group_zero)·group_scale·channel_scale; the product of the first two is always an
INT8 value. QServe's own layout follows from these by reordering (`omniserve`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from radquant.packed.formats.kind import (
    Settings,
    Stored,
    Table,
    groups_of,
    lacks_order_of_activation,
    refuse_unapplied,
    stream_values,
    whole,
    words_for,
)
from radquant.settings.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor

    from radquant.packed.grid import QuantizedWeight

NAME = "qoq"
METHOD = "radquant-qoq"  # a name that no other tool takes for a format of its own
BITS: tuple[int, ...] = (4,)
TYPES: tuple[str, ...] = ("int",)
VALUES = False
SUFFIXES: tuple[str, ...] = ("qweight", "group_scales", "group_zeros", "channel_scales")


def problem(recipe: Recipe) -> str | None:
    if not recipe.progressive:
        return f"format {NAME} holds progressive scales only; set progressive to true"
    return lacks_order_of_activation(NAME, recipe)


def usual_for(recipe: Recipe) -> bool:
    return recipe.progressive


def config(recipe: Recipe, left_out: Sequence[str]) -> dict[str, Any]:
    return {
        "quant_method": METHOD,
        "bits": recipe.bits,
        "group_size": recipe.group_size,
        "modules_to_not_convert": list(left_out),
    }


def pack(weight: QuantizedWeight, recipe: Recipe) -> dict[str, Tensor]:
    """Raises UserError if a weight is no INT8 value, too."""
    from radquant.packed.packing import WORD, pack_bits, require_multiple
    from radquant.packed.progressive_grid import int8_weights

    if weight.channel_scales is None:
        raise ValueError("the weight was not quantized progressively")
    # In memory, eight output channels share a word.
    require_multiple(weight.integers.shape[0], WORD // recipe.bits, "outputs", NAME)
    int8_weights(weight.integers, weight.zeros, weight.scales)
    return {
        "qweight": pack_bits(weight.integers, recipe.bits),
        "group_scales": weight.scales.contiguous(),
        "group_zeros": weight.zeros.contiguous(),
        "channel_scales": weight.channel_scales.contiguous(),
    }


def recognises(config: Mapping[str, Any]) -> bool:
    return config.get("quant_method") == METHOD


def read_config(config: Mapping[str, Any]) -> Settings:
    refuse_unapplied(config, ("quant_method", "bits", "group_size", "modules_to_not_convert"))
    bits, group_size = whole(config, "bits"), whole(config, "group_size")
    return Settings(NAME, bits, group_size, symmetric=False, progressive=True)


def layer_tensors(settings: Settings, inputs: int, outputs: int) -> dict[str, Stored]:
    groups = groups_of(settings, inputs)
    return {
        "qweight": Stored((outputs, words_for(inputs, settings.bits)), dtypes=("int32",)),
        "group_scales": Stored((outputs, groups), dtypes=("uint8",)),
        "group_zeros": Stored((outputs, groups), dtypes=("uint8",)),
        "channel_scales": Stored((outputs,), floating=True),
    }


def unpack(tensors: dict[str, Tensor], settings: Settings) -> QuantizedWeight:
    """Raises UserError if a weight is no INT8 value."""
    from radquant.packed.grid import QuantizedWeight
    from radquant.packed.packing import WORD, unpack_bits
    from radquant.packed.progressive_grid import int8_weights

    inputs = tensors["qweight"].shape[1] * WORD // settings.bits
    integers = unpack_bits(tensors["qweight"], settings.bits, inputs)
    zeros, scales = tensors["group_zeros"], tensors["group_scales"]
    int8_weights(integers, zeros, scales)
    return QuantizedWeight(
        integers,
        scales.contiguous(),
        zeros.contiguous(),
        channel_scales=tensors["channel_scales"].contiguous(),
    )


def in_memory(tensors: dict[str, Tensor], settings: Settings) -> dict[str, Tensor]:
    from radquant.packed.in_memory import packed_tensors

    return packed_tensors(unpack(tensors, settings), settings.bits)


def plain_values(packed: dict[str, Tensor], recipe: Recipe) -> tuple[Table, Table]:
    integers = [stream_values(row, recipe.bits) for row in packed["qweight"].tolist()]
    return integers, packed["group_zeros"].tolist()


def vllm_problem(settings: Settings, on_cpu: bool) -> str | None:
    return f"read format {NAME}; docs/qserve.md says what can"


def loading(settings: Settings, dtype: str) -> list[str]:
    return []
