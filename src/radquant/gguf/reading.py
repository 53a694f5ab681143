"""GGUF files of language models: what they hold, and the exact values that their blocks stand for.

The blocks are taken apart by llama.cpp's own Python package (gguf.quants). Its values are those of
llama.cpp's C code to the bit, and `tests/test_gguf_reading.py` compares the two.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from radquant.errors import UserError
from radquant.gguf.names import ARCHITECTURES, adds_one, rotary_heads, row_order, to_hugging_face
from radquant.gguf_header import check_model

FREQUENCIES = "rope_freqs.weight"  # divisors of rotary frequencies, a table that configs compute
IMAGES = ("v.", "mm.")  # before names of the part that sees images, in files of Ollama's own
FLOAT_TYPES = ("F32", "F16", "BF16", "F64")
WHOLE_FLOATS = {"F32": "<f4", "F64": "<f8"}  # of which NumPy has the type
ROWS = 4096  # that are taken apart at a time: the table of a large vocabulary takes gigabytes
ALL = slice(None)


@dataclass(frozen=True)
class GGUFTensor:
    name: str  # in the file
    shape: tuple[int, ...]  # as Hugging Face has it: [out, in] of a linear layer
    type: str  # "Q4_K", "F32" …
    begin: int  # in bytes, in the file


@dataclass(frozen=True)
class GGUFModel:
    """A GGUF file of a language model of a known architecture; its header is read and checked."""

    path: Path
    architecture: str  # "llama" …
    keys: dict[str, Any]  # plain values, and arrays as lists (texts in them as bytes)
    tensors: dict[str, GGUFTensor]

    def key(self, name: str, default: Any = None) -> Any:
        """The value of one of the architecture's own keys, such as `block_count`."""
        return self.keys.get(f"{self.architecture}.{name}", default)

    def hugging_face_names(self) -> dict[str, str]:
        """{GGUF name: name in the language model alone} of all tensors but the frequencies.

        Raises UserError for a tensor that the architecture does not have.
        """
        names = {}
        for stored in self.tensors:
            if stored == FREQUENCIES:
                continue
            name = to_hugging_face(stored, self.architecture)
            if name is None and stored.startswith(IMAGES):
                raise UserError(
                    f"{self.path} also holds the part that sees images ({stored}), which is not "
                    "read from GGUF here; take a file of the language model alone"
                )
            if name is None:
                raise UserError(
                    f"{self.path} has a tensor {stored}, which is not known for the architecture "
                    f"{self.architecture}; take a file of the same model as the original"
                )
            names[stored] = name
        return names


def read_model(path: Path) -> GGUFModel:
    """Read and check the header of a GGUF file.

    Raises UserError for a file that is none, is damaged or cut off, or is one of several parts. It
    also does for an unknown architecture or type of numbers.
    """
    from gguf import GGMLQuantizationType
    from gguf.quants import _type_traits

    header = check_model(path, arrays=True)
    architecture = str(header.values["general.architecture"])
    if architecture not in set(ARCHITECTURES.values()):
        raise UserError(
            f"{path} has the architecture {architecture}, which is not known here; known are "
            f"{', '.join(dict.fromkeys(ARCHITECTURES.values()))}"
        )
    tensors = {}
    for name, (shape, kind, offset) in header.tensors.items():
        number = GGMLQuantizationType(kind)
        if number.name not in FLOAT_TYPES and number not in _type_traits:
            raise UserError(
                f"{path}: the tensor {name} has the type {number.name}, which cannot be read "
                "exactly here; take a file of another type, such as Q4_K_M"
            )
        begin = header.data + offset
        tensors[name] = GGUFTensor(name, tuple(reversed(shape)), number.name, begin)
    return GGUFModel(path, architecture, {**header.values, **(header.arrays or {})}, tensors)


def row_slices(tensor: GGUFTensor) -> Iterator[slice]:
    """All rows of a matrix, ROWS at a time; a vector is one piece."""
    if len(tensor.shape) < 2:
        yield ALL
        return
    for begin in range(0, tensor.shape[0], ROWS):
        yield slice(begin, min(begin + ROWS, tensor.shape[0]))


def stored_values(model: GGUFModel, tensor: GGUFTensor, rows: slice = ALL) -> np.ndarray:
    """The values of a tensor in the order of the file, float32, [out, in] or [channels].

    rows: of a matrix, those to read; the file's bytes are read and not mapped, since mapped ones
    count as the process's memory.
    """
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize

    kind = GGMLQuantizationType[tensor.type]
    block, size = GGML_QUANT_SIZES[kind]
    count, columns = int(np.prod(tensor.shape[:-1], dtype=np.int64)), tensor.shape[-1]
    width = columns // block * size
    begin, end, _ = rows.indices(count)
    values = np.empty((end - begin, columns), dtype=np.float32)
    for start in range(begin, end, ROWS):
        stop = min(start + ROWS, end)
        place = tensor.begin + start * width
        raw = np.fromfile(model.path, np.uint8, (stop - start) * width, offset=place)
        raw = raw.reshape(stop - start, width)
        with np.errstate(all="ignore"):  # infinities are reported with the tensor's name
            if tensor.type in WHOLE_FLOATS:
                part = raw.view(WHOLE_FLOATS[tensor.type])
            else:
                part = dequantize(raw, kind)
            values[start - begin : stop - begin] = part
    return values.reshape(tensor.shape) if rows == ALL else values


def hugging_face_values(
    model: GGUFModel, tensor: GGUFTensor, heads: int, key_heads: int, rows: slice = ALL
) -> np.ndarray:
    """The values of a tensor as Hugging Face's model has them, float32.

    heads, key_heads: the model's numbers of attention and key-value heads. rows: of a matrix, those
    of Hugging Face's model to give. Raises UserError for values that are no numbers.
    """
    divided = rotary_heads(tensor.name, model.architecture, heads, key_heads)
    if divided is None:
        values = stored_values(model, tensor, rows)
    else:
        values = stored_values(model, tensor)
        values = values[np.argsort(row_order(len(values), divided))[rows]]
    # The least and the largest value are NaN if one value is. So they tell, without the memory of a
    # mask.
    if not np.isfinite([values.min(initial=0), values.max(initial=0)]).all():
        raise UserError(
            f"{model.path}: the tensor {tensor.name} holds values that are no finite numbers; "
            "fetch the file again, or take another"
        )
    return values - np.float32(1) if adds_one(tensor.name, model.architecture) else values
