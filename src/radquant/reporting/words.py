"""The settings of transforms and rounding in words, as they stand in records and configurations."""

from collections.abc import Mapping
from typing import Any

from radquant.reporting.formatting import DASH
from radquant.settings.precision import DYNAMIC, GROUP, INT, LLAMA_CPP_TYPES
from radquant.settings.recipe import HADAMARD, NONE, SMOOTH

Settings = Mapping[str, Any]
TRANSFORMS = {SMOOTH: "SmoothQuant", HADAMARD: "Hadamard rotation"}


def activations(settings: Settings | None) -> str:
    """'4 bits, per group of 64, dynamic, asymmetric, clip 0.9, not down_proj'."""
    if settings is None:
        return DASH
    parts = [_numbers(settings), _shared_by(settings), settings["range"], *_form(settings)]
    if settings["range"] == DYNAMIC and settings["clip_ratio"] != 1:
        parts.append(f"clip {settings['clip_ratio']:g}")
    if settings["skip"]:
        parts.append(f"not {' and '.join(settings['skip'])}")
    return ", ".join(parts)


def kv_cache(settings: Settings | None) -> str:
    """'4 bits, per head, asymmetric'."""
    if settings is None:
        return DASH
    if settings.get("type") in LLAMA_CPP_TYPES:
        return f"llama.cpp's {settings['type']}"
    return ", ".join([_numbers(settings), _shared_by(settings), *_form(settings)])


def lm_head(settings: Settings | None) -> str:
    """'8 bits, per group of 64'."""
    if settings is None:
        return DASH
    return f"{settings['bits']} bits, per group of {settings['group_size']}"


def _shared_by(settings: Settings) -> str:
    kind = settings["granularity"]
    return f"per group of {settings['group_size']}" if kind == GROUP else f"per {kind}"


def _numbers(settings: Settings) -> str:
    """'8 bits', or the name of a floating-point type."""
    kind = settings.get("type", INT)
    return f"{settings['bits']} bits" if kind == INT else str(kind).upper()


def _form(settings: Settings) -> list[str]:
    """Of integers; floating-point types are symmetric."""
    if settings.get("type", INT) != INT:
        return []
    return ["symmetric" if settings["symmetric"] else "asymmetric"]


def transform(recipe: Settings) -> str:
    """What was done to the model before rounding: 'Hadamard rotation, SmoothAttention'."""
    kind = recipe.get("transform", NONE)
    parts = [
        *([TRANSFORMS[kind]] if kind != NONE else []),
        *(["SmoothAttention"] if recipe.get("smooth_attention") else []),
    ]
    return ", ".join(parts) or DASH
