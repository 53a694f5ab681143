"""GGUF files of tiny models, written with the gguf package as llama.cpp's converter does."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from gguf.quants import quantize
from tiny_architectures import tiny_model
from tiny_tokenizers import byte_tokenizer

from radquant.files import read_json, write_json
from radquant.tokenizer_files import read_tokenizer

BLOCK = 32
ARCHITECTURES = {
    **{"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"},
    **{"gemma3_text": "gemma3", "gemma3": "gemma3"},
}
# By the class of the tokenizer that transformers takes for each.
PRE_TOKENIZERS = {"qwen2": "qwen2"}
# So wide that rows are whole blocks, and what llama.cpp computes without being told.
WIDE: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": None},
    "qwen2": {"use_sliding_window": False, "layer_types": None},
    "qwen3": {"layer_types": None},
    "gemma3_text": {"query_pre_attn_scalar": 32},
    "gemma3": {"query_pre_attn_scalar": 32},
}


def neighbours(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """llama.cpp's order: channel i of a head beside channel i + half, one head after another."""
    rows = []
    for head in weight.chunk(heads):
        first, second = head.chunk(2)
        rows += [row for pair in zip(first, second, strict=True) for row in pair]
    return torch.stack(rows)


def stored_weight(name: str, weight: torch.Tensor, architecture: str, text: Any) -> torch.Tensor:
    if architecture == "llama" and "q_proj" in name:
        return neighbours(weight, text.num_attention_heads)
    if architecture == "llama" and "k_proj" in name:
        return neighbours(weight, text.num_key_value_heads)
    return weight + 1 if architecture == "gemma3" and name.endswith("norm.weight") else weight


def plain_keys(text: Any, architecture: str) -> dict[str, Any]:
    rope = text.rope_parameters
    full = rope.get("full_attention", rope)
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    keys = {
        "block_count": text.num_hidden_layers,
        "context_length": text.max_position_embeddings,
        "embedding_length": text.hidden_size,
        "feed_forward_length": text.intermediate_size,
        "attention.head_count": text.num_attention_heads,
        "attention.head_count_kv": text.num_key_value_heads,
        "attention.key_length": size,
        "attention.value_length": size,
        "attention.layer_norm_rms_epsilon": float(text.rms_norm_eps),
        "rope.freq_base": float(full["rope_theta"]),
        "rope.dimension_count": size,
    }
    if architecture == "gemma3":
        keys["attention.sliding_window"] = text.sliding_window
        keys["attention.sliding_window_pattern"] = 2
        keys["rope.freq_base_swa"] = float(rope["sliding_attention"]["rope_theta"])
    return keys


def write_gguf(
    path: Path,
    model: Any,
    kind: str,
    type_of_linears: Type = Type.F32,
    tokenizer: Any = None,
    head: torch.Tensor | None = None,
    **changed: Any,
) -> dict[str, torch.Tensor]:
    """Write the language part of `model`; {name: the values that are stored} of its tensors.

    head: of its own, if any; the model's is the embedding.
    changed: other values of keys, with __ for a dot, under the architecture if it is not said;
    None: left out.
    """
    architecture, text = ARCHITECTURES[kind], model.config.get_text_config()
    arch = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}[architecture]
    table = gguf.get_tensor_name_map(arch, text.num_hidden_layers)
    writer = gguf.GGUFWriter(path, architecture)
    keys = {f"{architecture}.{key}": value for key, value in plain_keys(text, architecture).items()}
    for name, value in changed.items():
        name = name.replace("__", ".")
        known = name.startswith(("general.", "tokenizer.", "split."))
        keys[name if known else f"{architecture}.{name}"] = value
    for name, value in keys.items():
        if isinstance(value, bool):
            writer.add_bool(name, value)
        elif isinstance(value, int):
            writer.add_uint32(name, value)
        elif isinstance(value, float):
            writer.add_float32(name, value)
        elif isinstance(value, str):
            writer.add_string(name, value)
        elif value is not None:
            writer.add_array(name, value)
    vocabulary = byte_tokenizer() if tokenizer is None else tokenizer
    if "tokenizer.ggml.pre" not in keys and "tokenizer.ggml.model" not in keys:
        writer.add_tokenizer_pre(PRE_TOKENIZERS.get(architecture, "gpt-2"))
    write_vocabulary(writer, vocabulary, text.vocab_size, keys)
    values = {}
    for full_name, weight in model.state_dict().items():
        name = full_name.replace("model.language_model.", "model.")
        if "vision" in name or "multi_modal" in name or name == "lm_head.weight":
            continue  # all are tied
        stored = stored_weight(name, weight, architecture, text)
        tensor_type = type_of_linears if "_proj.weight" in name else Type.F32
        data = stored.float().numpy()
        raw = quantize(data, tensor_type)
        own_name = table.get_name(name, try_suffixes=(".weight", ".bias"))
        writer.add_tensor(own_name, raw, raw_dtype=None if tensor_type == Type.F32 else tensor_type)
        if tensor_type != Type.F32:
            # Blocks lie within rows, and rows alone change places.
            values[full_name] = torch.from_numpy(
                gguf.quants.dequantize(quantize(weight.float().numpy(), tensor_type), tensor_type)
            )
    if head is not None:
        writer.add_tensor("output.weight", head.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return values


def write_vocabulary(writer: Any, tokenizer: Any, rows: int, said: dict[str, Any]) -> None:
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    own = {number: token for token, number in tokenizer.get_vocab().items()}
    if "tokenizer.ggml.model" not in said:
        writer.add_tokenizer_model("gpt2")
    if "tokenizer.ggml.tokens" not in said:
        writer.add_token_list([own.get(number, f"[PAD{number}]") for number in range(rows)])
        writer.add_token_types([1 if number in own else 5 for number in range(rows)])
    writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
    for name in ("bos", "eos"):
        if f"tokenizer.ggml.{name}_token_id" not in said:
            getattr(writer, f"add_{name}_token_id")(getattr(tokenizer, f"{name}_token_id"))


def gguf_directory(
    folder: Path, kind: str, type_of_linears: Type = Type.F32, **changed: Any
) -> tuple[Any, dict[str, torch.Tensor]]:
    """Write `folder`/original and `folder`/checkpoint; the original's model and stored values."""
    model = tiny_model(kind, vocab_size=300, **WIDE[kind])
    tokenizer = byte_tokenizer()
    original, checkpoint = folder / "original", folder / "checkpoint"
    for directory in (original, checkpoint):
        tokenizer.save_pretrained(directory)
    model.save_pretrained(original)
    tokenizer = read_tokenizer(original)  # some classes have tokens of their own
    config = read_json(original / "config.json")
    quantization = {"quant_method": "gguf", "file": "model.gguf"}
    write_json(checkpoint / "config.json", config | {"quantization_config": quantization})
    path = checkpoint / "model.gguf"
    values = write_gguf(path, model, kind, type_of_linears, tokenizer, **changed)
    return model, values


def random_blocks(kind: Type, count: int, seed: int = 0) -> np.ndarray:
    """Bytes of `count` blocks of a type, [count, bytes]."""
    _, size = gguf.GGML_QUANT_SIZES[kind]
    return np.random.default_rng(seed).integers(0, 256, (count, size), dtype=np.uint8)
