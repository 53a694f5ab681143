"""What is known of a model, by the `model_type` in its config.json; nothing here needs PyTorch."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from radquant import registry
from radquant.errors import UserError
from radquant.families.kind import Family

NOTHING_KNOWN = Family()


def family_of(model_type: str | None) -> Family:
    """What is known of models of this type: nothing of a type that is not in the registry."""
    if model_type not in registry.MODEL_FAMILIES:
        return NOTHING_KNOWN
    family: Family = registry.load_kind(registry.MODEL_FAMILIES, model_type).FAMILY
    return family


def model_types(wanted: Callable[[Family], bool]) -> list[str]:
    """The known model types whose family is `wanted`, in the registry's order."""
    return [name for name in registry.MODEL_FAMILIES if wanted(family_of(name))]


def classes_for(layout: str) -> tuple[str, ...]:
    """The model classes that the server of an export `layout` can be given."""
    families = [family_of(name).layouts.get(layout, ()) for name in registry.MODEL_FAMILIES]
    # Model types that share a module name their classes once each.
    return tuple(dict.fromkeys(name for classes in families for name in classes))


def overflowing_type(config: Mapping[str, Any]) -> str | None:
    """The model type whose activations overflow float16: the model's, or its text model's.

    config: the content of config.json. None if no such type is known.
    """
    inner = config.get("text_config")
    found = [config.get("model_type"), inner.get("model_type") if inner else None]
    return min((str(kind) for kind in found if family_of(kind).overflows_float16), default=None)


def sixteen_bit_dtype(config: Mapping[str, Any]) -> str:
    """The 16-bit dtype to compute in: "float16", or "bfloat16" for what overflows in it."""
    return "float16" if overflowing_type(config) is None else "bfloat16"


def check_dtype(directory: Path, config: Mapping[str, Any], dtype: str) -> None:
    """Raise UserError if the model in `directory`, of this `config`, overflows in `dtype`."""
    kind = overflowing_type(config)
    if dtype == "float16" and kind is not None:
        raise UserError(f"{directory}: a model of type {kind} overflows in float16; use bfloat16")
