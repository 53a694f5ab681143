"""The formats of packed checkpoints: what is the same for all of them, and who is asked for what.

Each is a module of this folder; `kind` says which names it has. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from radquant import registry
from radquant.errors import UserError
from radquant.packed.formats.kind import HEAD, MixedFormat, Settings, StoredFormat, field_bits
from radquant.settings.checkpoint import format_name
from radquant.settings.recipe import WHOLE_ROW, Recipe, candidates, mixture

if TYPE_CHECKING:
    from torch import Tensor

    from radquant.packed.grid import QuantizedWeight, StoredValues

__all__ = [
    "HEAD",
    "Settings",
    "StoredFormat",
    "all_formats",
    "check_tensors",
    "config_for",
    "field_bits",
    "format_for",
    "in_memory",
    "marks_of",
    "readable_formats",
    "settings_for",
    "settings_of",
    "stored_format",
    "suffixes_of",
    "unpack",
]


def stored_format(name: str) -> StoredFormat:
    """The format of this name; raises UserError if there is none.

    Of one that is read only, no more is there than `ReadFormat` names.
    """
    if name in registry.READ_FORMATS:
        return cast(StoredFormat, registry.load_kind(registry.READ_FORMATS, name))
    return cast(StoredFormat, registry.load_kind(registry.STORED_FORMATS, name))


def all_formats() -> list[StoredFormat]:
    """Those that are written, too."""
    return [stored_format(name) for name in registry.STORED_FORMATS]


def readable_formats() -> list[StoredFormat]:
    return [*all_formats(), *map(stored_format, registry.READ_FORMATS)]


def format_for(recipe: Recipe, asked: str | None = None) -> StoredFormat:
    """The format to store `recipe` in; raises UserError if it cannot hold the recipe."""
    return stored_format(format_name(recipe, asked))


def settings_of(config: Mapping[str, Any]) -> Settings:
    """Read a `quantization_config`, ours or another tool's.

    Raises UserError if it announces a format that this program does not read.
    """
    form = next((each for each in readable_formats() if each.recognises(config)), None)
    if form is None:
        methods = dict.fromkeys(each.METHOD for each in readable_formats())
        raise UserError(
            f"checkpoints with quant_method {config.get('quant_method')!r} cannot be read; those "
            f"with {', '.join(map(repr, methods))} can"
        )
    try:
        settings = form.read_config(config)
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # a list for a table …
        kind = type(error).__name__
        raise UserError(
            f"its quantization_config for {form.METHOD} is built in a way that is not known "
            f"({kind}); fetch the checkpoint again"
        ) from None
    for bits in settings.all_bits:
        if bits not in stored_format(settings.format).BITS:
            raise UserError(f"{bits}-bit checkpoints in {settings.format} cannot be read")
    if settings.group_size != WHOLE_ROW and settings.group_size < 1:
        raise UserError(f"group_size {settings.group_size} in quantization_config makes no sense")
    return settings


def config_for(
    recipe: Recipe,
    form: StoredFormat,
    left_out: Sequence[str],
    recipes: Mapping[str, Recipe] | None = None,
) -> dict[str, Any]:
    """The `quantization_config` of `recipe` in the format `form`, which holds it.

    left_out: modules that are not packed. recipes: of each linear layer, where they differ.
    """
    if not recipes:
        return form.config(recipe, left_out)
    return cast(MixedFormat, form).mixed_config(recipes, left_out)


def settings_for(recipe: Recipe, form: StoredFormat) -> Settings:
    """What a checkpoint of `recipe` in the format `form` will say: of bits that differ between
    layers, that there may be all of them."""
    recipes = None
    if mixture(recipe) is not None:
        able = candidates(recipe, form.BITS)
        recipes = {f"layers.{number}.linear": each for number, each in enumerate(able)}
    return settings_of(config_for(recipe, form, [], recipes))


def suffixes_of(settings: Settings) -> Sequence[str]:
    """Of a packed layer's tensors."""
    return stored_format(settings.format).SUFFIXES


def marks_of(settings: Settings) -> Sequence[str]:
    """The suffixes of which a packed layer has at least one."""
    form = stored_format(settings.format)
    return getattr(form, "MARKS", form.SUFFIXES[:1])


def check_tensors(
    tensors: Mapping[str, Tensor], settings: Settings, inputs: int, outputs: int
) -> None:
    """Raise UserError unless a packed layer's tensors fit its size and settings."""
    if settings.group_size != WHOLE_ROW and inputs % settings.group_size:
        raise UserError(f"its {inputs} inputs are no multiple of group size {settings.group_size}")
    wanted = stored_format(settings.format).layer_tensors(settings, inputs, outputs)
    for suffix, stored in wanted.items():
        if suffix not in tensors:
            if stored.optional:
                continue
            raise UserError(f"its {suffix} is missing")
        tensor = tensors[suffix]
        dtype = str(tensor.dtype).removeprefix("torch.")
        if stored.shape is not None and tuple(tensor.shape) not in (stored.shape, *stored.also):
            raise UserError(
                f"its {suffix} has shape {list(tensor.shape)}, not {list(stored.shape)}"
            )
        if stored.floating not in (None, tensor.is_floating_point()):
            raise UserError(f"its {suffix} holds {tensor.dtype}")
        if stored.dtypes and dtype not in stored.dtypes:
            raise UserError(f"its {suffix} holds {dtype}, not {stored.dtypes[0]}")
        if stored.values is not None and tensor.tolist() != list(stored.values):
            raise UserError(f"its {suffix} is not {list(stored.values)}")
    if others := sorted(tensors.keys() - wanted.keys()):
        raise UserError(f"it has {others[0]}, which its quantization_config does not speak of")


def unpack(tensors: dict[str, Tensor], settings: Settings) -> QuantizedWeight | StoredValues:
    """The codes and grid of one packed layer, in any format; of some, the values alone."""
    return stored_format(settings.format).unpack(tensors, settings)


def in_memory(tensors: dict[str, Tensor], settings: Settings) -> dict[str, Tensor]:
    """A stored layer's tensors as `packed.in_memory` describes them; the same weights."""
    return stored_format(settings.format).in_memory(tensors, settings)
