"""Language models as GGUF files that llama.cpp, and what is built on it, load.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Keys are those that
llama.cpp reads (src/llama-model.cpp) and its converter writes (convert_hf_to_gguf.py). Matrices may
be stored as anything; norms and biases are float32.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from radquant.errors import UserError
from radquant.files import atomic_path
from radquant.gguf.names import adds_one, gguf_architecture, rotary_heads, row_order, to_gguf
from radquant.gguf.reading import FREQUENCIES
from radquant.gguf.tokenizer_keys import tokenizer_keys
from radquant.model_files import StoredTensor, read_config, stored_tensors

EMBEDDING = "token_embd.weight"
FLOATS = {"f32": 0, "f16": 1}  # `general.file_type` of a file of plain values
F16_LARGEST = 65504.0


@dataclass(frozen=True)
class Written:
    """A tensor to be written: its GGUF name, shape as Hugging Face has it, type, and bytes."""

    name: str
    shape: tuple[int, ...]
    type: str  # "F32", "Q4_0" …
    size: int  # in bytes
    load: Callable[[], np.ndarray]  # the bytes, or values, in the file's order of rows


def write_float(
    original: Path, output: Path, dtype: str = "f16", trust_remote_code: bool = False
) -> None:
    """Write the language model in `original` as a GGUF file of plain values.

    dtype: of matrices, "f16" or "f32". Raises UserError for an architecture or tokenizer that is
    not known as GGUF, and for values that the dtype does not hold.
    """
    if dtype not in FLOATS:
        raise UserError(f"there is no dtype {dtype!r} here; use one of {', '.join(FLOATS)}")
    config, stored = original_config(original, trust_remote_code), stored_tensors(original)
    tensors = []
    for name, tensor, own in language_tensors(config, stored):
        wide = len(tensor.shape) < 2 or dtype == "f32"
        tensors.append(float_tensor(config, name, tensor, own, "F32" if wide else "F16"))
    write_gguf(original, config, tensors, FLOATS[dtype], output, trust_remote_code)


def original_config(original: Path, trust_remote_code: bool = False) -> Any:
    """The transformers configuration of a model that can be written; UserError if none can."""
    from transformers import AutoConfig

    gguf_architecture(str(read_config(original).get("model_type")))
    return AutoConfig.from_pretrained(original, trust_remote_code=trust_remote_code)


def language_tensors(
    config: Any, stored: Mapping[str, StoredTensor]
) -> Iterable[tuple[str, StoredTensor, str]]:
    """The language model's tensors: Hugging Face's name, where it lies, and GGUF's name.

    A head that is the embedding is not stored twice. Raises UserError for a tensor of the language
    model that has no place in GGUF.
    """
    from radquant.gguf.names import text_name

    architecture = gguf_architecture(config.model_type)
    tied = config.get_text_config().tie_word_embeddings
    for name, tensor in stored.items():
        bare = text_name(name)
        if bare is None or bare.endswith("rotary_emb.inv_freq"):
            continue  # of the part that sees images; a table that follows from config.json
        own = to_gguf(name, architecture)
        if own is None:
            raise UserError(
                f"{tensor.file} holds {name}, which has no place in a GGUF file of the "
                f"architecture {architecture}; the model cannot be written as GGUF"
            )
        if not (tied and own.startswith("output.")):
            yield name, tensor, own


def in_file_order(config: Any, own: str, rows: np.ndarray) -> np.ndarray:
    """A tensor's rows, [out, …], in the order in which GGUF stores them. own: GGUF's name."""
    text = config.get_text_config()
    heads, keys = text.num_attention_heads, text.num_key_value_heads
    divided = rotary_heads(own, gguf_architecture(config.model_type), heads, keys)
    return rows if divided is None else rows[row_order(len(rows), divided)]


def float_tensor(config: Any, name: str, tensor: StoredTensor, own: str, kind: str) -> Written:
    """A tensor stored as plain values. name: for messages. own: GGUF's."""
    wide = kind == "F32"

    def load() -> np.ndarray:
        values = in_file_order(config, own, tensor.load().float().numpy())
        if adds_one(own, gguf_architecture(config.model_type)):
            values = values + np.float32(1)
        # The least and the largest value are NaN if one value is. The absolute values of a table
        # would take gigabytes.
        largest = float(np.max(np.abs([values.min(initial=0), values.max(initial=0)])))
        if not np.isfinite(largest) or (not wide and largest > F16_LARGEST):
            raise UserError(
                f"{tensor.file}: {name} reaches {largest:.3g}, which {kind} does not hold; use f32"
            )
        return values.astype(np.float32 if wide else np.float16, copy=False)

    size = int(np.prod(tensor.shape)) * (4 if wide else 2)
    return Written(own, tensor.shape, kind, size, load)


def write_gguf(
    original: Path,
    config: Any,
    tensors: Iterable[Written],
    file_type: int,
    output: Path,
    trust_remote_code: bool = False,
) -> None:
    """Write a whole GGUF file, one tensor after the other.

    original: where the tokenizer is. file_type: `enum llama_ftype` of llama.h, which names the file
    and decides nothing.
    """
    from gguf import GGMLQuantizationType, GGUFEndian, GGUFWriter

    tensors = sorted(tensors, key=lambda each: layer_order(each.name))
    rows = next((each.shape[0] for each in tensors if each.name == EMBEDDING), None)
    if rows is None:
        raise UserError(f"{original} has no embedding; fetch or save the model again")
    if (frequencies := rotary_divisors(config)) is not None:
        size = frequencies.nbytes
        tensors.append(Written(FREQUENCIES, frequencies.shape, "F32", size, lambda: frequencies))
    keys = model_keys(config, rows) | tokenizer_keys(original, rows, trust_remote_code)
    keys |= {"general.file_type": file_type, "general.quantization_version": 2}
    architecture = gguf_architecture(config.model_type)
    with atomic_path(output) as part:
        writer = GGUFWriter(part, architecture, endianess=GGUFEndian.LITTLE)
        for key, value in keys.items():
            add_key(writer, key, value)
        for each in tensors:
            kind = GGMLQuantizationType[each.type]
            shape = each.shape
            if each.type not in ("F32", "F16"):  # the writer wants the bytes' shape
                shape = (*shape[:-1], each.size // int(np.prod(shape[:-1])))
                writer.add_tensor_info(each.name, shape, np.dtype(np.uint8), each.size, kind)
            else:
                dtype = np.dtype(np.float32 if each.type == "F32" else np.float16)
                writer.add_tensor_info(each.name, shape, dtype, each.size, kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for each in tensors:
            values = np.ascontiguousarray(each.load())
            if values.nbytes != each.size:
                raise RuntimeError(f"{each.name}: {values.nbytes} bytes, not {each.size}")
            writer.write_tensor_data(values)
        writer.close()


def layer_order(name: str) -> tuple[int, str]:
    """Tensors in the order in which they are used, by GGUF's names."""
    parts = name.split(".")
    return (int(parts[1]), name) if parts[0] == "blk" else (-1, name)


def add_key(writer: Any, key: str, value: Any) -> None:
    """Add a key in the type of numbers that llama.cpp reads: whole ones unsigned."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def model_keys(config: Any, rows: int) -> dict[str, Any]:
    """The keys that say what the model computes; UserError for what they cannot say.

    rows: of the embedding.
    """
    text, architecture = config.get_text_config(), gguf_architecture(config.model_type)
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    keys: dict[str, Any] = {
        "context_length": text.max_position_embeddings,
        "embedding_length": text.hidden_size,
        "block_count": text.num_hidden_layers,
        "feed_forward_length": text.intermediate_size,
        "attention.head_count": text.num_attention_heads,
        "attention.head_count_kv": text.num_key_value_heads,
        "attention.key_length": head,
        "attention.value_length": head,
        "attention.layer_norm_rms_epsilon": float(text.rms_norm_eps),
        "vocab_size": rows,
    }
    full, local = rope_parameters(text)
    factor = float(full.get("partial_rotary_factor") or 1.0)
    keys |= {"rope.freq_base": float(full.get("rope_theta", 10000.0))}
    keys |= {"rope.dimension_count": int(head * factor)}
    kind = full.get("rope_type", "default")
    if kind == "linear":
        keys |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(full["factor"])}
    elif kind not in ("default", "llama3"):
        raise UserError(
            f"config.json says rope_type {kind}, which is not written as GGUF here; use another "
            "format"
        )
    window = getattr(text, "sliding_window", None)
    if architecture == "gemma3":
        keys |= {"attention.sliding_window": window}
        keys |= {"rope.freq_base_swa": float((local or full).get("rope_theta", 10000.0))}
    elif window and getattr(text, "use_sliding_window", True):
        raise UserError(
            f"config.json says sliding_window {window}, which llama.cpp does not compute for "
            f"{architecture}; set it to null if texts are shorter"
        )
    name = str(getattr(config, "name_or_path", "") or architecture).rstrip("/").rpartition("/")[2]
    general = {"general.type": "model", "general.name": name}
    return general | {f"{architecture}.{key}": value for key, value in keys.items()}


def rope_parameters(text: Any) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """What config.json says of rotary embeddings: of layers that see all, and of the others."""
    rope = dict(getattr(text, "rope_parameters", None) or {})
    if "full_attention" in rope:
        return dict(rope["full_attention"]), rope.get("sliding_attention")
    return rope, None


def rotary_divisors(config: Any) -> np.ndarray | None:
    """By what each frequency of rotary embeddings is divided, float32; None: by nothing.

    Llama 3's (Meta, llama-models, `apply_scaling`): long waves by the factor, short ones by 1.
    """
    text = config.get_text_config()
    full, _ = rope_parameters(text)
    if full.get("rope_type") != "llama3":
        return None
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    wave = 2 * np.pi * float(full["rope_theta"]) ** (np.arange(0, head, 2) / head)
    low, high = full["low_freq_factor"], full["high_freq_factor"]
    share = np.clip(
        (full["original_max_position_embeddings"] / wave - low) / (high - low), 0.0, 1.0
    )
    return (1 / ((1 - share) / full["factor"] + share)).astype(np.float32)
