"""Importance matrices as llama.cpp's `llama-quantize --imatrix` reads them.

A GGUF file (tools/imatrix/imatrix.cpp since July 2025) has two tensors for each weight: the sums of
its inputs' squares and how many inputs that were. The form before it is a plain list in binary,
which older releases and forks read, and today's too.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from radquant.errors import UserError
from radquant.files import atomic_path

DATASET = "radquant calibration set"


@dataclass(frozen=True)
class Importance:
    """By GGUF's names of weights, the sum over tokens of each input channel's square, [in]."""

    sums: dict[str, np.ndarray]
    tokens: int
    samples: int


def write_importance(found: Importance, output: Path) -> None:
    """Write a matrix: as GGUF to a file that ends in .gguf, in the older form in .dat."""
    if output.suffix == ".gguf":
        write_gguf_form(found, output)
    elif output.suffix == ".dat":
        write_older_form(found, output)
    else:
        raise UserError(f"{output} ends neither in .gguf nor in .dat (for older llama.cpp)")


def write_gguf_form(found: Importance, output: Path) -> None:
    from gguf import GGUFWriter

    with atomic_path(output) as part:
        writer = GGUFWriter(part, "imatrix")
        writer.add_type("imatrix")
        writer.add_array("imatrix.datasets", [DATASET])
        writer.add_uint32("imatrix.chunk_count", found.samples)
        writer.add_uint32("imatrix.chunk_size", max(found.tokens // found.samples, 1))
        for name, sums in found.sums.items():
            writer.add_tensor(f"{name}.in_sum2", sums.astype(np.float32)[None])
            writer.add_tensor(f"{name}.counts", np.full((1, 1), found.tokens, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def write_older_form(found: Importance, output: Path) -> None:
    """Write the plain list.

    It begins with the number of weights. Each weight has its name, a count of calls, and that many
    times its mean squares. The calls again and the data's name end the list.
    """
    with atomic_path(output) as part, open(part, "wb") as file:
        file.write(struct.pack("<i", len(found.sums)))
        for name, sums in found.sums.items():
            bare, calls = name.encode(), found.samples
            values = (sums / found.tokens * calls).astype("<f4")
            file.write(struct.pack("<i", len(bare)) + bare)
            file.write(struct.pack("<ii", calls, len(values)) + values.tobytes())
        bare = DATASET.encode()
        file.write(struct.pack("<ii", found.samples, len(bare)) + bare)
