"""A quantized language model as one GGUF file: packed layers as they were evaluated, and the rest.

Norms and biases are float32. The embedding, and a head of its own, are rounded to nearest, to Q6_K.
They are rounded to Q8_0 where a row is no multiple of 256 or all else is Q8_0, as llama.cpp's
quantizer does with a head.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from radquant.errors import UserError
from radquant.gguf.names import text_name
from radquant.gguf.tokenizer_keys import tokenizer_keys
from radquant.gguf.writing import (
    EMBEDDING,
    Written,
    float_tensor,
    in_file_order,
    language_tensors,
    model_keys,
    original_config,
    write_gguf,
)
from radquant.model_files import StoredTensor, stored_tensors
from radquant.packed.gguf_blocks import BLOCK, LAYOUTS, encode, recipe_for_width
from radquant.settings.recipe import Recipe

FILE_TYPES = {"q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q4_k": 14, "q6_k": 18}  # llama_ftype
ROWS = 4096  # of an embedding, that are rounded at a time


def write_quantized(
    original: Path, tensors: Mapping[str, StoredTensor], kind: str, output: Path
) -> dict[str, StoredTensor]:
    """Write the language model among `tensors`, by Hugging Face's names, to a GGUF file. Returns
    what does not belong to it (the part that sees images).

    original: the original's directory, with its configuration and tokenizer. tensors: a packed
    layer's blocks bear its type in the place of `weight`. kind: the type of most layers.
    """
    config = original_config(original)
    packed: dict[str, str] = {}
    named: dict[str, StoredTensor] = {}
    for name, tensor in tensors.items():
        layer, _, suffix = name.rpartition(".")
        weight = f"{layer}.weight" if suffix in LAYOUTS else name
        named[weight] = tensor
        if suffix in LAYOUTS:
            packed[weight] = suffix
    written = []
    for name, tensor, own in language_tensors(config, named):
        if name in packed:
            written.append(packed_tensor(config, tensor, own, packed[name]))
        elif len(tensor.shape) == 2:
            written.append(table(tensor, own, "q8_0" if kind == "q8_0" else "q6_k"))
        else:
            written.append(float_tensor(config, name, tensor, own, "F32"))
    write_gguf(original, config, written, FILE_TYPES[kind], output)
    return {name: tensor for name, tensor in tensors.items() if text_name(name) is None}


def require_writable(original: Path) -> None:
    """Raise UserError, before hours of work, unless the model can be written as GGUF.

    What can be wrong is its architecture, what config.json says of it, or its tokenizer.
    """
    config, stored = original_config(original), stored_tensors(original)
    for name, tensor, own in language_tensors(config, stored):
        if own == EMBEDDING:
            model_keys(config, tensor.shape[0])
            tokenizer_keys(original, tensor.shape[0])
        if len(tensor.shape) == 2 and tensor.shape[1] % BLOCK:
            raise UserError(
                f"{name} has rows of {tensor.shape[1]}, which are no multiple of {BLOCK}, as the "
                "blocks of GGUF need; use another format than gguf"
            )


def packed_tensor(config: Any, tensor: StoredTensor, own: str, kind: str) -> Written:
    """A packed layer's blocks, [out, bytes]; its rows go into the file's order."""
    outputs, width = tensor.shape
    inputs = width // LAYOUTS[kind].bytes * LAYOUTS[kind].weights
    return Written(
        own,
        (outputs, inputs),
        gguf_type(kind),
        outputs * width,
        lambda: in_file_order(config, own, tensor.load().numpy()),
    )


def table(tensor: StoredTensor, own: str, kind: str) -> Written:
    """The embedding or the head, [tokens, channels], rounded to nearest."""
    from radquant.packed.grid import quantize

    recipe = recipe_for_width(Recipe(method="rtn", type=kind), tensor.shape[1])
    layout = LAYOUTS[recipe.type]

    def load() -> np.ndarray:
        values = tensor.load()
        parts = [encode(quantize(rows, recipe)).numpy() for rows in values.split(ROWS)]
        return np.concatenate(parts)

    size = tensor.shape[0] * (tensor.shape[1] // layout.weights) * layout.bytes
    return Written(own, tensor.shape, gguf_type(recipe.type), size, load)


def gguf_type(kind: str) -> str:
    """The name in GGUF of a number type: Q4_K of q4_k."""
    return kind.upper()
