"""What happens to activations, KV cache and head at run time."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from radquant.settings.section import Line, Once, OneOf, Section, wrong
from radquant.settings.sentences import made

TENSOR, TOKEN, HEAD, GROUP = "tensor", "token", "head", "group"
# No layer of a model has as many channels.
LARGEST_GROUP = 1_000_000
LEAST_CLIP_RATIO = 0.01
LARGEST_KEPT = 1e6  # larger than any activation
DYNAMIC, STATIC = "dynamic", "static"
ACTIVATION_GRANULARITIES = (TENSOR, TOKEN, GROUP)
INTEGER_BITS = (4, 8)
CACHE_GRANULARITIES = (TOKEN, HEAD, GROUP)
INT, FP8, MXFP4, NVFP4 = "int", "fp8", "mxfp4", "nvfp4"
ROUNDED_TO = (INT, FP8, MXFP4, NVFP4)
LLAMA_CPP = "llama.cpp"
# llama.cpp's own types of keys and values: bits, and whether a block of 32 channels is about 0.
LLAMA_CPP_TYPES: dict[str, tuple[int, bool]] = {
    **{"q8_0": (8, True), "q5_1": (5, False), "q5_0": (5, True)},
    **{"q4_1": (4, False), "q4_0": (4, True), "iq4_nl": (4, True)},
}
# What floating-point types say themselves, of activations and of keys and values.
FIXED_BY_TYPE: dict[str, dict[str, Any]] = {
    FP8: {"bits": 8, "symmetric": True},
    MXFP4: {"bits": 4, "symmetric": True, "granularity": GROUP, "group_size": 32},
    NVFP4: {"bits": 4, "symmetric": True, "granularity": GROUP, "group_size": 16},
    **{
        name: {"bits": bits, "symmetric": symmetric, "granularity": GROUP, "group_size": 32}
        for name, (bits, symmetric) in LLAMA_CPP_TYPES.items()
    },
}


def with_values_of_type(values: Any) -> Any:
    """What a type of numbers fixes need not be said."""
    if not isinstance(values, Mapping) or not isinstance(values.get("type", INT), str):
        return values
    return {**FIXED_BY_TYPE.get(values.get("type", INT), {}), **values}


def check_values_of_type(settings: Any) -> None:
    """Refuse a type of numbers with values that it does not go with."""
    for key, value in FIXED_BY_TYPE.get(settings.type, {}).items():
        if getattr(settings, key) != value:
            raise wrong(
                f": type {settings.type} has {key} {json.dumps(value)}, not "
                f"{json.dumps(getattr(settings, key))}; leave {key} out"
            )


class Activations(Section):
    """Rounding of the input of each quantized linear layer."""

    type: Annotated[str, OneOf(ROUNDED_TO)] = Field(
        INT,
        description="What values are rounded to. fp8 (E4M3), mxfp4 and nvfp4 fix bits and "
        "symmetric, and the two of 4 bits fix the groups",
    )
    bits: Annotated[int, OneOf((4, 8))] = Field(description="Bits of an activation")
    granularity: Annotated[str, OneOf(ACTIVATION_GRANULARITIES)] = Field(
        TOKEN,
        description="What shares a scale: tensor (the tokens of a sequence in one forward call), "
        "token, or group of one token's channels",
    )
    group_size: int = Field(
        64,
        ge=1,
        le=LARGEST_GROUP,
        description="Channels of a group; must divide the width of every rounded layer",
    )
    symmetric: bool = Field(
        True, description="A grid about 0, or one from the least to the largest value"
    )
    range: Annotated[str, OneOf((DYNAMIC, STATIC))] = Field(
        DYNAMIC,
        description="dynamic is the range of the values themselves. static is that of the "
        "calibration set, stored in the checkpoint, which must have the same "
        "activations; not by token",
    )
    clip_ratio: float = Field(
        1.0, gt=0, le=1, description="Share of a dynamic range that is covered"
    )
    keep_from: float | None = Field(
        None,
        gt=0,
        le=LARGEST_KEPT,
        description="For integers by token alone. Values of at least this magnitude stay as they "
        "are and have no part in a range (LLM.int8())",
    )
    skip: Annotated[tuple[Line, ...], Once] = Field(
        (),
        description="Linear layers whose input stays as it is, by the ends of their names "
        "(down_proj)",
    )

    _of_type = model_validator(mode="before")(with_values_of_type)

    @model_validator(mode="after")
    def check_range(self) -> Self:
        check_values_of_type(self)
        if self.type == MXFP4 and self.range == STATIC:
            raise wrong(": type mxfp4 has no static range: a power of two is taken of each group")
        if self.type != INT and self.clip_ratio != 1:
            raise wrong(f": clip_ratio does not go with type {self.type}; leave it out")
        if self.type == FP8 and self.range == STATIC and self.granularity == GROUP:
            raise wrong(": type fp8 has static ranges by tensor; use granularity tensor")
        by_token = self.type == INT and self.granularity == TOKEN
        if self.keep_from is not None and not by_token:
            raise wrong(": keep_from goes with integers by token alone; leave it out")
        if self.range == STATIC and self.granularity == TOKEN:
            raise wrong(
                ": a static range cannot be of a token, which calibration has not seen; "
                "use granularity tensor or group"
            )
        if self.clip_ratio < LEAST_CLIP_RATIO:
            raise wrong(
                f": clip_ratio {self.clip_ratio:g} would cut nearly every value; give at least "
                f"{LEAST_CLIP_RATIO:g}"
            )
        if self.range == STATIC and self.clip_ratio != 1:
            raise wrong(": static ranges are searched; leave clip_ratio out")
        return self


class KVCache(Section):
    """Rounding of keys and values when they enter the cache, each token by itself."""

    type: Annotated[str, OneOf((*ROUNDED_TO, *LLAMA_CPP_TYPES))] = Field(
        INT,
        description="What values are rounded to. fp8 (E4M3), mxfp4 and nvfp4 fix bits and "
        "symmetric, and the two of 4 bits fix the groups. q8_0 to iq4_nl are those of "
        "engine llama.cpp, which has no others, and fix all",
    )
    bits: Annotated[int, OneOf((4, 5, 8))] = Field(description="Bits of a key's or value's channel")
    granularity: Annotated[str, OneOf((TENSOR, *CACHE_GRANULARITIES))] = Field(
        HEAD,
        description="What shares a scale: token (all its heads), head, or group of a head's "
        "channels. For fp8 only, tensor is one fixed scale a layer: the checkpoint's, "
        "or 1",
    )
    group_size: int = Field(
        64,
        ge=1,
        le=LARGEST_GROUP,
        description="Channels of a group; must divide the width of a head",
    )
    symmetric: bool = Field(
        False, description="A grid about 0, or one from the least to the largest value"
    )

    _of_type = model_validator(mode="before")(with_values_of_type)

    @model_validator(mode="after")
    def check_type(self) -> Self:
        check_values_of_type(self)
        if self.type == INT and self.bits not in INTEGER_BITS:
            raise wrong(f": type int has no {self.bits} bits; use 4 or 8")
        if self.granularity == TENSOR and self.type != FP8:
            raise wrong(
                ": granularity tensor, one fixed scale a layer, is for type fp8; use head, token "
                "or group"
            )
        return self


class LMHead(Section):
    """Rounding of the table of the vocabulary when the model is loaded, to nearest.

    It is the head, and the embedding where the model ties them.
    """

    bits: Annotated[int, OneOf((8,))] = Field(
        description="Bits of a weight; 4 cost more than they save"
    )
    group_size: int = Field(
        64,
        ge=8,
        le=LARGEST_GROUP,
        multiple_of=8,
        description="Channels of a token that share a scale; must divide the width of the model",
    )


class Precision(Section):
    """A checkpoint and what happens at run time."""

    checkpoint: str = Field(description="A name under checkpoints, or original")
    engine: Annotated[str | None, OneOf((LLAMA_CPP,), after=(None,))] = Field(
        None,
        description="What computes; compute.engine if null, or llama.cpp, which runs checkpoints "
        "of format gguf alone (docs/engines.md)",
    )
    activations: Activations | None = Field(
        None, description="Rounding of each quantized layer's input at run time"
    )
    kv_cache: KVCache | None = Field(None, description="Rounding of keys and values at run time")
    lm_head: LMHead | None = Field(
        None, description="Rounding of the table of the vocabulary when the model is loaded"
    )

    @model_validator(mode="after")
    def check_engine(self) -> Self:
        """Refuse what only the other engines round, or only llama.cpp does."""
        of_llama_cpp = self.kv_cache is not None and self.kv_cache.type in LLAMA_CPP_TYPES
        if self.engine is None and self.kv_cache is not None and of_llama_cpp:
            raise wrong(
                f": kv_cache type {self.kv_cache.type} is llama.cpp's; give engine: llama.cpp"
            )
        if self.engine is None:
            return self
        if self.kv_cache is not None and not of_llama_cpp:
            raise wrong(
                f": engine llama.cpp has no kv_cache type {self.kv_cache.type}; use one of "
                f"{', '.join(LLAMA_CPP_TYPES)}"
            )
        for key in ("activations", "lm_head"):
            if getattr(self, key) is not None:
                raise wrong(f": engine llama.cpp takes no {key}; leave it out")
        return self


def activations_of(values: Mapping[str, Any] | None) -> Activations | None:
    """The settings in `values`, defaults filled in and checked; None if there are none."""
    return None if values is None else made(Activations, values, "activations")


def kv_cache_of(values: Mapping[str, Any] | None) -> KVCache | None:
    """The settings in `values`, defaults filled in and checked; None if there are none."""
    return None if values is None else made(KVCache, values, "kv_cache")


def lm_head_of(values: Mapping[str, Any] | None) -> LMHead | None:
    """The settings in `values`, defaults filled in and checked; None if there are none."""
    return None if values is None else made(LMHead, values, "lm_head")


def same_rounding(one: Section | None, other: Section | None) -> bool:
    """Whether both round every value alike: what a granularity does not use makes no difference."""
    return meaning(one) == meaning(other)


def meaning(settings: Section | None) -> dict[str, Any] | None:
    """The values of settings that have an effect; equal for those that round alike."""
    values = as_values(settings)
    if values is None:
        return None
    if values.get("granularity", GROUP) != GROUP:
        del values["group_size"]
    if "skip" in values:  # in which order layers are skipped is no matter
        values["skip"] = sorted(values["skip"])
    return values


def as_values(settings: Section | None) -> dict[str, Any] | None:
    """Settings as plain values for JSON; None for none."""
    return None if settings is None else settings.model_dump(mode="json")
