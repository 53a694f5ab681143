"""llama.cpp's own quantizer: the part that runs in its own environment.

    python -m radquant.quantization.llama_cpp_quantizing JOB

JOB is a JSON file. It has `input` and `output` (GGUF files), `file_type` (`enum llama_ftype`),
`threads`, and `importance`. The last is an .npz file with the weights of each tensor's input
channels, or null.
"""

import ctypes
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from radquant import llama_cpp
from radquant.cli import run
from radquant.errors import UserError


def quantize(job: dict[str, Any]) -> None:
    """Write the quantized file; raises UserError if llama.cpp cannot."""
    library = llama_cpp.open_library()
    functions = library.functions
    params = functions.llama_model_quantize_default_params()
    params.nthread, params.ftype = job["threads"], job["file_type"]
    kept = []
    if job["importance"]:
        with np.load(job["importance"], allow_pickle=False) as stored:
            kept = [(name.encode(), np.ascontiguousarray(stored[name])) for name in stored.files]
    matrices = (llama_cpp.Importance * (len(kept) + 1))()  # the last, without a name, ends them
    for place, (name, values) in enumerate(kept):
        data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        matrices[place] = llama_cpp.Importance(name, data, values.size)
    if kept:
        params.imatrix = ctypes.addressof(matrices)
    source, target = job["input"].encode(), job["output"].encode()
    if functions.llama_model_quantize(source, target, ctypes.byref(params)):
        raise UserError(
            f"llama.cpp {llama_cpp.BUILD} cannot quantize this model: {library.error()}"
        )


def main() -> None:
    quantize(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))


if __name__ == "__main__":
    run(main)
