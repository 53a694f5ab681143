"""The tensors of a language model, by Hugging Face's names and by those of GGUF files.

Names and changes are those of llama.cpp's converter (https://github.com/ggml-org/llama.cpp,
convert_hf_to_gguf.py and gguf-py/gguf/tensor_mapping.py) for the architectures listed here. Two
kinds of tensors are not stored as Hugging Face stores them:

- In the architecture `llama`, rotary embeddings turn neighbouring channels (2i, 2i + 1) of a head;
  in Hugging Face's they turn channels i and i + half. So the rows of q and k are in another order.
- Gemma's norms multiply by 1 + w, and the file stores 1 + w.
"""

import re

import numpy as np

from radquant.errors import UserError

# Of each `model_type` of a Hugging Face config.json, the architecture's name in GGUF.
ARCHITECTURES = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma3_text": "gemma3",
    "gemma3": "gemma3",
}

_OUTER = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_INNER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_LAYERS = {  # what is in each decoder layer, by architecture
    "llama": _INNER,
    "qwen2": _INNER,
    "qwen3": _INNER | _HEAD_NORMS,
    "gemma3": _INNER
    | _HEAD_NORMS
    | {
        "ffn_norm": "pre_feedforward_layernorm",
        "post_attention_norm": "post_attention_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
    },
}
_PREFIXES = re.compile(r"^(model\.language_model\.|language_model\.model\.|model\.)")
_GGUF_NAME = re.compile(r"(?:blk\.(\d+)\.)?([a-z_]+)\.(weight|bias)")
_LAYER_NAME = re.compile(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)")
_OUTER_NAME = re.compile(r"(.+)\.(weight|bias)")


def gguf_architecture(model_type: str) -> str:
    """The name in GGUF of a Hugging Face `model_type`; raises UserError for one that is unknown."""
    if model_type not in ARCHITECTURES:
        raise UserError(
            f"models of type {model_type} are not known as GGUF here; known are "
            f"{', '.join(ARCHITECTURES)}"
        )
    return ARCHITECTURES[model_type]


def text_name(name: str) -> str | None:
    """A tensor's name in the language model alone, such as `model.layers.0.mlp.up_proj.weight`.

    name: as a checkpoint stores it, also one with images (`language_model.model.…`, and in
    transformers 5 `model.language_model.…`). None for what is not the language model's.
    """
    if re.match(r"(language_model\.)?lm_head\.", name):
        return name.removeprefix("language_model.")
    bare = _PREFIXES.sub("model.", name, count=1)
    return bare if re.match(r"model\.(layers|embed_tokens|norm)\.", bare) else None


def to_gguf(name: str, architecture: str) -> str | None:
    """The GGUF name of a tensor with the Hugging Face name `name`; None if it has none."""
    bare = text_name(name)
    if bare is None:
        return None
    if found := _LAYER_NAME.fullmatch(bare):
        layer, part, kind = found.groups()
        stored = {value: key for key, value in _LAYERS[architecture].items()}.get(part)
        return stored and f"blk.{layer}.{stored}.{kind}"
    found = _OUTER_NAME.fullmatch(bare)
    stored = found and {value: key for key, value in _OUTER.items()}.get(found[1])
    return f"{stored}.{found[2]}" if found and stored else None


def to_hugging_face(name: str, architecture: str) -> str | None:
    """The name in the language model alone of a tensor with the GGUF name `name`; None if none."""
    found = _GGUF_NAME.fullmatch(name)
    if not found:
        return None
    layer, stored, kind = found.groups()
    if layer is None:
        return f"{_OUTER[stored]}.{kind}" if stored in _OUTER else None
    part = _LAYERS[architecture].get(stored)
    return part and f"model.layers.{int(layer)}.{part}.{kind}"


def adds_one(name: str, architecture: str) -> bool:
    """Whether the file stores 1 + w of this norm's w. name: GGUF's."""
    return architecture == "gemma3" and name.endswith("_norm.weight")


def rotary_heads(name: str, architecture: str, heads: int, key_heads: int) -> int | None:
    """Into how many heads the rows of a tensor fall whose order differs; None if it does not.

    name: GGUF's. heads, key_heads: the model's numbers of attention and key-value heads.
    """
    found = _GGUF_NAME.fullmatch(name)
    if architecture != "llama" or not found or found[1] is None:
        return None
    return {"attn_q": heads, "attn_k": key_heads}.get(found[2])


def row_order(rows: int, heads: int) -> np.ndarray:
    """Which row of Hugging Face's tensor each row of the file's is: `stored = tensor[order]`.

    Returns int64 [rows]; `tensor = stored[np.argsort(order)]` is the way back. It goes for weights
    and biases of q and k. Raises UserError for rows that do not fall into heads of even size.
    """
    if heads < 1 or rows % (2 * heads):
        raise UserError(f"{rows} rows do not fall into {heads} heads of an even number of channels")
    halves = np.arange(rows, dtype=np.int64).reshape(heads, 2, rows // heads // 2)
    return halves.swapaxes(1, 2).reshape(rows)
