"""GGUF, the format of llama.cpp and of what is built on it (Ollama, LM Studio).

A layer is kept as its rows' blocks (`packed.gguf_blocks`) under its type's name. From there it goes
into one file with the rest of the model (`gguf.quantized`). A directory with such a file is read as
a whole (`checkpoints.gguf_model`), whoever wrote it: each of its tensors says its type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from radquant.errors import UserError
from radquant.packed.formats.kind import Settings, Stored, Table, refuse_unapplied
from radquant.settings.recipe import HADAMARD, NONE, Recipe, fixed_by_type

if TYPE_CHECKING:
    from torch import Tensor

    from radquant.packed.grid import QuantizedWeight

NAME = "gguf"
METHOD = "gguf"
FILE = "model.gguf"
BITS: tuple[int, ...] = (4, 5, 6, 8)
TYPES: tuple[str, ...] = ("q4_0", "q4_1", "q5_0", "q8_0", "q4_k", "q6_k")
VALUES = True
SUFFIXES: tuple[str, ...] = TYPES
ANY_TYPE = "q8_0"  # of a file that does not say which of its types is the usual one


def problem(recipe: Recipe) -> str | None:
    """A file holds what llama.cpp computes: no rotation of inputs, and no prefix of its own."""
    for given, key in (
        (recipe.transform == HADAMARD, "transform hadamard, which rotates inputs at run time"),
        (recipe.prefix != NONE, "a prefix, whose keys and values it has no place for"),
        (recipe.activations is not None, "activations; llama.cpp rounds its inputs itself"),
    ):
        if given:
            return f"format {NAME} cannot hold {key}; leave it out"
    return None


def usual_for(recipe: Recipe) -> bool:
    return recipe.type in TYPES


def config(recipe: Recipe, left_out: Sequence[str]) -> dict[str, Any]:
    return {"quant_method": METHOD, "file": FILE, "type": recipe.type}


def pack(weight: QuantizedWeight, recipe: Recipe) -> dict[str, Tensor]:
    from radquant.packed.gguf_blocks import encode

    return {weight.type: encode(weight)}


def recognises(config: Mapping[str, Any]) -> bool:
    return config.get("quant_method") == METHOD


def read_config(config: Mapping[str, Any]) -> Settings:
    refuse_unapplied(config, ("quant_method", "file", "type"))
    kind = config.get("type", ANY_TYPE)
    if kind not in TYPES:
        raise UserError(f"quantization_config says type {kind!r}, which format {NAME} has not")
    said = fixed_by_type(kind)
    return Settings(
        NAME, said["bits"], said["group_size"], symmetric=not said["zero_point"], type=kind
    )


def layer_tensors(settings: Settings, inputs: int, outputs: int) -> dict[str, Stored]:
    from radquant.packed.gguf_blocks import LAYOUTS

    layout = LAYOUTS[settings.type]
    width = inputs // layout.weights * layout.bytes
    return {settings.type: Stored((outputs, width), dtypes=("uint8",))}


def unpack(tensors: dict[str, Tensor], settings: Settings) -> QuantizedWeight:
    from radquant.packed.gguf_blocks import decode

    ((kind, blocks),) = tensors.items()
    return decode(blocks, kind)


def in_memory(tensors: dict[str, Tensor], settings: Settings) -> dict[str, Tensor]:
    raise ValueError("layers of this format lie in memory as values")


def plain_values(packed: dict[str, Tensor], recipe: Recipe) -> tuple[Table, Table]:
    """Not asked for: the self-test has recipes of integers, and the tests llama.cpp's package."""
    raise ValueError("the blocks of GGUF files are held against the package gguf")


def vllm_problem(settings: Settings, on_cpu: bool) -> str | None:
    return f"be given format {NAME} here; use engine llama.cpp"


def loading(settings: Settings, dtype: str) -> list[str]:
    example = f"\n\n```sh\nllama-cli -m DIRECTORY/{FILE}\n```"
    return [
        f"llama.cpp, and what is built on it:{example}",
        f"Ollama: a Modelfile with the line `FROM ./{FILE}`, and `ollama create NAME`.",
    ]
