"""llama.cpp's library by its C interface, as one release of a wheel brings it along.

The wheel of `envs/llama-cpp.txt` holds the files of llama.cpp's own release b9371 for Linux, with
code for each kind of processor. The structures here are those of that release's
`include/llama.h` (https://github.com/ggml-org/llama.cpp/blob/b9371/include/llama.h). `open_library`
refuses any other release, and one whose default values do not lie where they should.

Runs in llama.cpp's own environment: nothing here needs PyTorch.
"""

import ctypes
import importlib.metadata
import importlib.util
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int8, c_int32, c_size_t, c_uint32, c_void_p
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from radquant.errors import UserError

PACKAGE, PACKAGE_VERSION = "muthuishere-modelnexus", "0.2.1"
BUILD = "b9371"
ENVIRONMENT = "llama-cpp"  # envs/llama-cpp.txt
FILE = "libllama.so.0.0.9371"
# `enum ggml_type`, of what keys and values are stored as.
CACHE_TYPES = {
    "f32": 0,
    "f16": 1,
    "q4_0": 2,
    "q4_1": 3,
    "q5_0": 6,
    "q5_1": 7,
    "q8_0": 8,
    "iq4_nl": 20,
    "bf16": 30,
}
FLASH_ATTENTION_OFF, FLASH_ATTENTION_ON = 0, 1
ERROR_LEVEL, CONTINUED = 4, 5  # `enum ggml_log_level`


class ModelParams(ctypes.Structure):
    """`struct llama_model_params`."""

    _fields_ = (
        ("devices", c_void_p),
        ("tensor_buft_overrides", c_void_p),
        ("n_gpu_layers", c_int32),
        ("split_mode", c_int32),
        ("main_gpu", c_int32),
        ("tensor_split", c_void_p),
        ("progress_callback", c_void_p),
        ("progress_callback_user_data", c_void_p),
        ("kv_overrides", c_void_p),
        ("vocab_only", c_bool),
        ("use_mmap", c_bool),
        ("use_direct_io", c_bool),
        ("use_mlock", c_bool),
        ("check_tensors", c_bool),
        ("use_extra_bufts", c_bool),
        ("no_host", c_bool),
        ("no_alloc", c_bool),
    )


class ContextParams(ctypes.Structure):
    """`struct llama_context_params`."""

    _fields_ = (
        ("n_ctx", c_uint32),
        ("n_batch", c_uint32),
        ("n_ubatch", c_uint32),
        ("n_seq_max", c_uint32),
        ("n_rs_seq", c_uint32),
        ("n_threads", c_int32),
        ("n_threads_batch", c_int32),
        ("ctx_type", c_int32),
        ("rope_scaling_type", c_int32),
        ("pooling_type", c_int32),
        ("attention_type", c_int32),
        ("flash_attn_type", c_int32),
        ("rope_freq_base", c_float),
        ("rope_freq_scale", c_float),
        ("yarn_ext_factor", c_float),
        ("yarn_attn_factor", c_float),
        ("yarn_beta_fast", c_float),
        ("yarn_beta_slow", c_float),
        ("yarn_orig_ctx", c_uint32),
        ("defrag_thold", c_float),
        ("cb_eval", c_void_p),
        ("cb_eval_user_data", c_void_p),
        ("type_k", c_int32),
        ("type_v", c_int32),
        ("abort_callback", c_void_p),
        ("abort_callback_data", c_void_p),
        ("embeddings", c_bool),
        ("offload_kqv", c_bool),
        ("no_perf", c_bool),
        ("op_offload", c_bool),
        ("swa_full", c_bool),
        ("kv_unified", c_bool),
        ("samplers", c_void_p),
        ("n_samplers", c_size_t),
    )


class QuantizeParams(ctypes.Structure):
    """`struct llama_model_quantize_params`."""

    _fields_ = (
        ("nthread", c_int32),
        ("ftype", c_int32),
        ("output_tensor_type", c_int32),
        ("token_embedding_type", c_int32),
        ("allow_requantize", c_bool),
        ("quantize_output_tensor", c_bool),
        ("only_copy", c_bool),
        ("pure", c_bool),
        ("keep_split", c_bool),
        ("dry_run", c_bool),
        ("imatrix", c_void_p),
        ("kv_overrides", c_void_p),
        ("tt_overrides", c_void_p),
        ("prune_layers", c_void_p),
    )


class Importance(ctypes.Structure):
    """`struct llama_model_imatrix_data`; a list of them ends with one without a name."""

    _fields_ = (("name", c_char_p), ("data", POINTER(c_float)), ("size", c_size_t))


class Batch(ctypes.Structure):
    """`struct llama_batch`."""

    _fields_ = (
        ("n_tokens", c_int32),
        ("token", POINTER(c_int32)),
        ("embd", POINTER(c_float)),
        ("pos", POINTER(c_int32)),
        ("n_seq_id", POINTER(c_int32)),
        ("seq_id", c_void_p),
        ("logits", POINTER(c_int8)),
    )


# Bytes of each structure, and default values by which its layout is known.
LAYOUTS: dict[str, tuple[type[ctypes.Structure], int, dict[str, Any]]] = {
    "llama_model_default_params": (
        ModelParams,
        72,
        {"n_gpu_layers": -1, "split_mode": 1, "use_mmap": True, "use_extra_bufts": True},
    ),
    "llama_context_default_params": (
        ContextParams,
        144,
        {
            "n_ctx": 512,
            "n_batch": 2048,
            "n_ubatch": 512,
            "n_seq_max": 1,
            "n_threads": 4,
            "pooling_type": -1,
            "flash_attn_type": -1,
            "yarn_ext_factor": -1.0,
            "defrag_thold": -1.0,
            "type_k": 1,
            "type_v": 1,
            "embeddings": False,
            "offload_kqv": True,
            "no_perf": True,
            "swa_full": True,
            "kv_unified": False,
            "n_samplers": 0,
        },
    ),
    "llama_model_quantize_default_params": (
        QuantizeParams,
        56,
        {
            "nthread": 0,
            "ftype": 7,
            "output_tensor_type": 42,
            "token_embedding_type": 42,
            "quantize_output_tensor": True,
            "pure": False,
        },
    ),
}
# Results and arguments of the functions that are called.
FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "llama_print_system_info": (c_char_p, []),
    "llama_backend_init": (None, []),
    "llama_max_parallel_sequences": (c_size_t, []),
    "llama_log_set": (None, [c_void_p, c_void_p]),
    "llama_model_load_from_file": (c_void_p, [c_char_p, ModelParams]),
    "llama_model_free": (None, [c_void_p]),
    "llama_model_get_vocab": (c_void_p, [c_void_p]),
    "llama_vocab_n_tokens": (c_int32, [c_void_p]),
    "llama_model_size": (ctypes.c_uint64, [c_void_p]),
    "llama_model_desc": (c_int32, [c_void_p, c_char_p, c_size_t]),
    "llama_init_from_model": (c_void_p, [c_void_p, ContextParams]),
    "llama_free": (None, [c_void_p]),
    "llama_get_memory": (c_void_p, [c_void_p]),
    "llama_memory_clear": (None, [c_void_p, c_bool]),
    "llama_memory_seq_rm": (c_bool, [c_void_p, c_int32, c_int32, c_int32]),
    "llama_memory_seq_cp": (None, [c_void_p, c_int32, c_int32, c_int32, c_int32]),
    "llama_decode": (c_int32, [c_void_p, Batch]),
    "llama_get_logits": (POINTER(c_float), [c_void_p]),
    "llama_model_quantize": (c_uint32, [c_char_p, c_char_p, POINTER(QuantizeParams)]),
}
LOG = ctypes.CFUNCTYPE(None, ctypes.c_int, c_char_p, c_void_p)


@dataclass
class Library:
    """The loaded library, and what it said last of an error."""

    functions: Any  # by their names in llama.h
    system: str = ""  # what of the processor it uses
    errors: list[str] = field(default_factory=list)
    kept: list[Any] = field(default_factory=list)  # what C holds on to

    def error(self) -> str:
        """The first error that it told of since they were cleared, in one line.

        It never sees a text, but tokens.
        """
        return " ".join(self.errors[0].split()) if self.errors else "it does not say why"


def library_folder() -> Path:
    """Where the wheel keeps the library; raises UserError without the wheel, or with another."""
    try:
        version = importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            f"this Python has no {PACKAGE}, which brings llama.cpp; make an environment of "
            f"envs/{ENVIRONMENT}.txt with scripts/build_env.py"
        ) from None
    if version != PACKAGE_VERSION:
        raise UserError(
            f"{PACKAGE} {version} is another release than {PACKAGE_VERSION}, whose llama.cpp is "
            f"known; make the environment of envs/{ENVIRONMENT}.txt again"
        )
    found = importlib.util.find_spec("modelnexus")
    places = found.submodule_search_locations if found else None
    folders = [Path(place) / "native" / "linux-x86_64" for place in places or ()]
    for folder in folders:
        if (folder / FILE).is_file():
            return folder
    raise UserError(
        f"{PACKAGE} {version} holds no llama.cpp {BUILD} for this machine; engine llama.cpp needs "
        "Linux on x86-64"
    )


def open_library() -> Library:
    """Load the library and choose what of it is made for this processor.

    Raises UserError if it is not there, cannot be loaded, or has another layout.
    """
    folder = library_folder()
    try:
        functions = ctypes.CDLL(str(folder / FILE))
        backends = ctypes.CDLL(str(folder / "libggml.so.0"))
    except OSError as error:
        raise UserError(f"llama.cpp cannot be loaded ({error}); it needs glibc 2.34") from None
    library = Library(functions)
    for name, (result, arguments) in FUNCTIONS.items():
        function = getattr(functions, name)
        function.restype, function.argtypes = result, arguments
    check_layout(functions)
    listen(library, backends)
    functions.llama_backend_init()
    backends.ggml_backend_load_all_from_path(str(folder).encode())
    library.system = functions.llama_print_system_info().decode()
    if "CPU" not in library.system:
        raise UserError(f"llama.cpp {BUILD} has no code for this processor; use engine auto")
    return library


def check_layout(functions: Any) -> None:
    """Raise UserError unless the library's structures are those that are declared here."""
    for name, (kind, size, values) in LAYOUTS.items():
        # Room for a larger structure, which would be written beyond its end.
        wide = type("Wide", (kind,), {"_fields_": [("rest", ctypes.c_uint8 * 256)]})
        function = getattr(functions, name)
        function.restype, function.argtypes = wide, []
        found = function()
        other = [key for key, value in values.items() if getattr(found, key) != value]
        if ctypes.sizeof(kind) != size or other:
            raise UserError(
                f"llama.cpp's library is not that of {BUILD} ({name} has another "
                f"{other[0] if other else 'size'}); make the environment of "
                f"envs/{ENVIRONMENT}.txt again"
            )
        function.restype = kind


def listen(library: Library, backends: Any) -> None:
    """Keep what the library says of errors, and drop the rest of what it says."""
    state = {"level": 0}

    def said(level: int, text: bytes | None, _: Any) -> None:
        level = state["level"] if level == CONTINUED else level
        state["level"] = level
        line = (text or b"").decode(errors="replace").strip()
        if level == ERROR_LEVEL and line:
            library.errors.append(line)

    callback = LOG(said)
    library.kept.append(callback)
    address = ctypes.cast(callback, c_void_p)
    library.functions.llama_log_set(address, None)
    backends.ggml_log_set.argtypes = [c_void_p, c_void_p]
    backends.ggml_log_set(address, None)


def load_model(library: Library, path: Path) -> int:
    """Load a GGUF file; the address of the model. Raises UserError if llama.cpp cannot."""
    params = library.functions.llama_model_default_params()
    params.n_gpu_layers = 0
    params.check_tensors = True
    library.errors.clear()
    model = library.functions.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        raise UserError(f"llama.cpp {BUILD} cannot load {path}: {library.error()}")
    return int(model)
