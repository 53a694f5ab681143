"""What the header of a GGUF file says, checked against the file before anything believes it.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Readers allocate what its
counts ask for and take tensors from where its offsets point.
"""

import re
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from radquant.errors import UserError

# Formats of `struct` by the number of a value's type.
PLAIN = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
VERSIONS = (2, 3)
MOST_DIMENSIONS = 4
MOST_NESTED = 3
Tensor = tuple[tuple[int, ...], int, int]  # shape (innermost first), type, offset in bytes


@dataclass
class Header:
    """values: those of plain keys, and of arrays their lengths. data: where the tensors begin.

    arrays: what is in arrays, if it was asked for; numbers, or texts as they are stored.
    """

    values: dict[str, int | float | str] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    data: int = 0
    arrays: dict[str, list[Any]] | None = None


class _Reader:
    """A file that is read from its beginning, never past its end."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file, self.path, self.size = file, path, path.stat().st_size

    def wrong(self, what: str) -> UserError:
        return UserError(
            f"{self.path.name} cannot be read as a GGUF language model: {what}; fetch it again, or "
            "name another"
        )

    def left(self) -> int:
        return self.size - self.file.tell()

    def take(self, count: int, what: str) -> bytes:
        if count > self.left():
            raise self.wrong(f"{what} has {count} bytes, and the file ends after {self.left()}")
        return self.file.read(count)

    def skip(self, count: int, what: str) -> None:
        if count > self.left():
            raise self.wrong(f"{what} has {count} bytes, and the file ends after {self.left()}")
        self.file.seek(count, 1)

    def number(self, form: str, what: str) -> int | float:
        value: int | float
        (value,) = struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}"), what))
        return value

    def whole(self, form: str, what: str) -> int:
        return int(self.number(form, what))

    def count(self, least: int, what: str) -> int:
        """A number of things of at least `least` bytes each, which the file has room for."""
        count = self.whole("Q", what)
        if count * least > self.left():
            raise self.wrong(f"{count} {what} do not fit into {self.left()} bytes")
        return count

    def text(self, what: str) -> str:
        data = self.take(self.whole("Q", what), what)
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise self.wrong(f"{what} is not UTF-8") from None


def read_header(path: Path, arrays: bool = False) -> Header:
    """Return what the header of a GGUF file says; raises UserError if it cannot be true.

    arrays: also what is in arrays, such as the vocabulary; but for arrays in arrays.
    """
    with open(path, "rb") as file:
        reader = _Reader(file, path)
        if reader.take(min(4, reader.size), "its mark") != b"GGUF":
            raise reader.wrong("it does not begin with GGUF")
        version = reader.whole("I", "its version")
        if version not in VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS
            raise reader.wrong(
                "it is written for a big-endian machine"
                if swapped
                else f"version {version} is not one of {VERSIONS}"
            )
        tensors = reader.count(24, "tensors")
        keys = reader.count(13, "keys")
        header = Header(arrays={} if arrays else None)
        for _ in range(keys):
            _read_key(reader, header)
        for _ in range(tensors):
            _read_tensor(reader, header)
        _check_places(reader, header)
    return header


def _read_key(reader: _Reader, header: Header) -> None:
    key = reader.text("the name of a key")
    if key in header.values:
        raise reader.wrong(f"the key {key[:100]!r} stands twice")
    kind = reader.whole("I", "the type of a key")
    kept: list[Any] | None = None if header.arrays is None else []
    header.values[key] = _value(reader, kind, f"the key {key[:100]!r}", kept)
    if header.arrays is not None and kind == ARRAY:
        header.arrays[key] = kept or []


def _value(
    reader: _Reader, kind: int, what: str, kept: list[Any] | None, depth: int = 0
) -> int | float | str:
    """The value of a key, or the length of an array. kept: gets what is in it."""
    if kind == STRING:
        return reader.text(what)
    if kind in PLAIN:
        return reader.number(PLAIN[kind], what)
    if kind != ARRAY or depth > MOST_NESTED:
        raise reader.wrong(f"{what} has the unknown type {kind}")
    inner = reader.whole("I", what)
    if inner in PLAIN:
        size = struct.calcsize(f"<{PLAIN[inner]}")
        length = reader.count(size, f"values of {what}")
        if kept is None or depth:
            reader.skip(length * size, what)
        else:
            data = reader.take(length * size, what)
            kept += [value for (value,) in struct.iter_unpack(f"<{PLAIN[inner]}", data)]
        return length
    # A text has at least its length, an array its type, too.
    length = reader.count(8 if inner == STRING else 12, f"values of {what}")
    for _ in range(length):
        if inner == STRING:  # tokens, of which some are parts of characters
            size = reader.whole("Q", what)
            if kept is None or depth:
                reader.skip(size, what)
            else:
                kept.append(reader.take(size, what))
        else:
            _value(reader, inner, what, kept, depth + 1)
    return length


def _read_tensor(reader: _Reader, header: Header) -> None:
    name = reader.text("the name of a tensor")
    what = f"the tensor {name[:100]!r}"
    if name in header.tensors:
        raise reader.wrong(f"{what} stands twice")
    dimensions = reader.whole("I", what)
    if not 1 <= dimensions <= MOST_DIMENSIONS:
        raise reader.wrong(f"{what} has {dimensions} dimensions")
    shape = tuple(reader.whole("Q", what) for _ in range(dimensions))
    header.tensors[name] = (shape, reader.whole("I", what), reader.whole("Q", what))


def _check_places(reader: _Reader, header: Header) -> None:
    """Each tensor lies in the file, and no two in the same place."""
    alignment = header.values.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise reader.wrong(f"general.alignment is {alignment}, which is no power of two")
    header.data = -(-reader.file.tell() // alignment) * alignment
    end = 0
    for name, tensor in sorted(header.tensors.items(), key=lambda item: item[1][2]):
        size, offset = _bytes(reader, name, tensor), tensor[2]
        if offset % alignment or offset < end:
            raise reader.wrong(f"the tensor {name[:100]!r} begins inside another or out of line")
        end = offset + size
        if header.data + end > reader.size:
            raise reader.wrong(f"the tensor {name[:100]!r} ends behind the file's end")


def _bytes(reader: _Reader, name: str, tensor: Tensor) -> int:
    from gguf import GGML_QUANT_SIZES

    shape, kind, _ = tensor
    sizes = {int(each): size for each, size in GGML_QUANT_SIZES.items()}
    if kind not in sizes:
        raise UserError(
            f"{reader.path.name} cannot be read as a GGUF language model: tensor {name[:100]!r} "
            f"has the unknown type {kind}; take one of llama.cpp's own types, such as Q4_K_M"
        )
    block, size = sizes[kind]
    count = 1
    for length in shape:
        count *= length
    if not count or shape[0] % block:
        raise reader.wrong(f"the tensor {name[:100]!r} has the impossible shape {shape}")
    return int(count // block * size)


def check_model(path: Path, arrays: bool = False) -> Header:
    """Return a GGUF file's header; raises UserError unless its sizes are those of its tensors.

    A model is built as large as the keys say, before its tensors are looked at. arrays: see
    `read_header`.
    """
    header = read_header(path, arrays)

    def wrong(what: str) -> UserError:
        return UserError(f"{path.name} cannot be read as a GGUF language model: {what}")

    parts = header.values.get("split.count", 1)
    if parts not in (0, 1):
        raise wrong(f"it is one of {parts} parts; join them with llama-gguf-split --merge")
    architecture = header.values.get("general.architecture")
    if not isinstance(architecture, str):
        raise wrong("it has no key general.architecture; is it a model's file?")
    if "token_embd.weight" not in header.tensors:
        raise wrong("it has no tensor token_embd.weight; is it a model's file, and its first part?")
    table = header.tensors["token_embd.weight"][0]
    layers = {int(found[1]) for name in header.tensors if (found := BLOCK.match(name))}
    expected = {
        f"{architecture}.block_count": len(layers),
        f"{architecture}.embedding_length": table[0],
        "tokenizer.ggml.tokens": table[-1],
    }
    for key, value in expected.items():
        if header.values.get(key) != value:
            raise wrong(
                f"its key {key} says {header.values.get(key, 'nothing')}, its tensors {value}"
            )
    for key, most in MOST.items():
        said = header.values.get(f"{architecture}.{key}", 1)
        if isinstance(said, str) or not 0 <= said <= most:
            raise wrong(f"its key {architecture}.{key} says {said}, and at most {most} is known")
    return header


BLOCK = re.compile(r"blk\.(\d{1,6})\.")
# Many more than any model has; a model is built with tables of these sizes.
MOST = {
    "context_length": 100_000_000,
    "feed_forward_length": 10_000_000,
    "attention.head_count": 100_000,
    "attention.head_count_kv": 100_000,
    "rope.dimension_count": 100_000,
}
