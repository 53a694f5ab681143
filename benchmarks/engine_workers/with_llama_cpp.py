"""llama.cpp, and its fork ik_llama.cpp, for benchmarks/engines.py.

Both write and score by the code of this package's engine llama.cpp. The fork's C interface is of
another age: `as_llama_cpp` gives its functions the names and arguments that this code calls.
"""

import ctypes
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from protocol import Prompts, Worker, serve

from radquant import llama_cpp
from radquant.generation import llama_cpp_decoding as decoding

FORK = "ik_llama.cpp"
MOST_SEQUENCES = 64  # of the fork, LLAMA_MAX_SEQ


def as_llama_cpp(api: Any) -> Any:
    """The fork's functions under llama.cpp's names."""
    lib = api._lib
    address, place = ctypes.c_void_p, ctypes.c_int32
    rows = [address, place, place, place]
    for name, result, arguments in (
        ("llama_kv_cache_seq_rm", ctypes.c_bool, rows),
        ("llama_get_logits", ctypes.POINTER(ctypes.c_float), [address]),
        ("llama_model_size", ctypes.c_uint64, [address]),
    ):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments

    def context_params() -> Any:
        params = api.llama_context_default_params()
        params.flash_attn = False  # which the wheel's build, for AVX2, ends in (iqk_fa_templates.h)
        return params

    def decode(context: int, batch: llama_cpp.Batch) -> int:
        fields = {name: getattr(batch, name) for name, _ in llama_cpp.Batch._fields_}
        fields["seq_id"] = ctypes.cast(fields["seq_id"], dict(api.llama_batch._fields_)["seq_id"])
        return int(api.llama_decode(context, api.llama_batch(**fields)))

    return SimpleNamespace(
        llama_max_parallel_sequences=lambda: MOST_SEQUENCES,
        llama_context_default_params=context_params,
        llama_init_from_model=api.llama_init_from_model,
        llama_free=api.llama_free,
        llama_get_memory=lambda context: context,
        llama_memory_clear=lambda context, _: api.llama_kv_cache_clear(context),
        llama_memory_seq_rm=lib.llama_kv_cache_seq_rm,
        llama_decode=decode,
        llama_get_logits=lib.llama_get_logits,
        llama_model_size=lib.llama_model_size,
    )


def load(request: dict[str, Any]) -> decoding.Model:
    if request["library"] != FORK:
        return decoding.load(Path(request["model"]), request["threads"], "f16")
    api = import_module("ik_llama_cpp._ctypes_api")
    api.llama_backend_init()
    params = api.llama_model_default_params()
    params.repack_tensors = True  # its option -rtr, faster here in batches and prompts
    model = api.llama_model_load_from_file(request["model"].encode(), params)
    if not model:
        raise SystemExit(f"error: {FORK} cannot load {request['model']}")
    vocabulary = api.llama_vocab_n_tokens(api.llama_model_get_vocab(model))
    library = llama_cpp.Library(as_llama_cpp(api))
    return decoding.Model(library, model, request["threads"], "f16", vocabulary)


def make_room(model: decoding.Model, prompts: Prompts, new: int) -> None:
    decoding.make_context(model, len(prompts), max(map(len, prompts)) + new)


def write(model: decoding.Model, prompts: Prompts, new: int) -> Prompts:
    task = {"prompts": prompts, "shared": 0, "longest": max(map(len, prompts)) + new}
    task |= {"batch_size": len(prompts), "max_new_tokens": new, "end_ids": [], "asks": False}
    answers: Prompts = decoding.write(model, task, lambda **_: None)["tokens"]
    return answers


def score(model: decoding.Model, prompts: Prompts, answers: Prompts) -> list[float]:
    longest = max(len(ids) + len(answer) for ids, answer in zip(prompts, answers, strict=True))
    task = {"prompts": prompts, "answers": answers, "shared": 0, "longest": longest}
    nats: list[float] = decoding.score(model, task, lambda **_: None)["nats"]
    return nats


def versions() -> dict[str, str]:
    try:
        return {FORK: version("ik-llama-cpp-python")}
    except ModuleNotFoundError:
        return {"llama.cpp": llama_cpp.BUILD}


if __name__ == "__main__":
    serve(Worker(load, write, score, versions, make_room))
