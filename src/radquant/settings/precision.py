"""What happens to activations and KV cache at run time: values, defaults, what excludes what.

Nothing here needs PyTorch, so that a configuration is checked before anything heavy is imported.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from radquant.errors import UserError

RUNTIME_BITS = (4, 8)
TENSOR, TOKEN, HEAD, GROUP = "tensor", "token", "head", "group"
DYNAMIC, STATIC = "dynamic", "static"
ACTIVATION_GRANULARITIES = (TENSOR, TOKEN, GROUP)
CACHE_GRANULARITIES = (TOKEN, HEAD, GROUP)


@dataclass(frozen=True)
class Activations:
    """How the input of each packed linear layer is rounded."""

    bits: int
    granularity: str = TOKEN  # what shares a scale: "tensor" (a sequence), "token", "group" of one
    group_size: int = 64  # channels of a "group"
    symmetric: bool = True
    range: str = DYNAMIC  # "static": ranges of the calibration set, stored in the checkpoint
    clip_ratio: float = 1.0  # share of a dynamic range that is covered
    skip: tuple[str, ...] = ()  # linear layers whose input stays as it is: ends of their names


@dataclass(frozen=True)
class KVCache:
    """How keys and values are rounded when they enter the cache; each token by itself."""

    bits: int
    granularity: str = HEAD  # what shares a scale: a "token", a "head" of it, a "group" of a head
    group_size: int = 64  # channels of a "group"
    symmetric: bool = False


@dataclass(frozen=True)
class LMHead:
    """How the table of the vocabulary is rounded: to nearest, when the model is loaded."""

    bits: int  # 8
    group_size: int = 64  # channels of a token that share a scale


def activations_of(values: Mapping[str, Any] | None) -> Activations | None:
    """The settings in `values`, defaults filled in and checked; None if there are none."""
    if values is None:
        return None
    check_names(values, Activations, "activations")
    settings = Activations(**{**values, "skip": tuple(values.get("skip", ()))})
    check_choice("activations", settings, "granularity", ACTIVATION_GRANULARITIES)
    check_choice("activations", settings, "range", (DYNAMIC, STATIC))
    if settings.range == STATIC and settings.granularity == TOKEN:
        raise UserError(
            "activations: a static range cannot be of a token, which calibration has not seen; "
            "use granularity tensor or group"
        )
    if not 0 < settings.clip_ratio <= 1:
        raise UserError(f"activations: clip_ratio {settings.clip_ratio} is not within 0 and 1")
    if settings.range == STATIC and settings.clip_ratio != 1:
        raise UserError("activations: static ranges are searched; leave clip_ratio out")
    return settings


def kv_cache_of(values: Mapping[str, Any] | None) -> KVCache | None:
    """The settings in `values`, defaults filled in and checked; None if there are none."""
    if values is None:
        return None
    check_names(values, KVCache, "kv_cache")
    settings = KVCache(**values)
    check_choice("kv_cache", settings, "granularity", CACHE_GRANULARITIES)
    return settings


def lm_head_of(values: Mapping[str, Any] | None) -> LMHead | None:
    """The settings in `values`, defaults filled in and checked; None if there are none."""
    if values is None:
        return None
    check_names(values, LMHead, "lm_head")
    settings = LMHead(**values)
    if settings.bits != 8:
        raise UserError("lm_head: bits must be 8; 4 cost more than they save")
    return settings


def same_rounding(
    one: Activations | KVCache | LMHead | None, other: Activations | KVCache | LMHead | None
) -> bool:
    """Whether both round every value alike: what a granularity does not use makes no difference."""
    return meaning(one) == meaning(other)


def meaning(settings: Activations | KVCache | LMHead | None) -> dict[str, Any] | None:
    """The values of settings that have an effect; equal for those that round alike."""
    values = as_values(settings)
    if values is None:
        return None
    if values.get("granularity", GROUP) != GROUP:
        del values["group_size"]
    if "skip" in values:  # in which order layers are skipped is no matter
        values["skip"] = sorted(set(values["skip"]))
    return values


def check_names(values: Mapping[str, Any], kind: type, where: str) -> None:
    known = [field.name for field in fields(kind)]
    unknown = [name for name in values if name not in known]
    if unknown:
        raise UserError(f"{where}: {unknown[0]!r} is unknown; the keys are {', '.join(known)}")
    if values.get("bits") not in RUNTIME_BITS:
        raise UserError(f"{where}: bits must be one of {RUNTIME_BITS}, not {values.get('bits')!r}")
    size = values.get("group_size", 1)
    if not isinstance(size, int) or size < 1:
        raise UserError(f"{where}: group_size must be a number of channels, not {size!r}")


def check_choice(where: str, settings: Any, name: str, known: tuple[str, ...]) -> None:
    value = getattr(settings, name)
    if value not in known:
        raise UserError(f"{where}: {name} {value!r} is unknown; use one of {', '.join(known)}")


def options_of(
    activations: str | None, kv_cache: str | None, lm_head: str | None
) -> tuple[Activations | None, KVCache | None, LMHead | None]:
    """What a script is told by --activations, --kv-cache and --lm-head, each a JSON object."""
    return (
        activations_of(from_json(activations)),
        kv_cache_of(from_json(kv_cache)),
        lm_head_of(from_json(lm_head)),
    )


def from_json(text: str | None) -> Any:
    """An option's value, which is a JSON object; None for none."""
    if text is None:
        return None
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UserError(f'{text!r} is not a JSON object such as {{"bits": 8}}')
    return found


def as_values(settings: Any) -> dict[str, Any] | None:
    """Settings as plain values for JSON; None for none."""
    if settings is None:
        return None
    values = asdict(settings)
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}
