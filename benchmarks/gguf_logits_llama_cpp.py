"""Logits of llama.cpp's own libraries for benchmarks/gguf_logits.py, which runs this file.

Runs in an environment with the wheels xllamacpp (llama.cpp itself) and ik-llama-cpp-python (a fork
with other kernels, and with the quantizer as a program). Both hold the C library; it is called as
llama.h of 2026-10 declares it.
"""

import ctypes as c
import importlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

CACHE_TYPES = {"f32": 0, "f16": 1}
ADDRESS = c.c_void_p


class Batch(c.Structure):
    _fields_ = (
        ("n_tokens", c.c_int32),
        ("token", c.POINTER(c.c_int32)),
        ("embd", ADDRESS),
        ("pos", c.POINTER(c.c_int32)),
        ("n_seq_id", c.POINTER(c.c_int32)),
        ("seq_id", c.POINTER(c.POINTER(c.c_int32))),
        ("logits", c.POINTER(c.c_int8)),
    )


class ModelSettings(c.Structure):
    _fields_ = (
        *((name, ADDRESS) for name in ("devices", "buffers")),
        *((name, c.c_int32) for name in ("gpu_layers", "split", "load", "lazy", "main_gpu")),
        *((name, ADDRESS) for name in ("shares", "progress", "progress_data", "overrides")),
        *((name, c.c_bool) for name in ("vocab_only", "check", "repack", "host", "alloc", "mtp")),
    )


class ContextSettings(c.Structure):
    _fields_ = (
        *((name, c.c_uint32) for name in ("n_ctx", "n_batch", "n_ubatch", "n_seq_max", "n_rs")),
        *((name, c.c_uint32) for name in ("outputs", "outputs_each")),
        *((name, c.c_int32) for name in ("n_threads", "n_threads_batch", "kind", "scaling")),
        *((name, c.c_int32) for name in ("pooling", "attention", "flash_attn")),
        *((f"rope_{number}", c.c_float) for number in range(6)),
        ("yarn_ctx", c.c_uint32),
        ("defrag", c.c_float),
        *((name, ADDRESS) for name in ("callback", "callback_data")),
        *((name, c.c_int) for name in ("type_k", "type_v")),
        *((name, ADDRESS) for name in ("abort", "abort_data")),
        *((name, c.c_bool) for name in ("embeddings", "offload", "no_perf", "op_offload")),
        *((name, c.c_bool) for name in ("swa_full", "kv_unified")),
        *((name, ADDRESS) for name in ("samplers", "n_samplers", "other")),
    )


def llama_cpp() -> Any:
    """llama.cpp itself, from the wheel xllamacpp."""
    spec = importlib.util.find_spec("xllamacpp")
    assert spec is not None
    assert spec.origin is not None
    lib = c.CDLL(str(Path(spec.origin).parent / "xllamacpp.abi3.so"), mode=os.RTLD_LAZY)
    for name, result, arguments in (
        ("llama_model_default_params", ModelSettings, ()),
        ("llama_context_default_params", ContextSettings, ()),
        ("llama_model_load_from_file", ADDRESS, (c.c_char_p, ModelSettings)),
        ("llama_init_from_model", ADDRESS, (ADDRESS, ContextSettings)),
        ("llama_model_get_vocab", ADDRESS, (ADDRESS,)),
        ("llama_vocab_n_tokens", c.c_int32, (ADDRESS,)),
        ("llama_batch_init", Batch, (c.c_int32, c.c_int32, c.c_int32)),
        ("llama_decode", c.c_int32, (ADDRESS, Batch)),
        ("llama_get_logits_ith", c.POINTER(c.c_float), (ADDRESS, c.c_int32)),
        ("llama_get_memory", ADDRESS, (ADDRESS,)),
        ("llama_memory_clear", None, (ADDRESS, c.c_bool)),
    ):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


def logits(job: dict[str, Any]) -> None:
    """Write the logits of every token of the job's texts, one array [tokens, vocabulary] a text."""
    fork = job["library"] == "ik"
    lib = importlib.import_module("ik_llama_cpp._ctypes_api") if fork else llama_cpp()
    lib.llama_backend_init()
    settings, context = lib.llama_model_default_params(), lib.llama_context_default_params()
    if not fork:
        settings.gpu_layers, settings.repack = 0, job["repack"]
        context.flash_attn = 0
        assert (context.n_ctx, context.type_k, context.type_v) == (512, 1, 1), "another llama.h"
    context.n_ctx = context.n_batch = context.n_ubatch = 512
    context.n_threads = context.n_threads_batch = 1
    if not fork:  # the fork needs flash attention for a cache of float32
        context.type_k = context.type_v = CACHE_TYPES[job["cache"]]
    model = lib.llama_model_load_from_file(job["model"].encode(), settings)
    run = lib.llama_init_from_model(model, context)
    width = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
    folder = Path(job["output"])
    folder.mkdir(parents=True)
    for number, text in enumerate(job["texts"]):
        if fork:
            lib.llama_kv_cache_clear(run)
        else:
            lib.llama_memory_clear(lib.llama_get_memory(run), True)
        batch = lib.llama_batch_init(len(text), 0, 1)
        batch.n_tokens = len(text)
        for place, token in enumerate(text):
            batch.token[place], batch.pos[place] = token, place
            batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
            batch.logits[place] = 1
        if lib.llama_decode(run, batch):
            sys.exit("error: llama.cpp cannot compute a text")
        rows = [
            np.ctypeslib.as_array(lib.llama_get_logits_ith(run, place), (width,)).copy()
            for place in range(len(text))
        ]
        np.save(folder / f"{number}.npy", np.stack(rows))


def store(job: dict[str, Any]) -> None:
    """Write a GGUF file in another type with the fork's quantizer, a program."""
    spec = importlib.util.find_spec("ik_llama_cpp")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent
    command = [folder / "bin" / "llama-quantize", "--allow-requantize"]
    command += [job["model"], job["output"], job["type"], "1"]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder / "lib")}
    subprocess.run(command, env=environment, check=True, stdout=sys.stderr)


if __name__ == "__main__":
    wanted = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    (store if "type" in wanted else logits)(wanted)
