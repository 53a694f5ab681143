"""What a stored format is: the names that its module has, and what they speak of.

A format is one module beside this one and one line of `registry.STORED_FORMATS`. The module says
what the format can hold, how it is announced, written and read, and what other programs make of it.
Nothing else asks for a format by its name. It is imported while a configuration is checked, so it
imports torch, and what needs torch, inside its functions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from radquant.errors import UserError
from radquant.settings.precision import INT, Activations, KVCache
from radquant.settings.recipe import WHOLE_ROW, Recipe, in_order_of_activation

if TYPE_CHECKING:
    from torch import Tensor

    from radquant.packed.grid import QuantizedWeight, StoredValues

HEAD = "lm_head"
WORD = 32  # bits
WORDS = ("int32",)
Table = list[list[int]]


@dataclass(frozen=True)
class Settings:
    """What a checkpoint says about how its linear layers are stored."""

    format: str  # a name of registry.STORED_FORMATS
    bits: int
    group_size: int  # -1: one group for the whole row
    symmetric: bool  # every zero lies in the middle of the range
    zeros_less_one: bool = False  # the first version of the GPTQ format
    in_order_of_activation: bool = False  # groups are no runs of channels: there is an index
    progressive: bool = False  # group scales are whole multiples of an INT8 channel scale
    # Patterns of the names of layers that are not packed, and whether the head is packed.
    left_out: tuple[str, ...] = field(default=(), compare=False)
    packs_head: bool = field(default=False, compare=False)
    packs_all: bool = field(default=True, compare=False)  # of a kind, but for what is left out
    type: str = INT  # a name of registry.NUMBER_TYPES
    layout: str = ""  # in which of a format's ways the tensors lie, in the format's own words
    block: tuple[int, int] | None = None  # [out, in] that share a scale; None: they do by row
    # The rounding of its layers' inputs, and of keys and values, which is applied when it runs.
    activations: Activations | None = None
    kv_cache: KVCache | None = None
    keeps_inputs: bool = False  # of these layers nothing is rounded but weights, of others it is
    # Layers that differ: regular expressions of their names, and their settings. None: they are not
    # packed. The first that matches a name's beginning counts.
    others: tuple[tuple[str, Settings | None], ...] = field(default=(), compare=False)

    @property
    def all_bits(self) -> tuple[int, ...]:
        """The bits that layers have, by their number."""
        others = (settings.bits for _, settings in self.others if settings is not None)
        return tuple(sorted({self.bits, *others}))

    def of(self, layer: str) -> Settings | None:
        """What holds for a layer by its name; None: it is not packed."""
        for pattern, settings in self.others:
            if re.match(pattern, layer):
                return settings
        return self


@dataclass(frozen=True)
class Stored:
    """How one tensor of a packed layer must look."""

    shape: tuple[int, ...] | None  # None: `unpack` finds out
    also: tuple[tuple[int, ...], ...] = ()  # other shapes that say the same
    floating: bool | None = False  # None: either
    optional: bool = False
    dtypes: tuple[str, ...] = ()  # that it may have; any of its sort if none is named
    values: tuple[int, ...] | None = None  # what it must hold; None: that is not known before


class ReadFormat(Protocol):
    """The names of a module for a format that is read and never written, as below."""

    NAME: str  # as in registry.READ_FORMATS
    METHOD: str
    BITS: tuple[int, ...]
    VALUES: bool
    SUFFIXES: tuple[str, ...]
    MARKS: tuple[str, ...]  # a layer without any of these suffixes is none

    def recognises(self, config: Mapping[str, Any]) -> bool: ...

    def read_config(self, config: Mapping[str, Any]) -> Settings: ...

    def layer_tensors(self, settings: Settings, inputs: int, outputs: int) -> dict[str, Stored]: ...

    def unpack(self, tensors: dict[str, Tensor], settings: Settings) -> StoredValues: ...

    def vllm_problem(self, settings: Settings, on_cpu: bool) -> str | None: ...

    def loading(self, settings: Settings, dtype: str) -> list[str]: ...


class StoredFormat(Protocol):
    """The names of a format's module."""

    NAME: str  # as in registry.STORED_FORMATS
    METHOD: str  # `quant_method` in the `quantization_config` of config.json
    BITS: tuple[int, ...]  # of a weight
    TYPES: tuple[str, ...]  # of numbers, names of registry.NUMBER_TYPES
    VALUES: bool  # whether layers lie in memory as the values that `unpack` gives: `in_memory` is
    # not called then
    SUFFIXES: tuple[str, ...]  # of a packed layer's tensors; a layer without the first is none

    def problem(self, recipe: Recipe) -> str | None:
        """Why the format cannot hold a recipe, its bits apart: a sentence, or None if it can."""

    def usual_for(self, recipe: Recipe) -> bool:
        """Whether the recipe is stored so by default. The first line of the registry wins."""

    def config(self, recipe: Recipe, left_out: Sequence[str]) -> dict[str, Any]:
        """The `quantization_config` for config.json. left_out: modules that are not packed."""

    def pack(self, weight: QuantizedWeight, recipe: Recipe) -> dict[str, Tensor]:
        """The tensors of one layer, by suffix; UserError if the format cannot hold its size."""

    def recognises(self, config: Mapping[str, Any]) -> bool:
        """Whether this `quantization_config` is for the format to read, and to refuse."""

    def read_config(self, config: Mapping[str, Any]) -> Settings:
        """What this `quantization_config`, ours or another tool's, says; UserError if unreadable.

        What it says and nothing here applies is an error (`refuse_unapplied`). `settings_of` checks
        the bits and the group size afterwards.
        """

    def layer_tensors(self, settings: Settings, inputs: int, outputs: int) -> dict[str, Stored]:
        """What a packed layer of this size must have, by suffix, in the order of the checks."""

    def unpack(
        self, tensors: dict[str, Tensor], settings: Settings
    ) -> QuantizedWeight | StoredValues:
        """The integers and grid of one layer; the inverse of `pack`.

        Outside of this folder only the exports use more of it than `dequantize`.
        """

    def in_memory(self, tensors: dict[str, Tensor], settings: Settings) -> dict[str, Tensor]:
        """The same weights as `packed.in_memory` describes them."""

    def plain_values(self, packed: dict[str, Tensor], recipe: Recipe) -> tuple[Table, Table]:
        """[out][in] integers and [out][group] zeros, read in plain Python from the definition.

        The self-test compares `pack` with them, so they share no code with it.
        """

    def vllm_problem(self, settings: Settings, on_cpu: bool) -> str | None:
        """Why vLLM cannot read such weights, in words that follow "vLLM cannot …", or None."""

    def loading(self, settings: Settings, dtype: str) -> list[str]:
        """The model card's paragraphs on loading with other programs; none if no other reads it.

        dtype: the one of 16 bits that the model's activations bear.
        """


class MixedFormat(StoredFormat, Protocol):
    """One that says bits layer by layer has another name."""

    def mixed_config(
        self, recipes: Mapping[str, Recipe], left_out: Sequence[str]
    ) -> dict[str, Any]:
        """As `config`, of layers whose recipes differ in bits and groups, by the layers' names."""


def need(config: Mapping[str, Any], *names: str) -> Any:
    """The value of the first of `names` that is there."""
    for name in names:
        if config.get(name) is not None:
            return config[name]
    raise UserError(f"quantization_config has no {names[0]}; the checkpoint is not complete")


def whole(config: Mapping[str, Any], *names: str) -> int:
    """The whole number under the first of `names` that is there."""
    value = need(config, *names)
    try:
        number = None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = None
    if number is None or not number.is_integer():
        raise UserError(f"quantization_config says {names[0]}: {value!r}, which is no whole number")
    return int(number)


def refuse_unapplied(
    config: Mapping[str, Any], known: Collection[str], place: str = "quantization_config"
) -> None:
    """Raise UserError for a key with a value that nothing here knows: it could change the weights
    or what is computed with them.

    known: what is applied, or says only how the weights were made.
    """
    for key, value in config.items():
        if key not in known and value not in (None, False, "", [], {}, ()):
            said = repr(value)
            raise UserError(
                f"{place} says {key}: {said[:60]}{'…' * (len(said) > 60)}, which is not applied "
                "here; take a checkpoint without it, or remove the key if it changes nothing"
            )


def names_of(config: Mapping[str, Any], key: str) -> list[str]:
    """The list of names under `key`; none where there is nothing."""
    found = config.get(key) or []
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise UserError(f"quantization_config says {key}: {found!r}, which is no list of names")
    return found


def lacks_progressive_scales(name: str, recipe: Recipe) -> str | None:
    """The problem of a format that has no progressive scales."""
    if not recipe.progressive:
        return None
    return f"format {name} cannot hold progressive scales; use format qoq, or leave format out"


def lacks_order_of_activation(name: str, recipe: Recipe) -> str | None:
    """The problem of a format that has no index of groups."""
    if not in_order_of_activation(recipe):
        return None
    return (
        f"format {name} cannot hold groups in order of activation; "
        "use format gptq, or leave desc_act out"
    )


def groups_of(settings: Settings, inputs: int) -> int:
    """The groups of a row."""
    return 1 if settings.group_size == WHOLE_ROW else inputs // settings.group_size


def words_for(count: int, bits: int) -> int:
    """The 32-bit words that hold `count` values side by side."""
    return math.ceil(count * bits / WORD)


def field_bits(bits: int) -> int:
    """The bits of a packed layer's fields in memory: 4 or 8."""
    return 4 if bits <= 4 else 8


def stream_value(words: list[int], place: int, bits: int) -> int:
    """Value `place` of a stream of values, lowest bit first, in 32-bit words; in plain Python."""
    stream = sum((word & 0xFFFFFFFF) << (WORD * number) for number, word in enumerate(words))
    return (stream >> (place * bits)) & (2**bits - 1)


def stream_values(words: list[int], bits: int) -> list[int]:
    """All values of such a stream."""
    return [stream_value(words, place, bits) for place in range(len(words) * WORD // bits)]
