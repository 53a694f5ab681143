"""Quantize a GGUF file with llama.cpp's own quantizer; runs in the environment of llama-cpp.txt."""

import argparse
import ctypes
import struct
import sys
from pathlib import Path

from radquant.llama_cpp import Importance, open_library

# `enum llama_ftype`
FILE_TYPES = {"Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q4_K_S": 14, "Q4_K_M": 15, "Q6_K": 18}


def read_importance(path: Path) -> dict[bytes, list[float]]:
    """The weights of input channels by the names of tensors, from the form before GGUF's."""
    data, found, place = path.read_bytes(), {}, 4
    for _ in range(struct.unpack_from("<i", data)[0]):
        (length,) = struct.unpack_from("<i", data, place)
        name = data[place + 4 : place + 4 + length]
        calls, count = struct.unpack_from("<ii", data, place + 4 + length)
        place += 12 + length
        found[name] = [value / calls for value in struct.unpack_from(f"<{count}f", data, place)]
        place += 4 * count
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--type", choices=FILE_TYPES, required=True)
    parser.add_argument("--importance", type=Path, help="as scripts/importance_matrix.py writes it")
    parser.add_argument("--pure", action="store_true", help="one type for all layers")
    args = parser.parse_args()
    library = open_library()
    params = library.functions.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.pure = FILE_TYPES[args.type], 1, args.pure
    kept = []
    if args.importance:
        for name, values in read_importance(args.importance).items():
            array = (ctypes.c_float * len(values))(*values)
            kept.append(Importance(name, array, len(values)))
        entries = (Importance * (len(kept) + 1))(*kept)  # the last has no name
        params.imatrix = ctypes.cast(entries, ctypes.c_void_p)
    names = [str(path).encode() for path in (args.input, args.output)]
    if library.functions.llama_model_quantize(*names, ctypes.byref(params)):
        sys.exit(f"error: {library.last_error()}")


if __name__ == "__main__":
    main()
