"""Whether a GGUF file's keys say the same computation as the original's config.json.

llama.cpp computes with what the file's keys say (its src/llama-model.cpp and src/models), and the
engines here with config.json. Each key that changes the computation must say the same, or the
file is another model's. Keys that nothing here knows are refused.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from radquant.errors import UserError
from radquant.gguf.names import gguf_architecture
from radquant.gguf.reading import FREQUENCIES, GGUFModel, stored_values

# Keys of an architecture that describe a model and change nothing that is computed for a text
# that it can hold.
DESCRIPTIONS = (
    *("context_length", "vocab_size", "tensor_data_layout", "rope.scaling.finetuned"),
    "rope.scaling.original_context_length",  # only yarn reads it
    *("pooling_type", "expert_used_count", "attention.value_length", "use_parallel_residual"),
)
ACTIVATIONS = {"gemma3": ("gelu_pytorch_tanh",)}  # that llama.cpp computes with; others: silu
LAYERS_OF_27B = 62  # by which llama.cpp knows it, and scales its attention otherwise
PATTERN = 6  # every sixth layer of Gemma 3 sees all tokens, unless a key says otherwise
SAME = 1e-5  # relative, of tables that are computed
USUAL_YARN = {
    **{"yarn_ext_factor": 1.0, "yarn_attn_factor": 1.0, "attn_factor": 1.0},
    **{"yarn_beta_fast": 32.0, "yarn_beta_slow": 1.0},
}


def check_keys(model: GGUFModel, config: Any) -> None:
    """Raise UserError unless the file's model computes as the original does, with both values.

    config: the original's transformers configuration.
    """
    text = config.get_text_config()
    wanted = gguf_architecture(config.model_type)
    if wanted != model.architecture:
        raise UserError(
            f"{model.path} has the architecture {model.architecture}, and the original is of type "
            f"{config.model_type}, whose files say {wanted}; take a file of the same model"
        )
    rope = rope_of(text)
    expected = plain_keys(model, text) | scaling_keys(model, rope)
    if model.architecture == "gemma3":
        expected |= sliding_keys(model, text, rope)
    for key, (value, default) in expected.items():
        compare(model, key, model.key(key, default), value)
    check_shape_of_model(model, text)
    check_frequencies(model, text, rope)
    described: tuple[str, ...] = DESCRIPTIONS
    if model.architecture != "gemma3":  # the others see all tokens in llama.cpp, whatever is said
        described += ("attention.sliding_window",)
    known = {f"{model.architecture}.{key}" for key in (*expected, *described)}
    for name, value in model.keys.items():
        if name.startswith(f"{model.architecture}.") and name not in known and is_set(value):
            raise UserError(
                f"{model.path} has a key {name}: {said(value)}, which is not applied here; take a "
                "file without it"
            )


def is_set(value: Any) -> bool:
    """Whether a value is none of those that switch something off."""
    return value not in (0, 0.0, False, "", "none", []) and not (
        isinstance(value, list) and not any(value)
    )


def compare(model: GGUFModel, key: str, found: Any, value: Any) -> None:
    """Raise UserError unless a key's value is that of the original, in the file's precision."""
    if isinstance(found, list) and not isinstance(value, list):  # one number for each layer
        found = found[0] if len(set(found)) == 1 else found
    if isinstance(found, float) or isinstance(value, float):
        numbers = isinstance(found, int | float) and isinstance(value, int | float)
        same = numbers and np.float32(found) == np.float32(value)
    else:
        same = found == value
    if not same:
        raise UserError(
            f"{model.path} says {model.architecture}.{key}: {said(found)}, and by the original's "
            f"config.json it is {said(value)}; take a file of the same model"
        )


def said(value: Any) -> str:
    if value is None:
        return "nothing"
    text = f"{value:.9g}" if isinstance(value, float) else str(value)
    return text[:120] + "…" * (len(text) > 120)


def head_size(text: Any) -> int:
    return getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads


def plain_keys(model: GGUFModel, text: Any) -> dict[str, tuple[Any, Any]]:
    """{key: (the original's value, what llama.cpp takes where the key is missing)}."""
    heads = text.num_attention_heads
    whole = text.hidden_size // heads
    size = model.key("attention.key_length", whole)
    return {
        "block_count": (text.num_hidden_layers, None),
        "embedding_length": (text.hidden_size, None),
        "feed_forward_length": (text.intermediate_size, None),
        "attention.head_count": (heads, None),
        "attention.head_count_kv": (text.num_key_value_heads, model.key("attention.head_count")),
        "attention.key_length": (head_size(text), whole),
        "attention.value_length": (head_size(text), whole),
        "attention.layer_norm_rms_epsilon": (float(text.rms_norm_eps), None),
        "attention.causal": (True, True),
        "rope.dimension_count": (rotary_size(text), size),
        "final_logit_softcapping": (float(softcap(text, "final_logit_softcapping")), 0.0),
        "attn_logit_softcapping": (float(softcap(text, "attn_logit_softcapping")), 0.0),
        "expert_count": (0, 0),
    }


def softcap(text: Any, name: str) -> float:
    return getattr(text, name, None) or 0.0


def rope_of(text: Any) -> dict[str, Any]:
    """What config.json says of rotary embeddings: {"full": …, "sliding": …}, the latter if any."""
    rope = dict(getattr(text, "rope_parameters", None) or {})
    if "full_attention" in rope:
        return {"full": rope["full_attention"], "sliding": rope.get("sliding_attention")}
    return {"full": rope, "sliding": None}


def rotary_size(text: Any) -> int:
    partial = rope_of(text)["full"].get("partial_rotary_factor") or 1.0
    return int(head_size(text) * partial)


def scaling_keys(model: GGUFModel, rope: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Keys of the rotary embeddings of layers that see all tokens."""
    full = rope["full"]
    kind = full.get("rope_type", "default")
    if kind not in ("default", "linear", "llama3", "yarn"):
        raise UserError(
            f"the original's config.json says rope_type {kind}, which is not known as GGUF here; "
            "give the checkpoint in another format"
        )
    scaled = kind in ("linear", "yarn")
    old = model.key("rope.scale_linear", 0.0)  # the factor's name until 2023
    found = model.key("rope.scaling.factor", old) or 1.0
    type_said = model.key("rope.scaling.type", "linear")
    unscaled = type_said == "none" or (type_said == "linear" and found == 1.0)
    if not scaled and not unscaled:
        compare(model, "rope.scaling.type", f"{type_said}, by {said(found)}", kind)
    keys: dict[str, tuple[Any, Any]] = {
        "rope.freq_base": (float(full.get("rope_theta", 10000.0)), 10000.0),
        "rope.scaling.type": (kind if scaled else type_said, "linear"),
        "rope.scaling.factor": (float(full["factor"]) if scaled else found, found),
        "rope.scale_linear": (old, 0.0),
    }
    if kind == "yarn":
        check_yarn(full)
        length = full.get("original_max_position_embeddings")
        keys["rope.scaling.original_context_length"] = (length, model.key("context_length"))
        keys |= {f"rope.scaling.{key}": (usual, usual) for key, usual in USUAL_YARN.items()}
    return keys


def check_yarn(full: Mapping[str, Any]) -> None:
    """Raise UserError for numbers of YaRN that llama.cpp and transformers apply in their own ways.

    With the usual ones both compute the same.
    """
    usual = {"beta_fast": 32, "beta_slow": 1, "truncate": True, "attention_factor": None}
    for key in (*usual, "mscale", "mscale_all_dim"):
        value = full.get(key)
        if value is not None and value != usual.get(key):
            raise UserError(
                f"the original's config.json says {key}: {value} of its rotary embeddings, which "
                "llama.cpp applies otherwise; give the checkpoint in another format"
            )


def sliding_keys(
    model: GGUFModel, text: Any, rope: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """Keys of Gemma 3's layers that see a window; a file without a window has none of them."""
    layers = text.num_hidden_layers
    slides = [kind == "sliding_attention" for kind in text.layer_types]
    pattern = model.key("attention.sliding_window_pattern", PATTERN)
    if not isinstance(pattern, list):
        stored = int(pattern)
        pattern = [stored > 0 and n % stored < stored - 1 for n in range(layers)]
    compare(model, "attention.sliding_window_pattern", [bool(n) for n in pattern[:layers]], slides)
    keys: dict[str, tuple[Any, Any]] = {
        "attention.sliding_window": (text.sliding_window if any(slides) else 0, 0),
        "attention.sliding_window_pattern": (model.key("attention.sliding_window_pattern"), None),
    }
    local = rope["sliding"] or {}
    if any(slides):
        keys["rope.freq_base_swa"] = (float(local.get("rope_theta", 10000.0)), 10000.0)
        if local.get("rope_type", "default") != "default":
            raise UserError(
                "the original's config.json scales the rotary embeddings of layers with a window, "
                "which GGUF cannot say of Gemma 3; give the checkpoint in another format"
            )
    return keys


def check_shape_of_model(model: GGUFModel, text: Any) -> None:
    """Raise UserError for what config.json says and llama.cpp computes otherwise, without a key."""
    architecture = model.architecture
    activation = getattr(text, "hidden_activation", None) or getattr(text, "hidden_act", None)
    usual = ACTIVATIONS.get(architecture, ("silu", "swish"))
    if activation not in usual:
        raise UserError(
            f"the original's config.json says the activation {activation}, and llama.cpp computes "
            f"{architecture} with {usual[0]}; the file is not the same model"
        )
    if architecture != "gemma3":
        return
    scale = text.query_pre_attn_scalar
    own = head_size(text)
    if text.num_hidden_layers == LAYERS_OF_27B:
        own = text.hidden_size // text.num_attention_heads
    if scale != own:
        raise UserError(
            f"the original's config.json says query_pre_attn_scalar {scale}, and llama.cpp "
            f"computes with {own}; the file does not compute what the original does"
        )
    if getattr(text, "use_bidirectional_attention", None):
        raise UserError(
            "the original's config.json says use_bidirectional_attention, which llama.cpp does not "
            "compute; give the checkpoint in another format"
        )


def check_frequencies(model: GGUFModel, text: Any, rope: Mapping[str, Any]) -> None:
    """Raise UserError unless the file's divisors of rotary frequencies are the original's.

    They are Llama 3's (Meta, llama-models, `apply_scaling`), which config.json says as rope_type
    llama3 with four numbers.
    """
    full = rope["full"]
    scaled = full.get("rope_type") == "llama3"
    tensor = model.tensors.get(FREQUENCIES)
    if tensor is None and not scaled:
        return
    if tensor is None or not scaled:
        has, say = ("no", "rope_type llama3") if scaled else ("a", "no rope_type llama3")
        raise UserError(
            f"{model.path} has {has} tensor {FREQUENCIES}, and the original's config.json says "
            f"{say}; take a file of the same model, made by a converter of today"
        )
    size = rotary_size(text)
    wave = 2 * np.pi * np.float64(full["rope_theta"]) ** (np.arange(0, size, 2) / size)
    factor, low, high = (full[f"{n}factor"] for n in ("", "low_freq_", "high_freq_"))
    length = full["original_max_position_embeddings"]
    smooth = np.clip((length / wave - low) / (high - low), 0, 1)
    expected = 1 / ((1 - smooth) / factor + smooth)
    found = stored_values(model, tensor).reshape(-1).astype(np.float64)
    if found.shape != expected.shape or not np.allclose(found, expected, rtol=SAME, atol=0):
        raise UserError(
            f"{model.path} has other divisors of rotary frequencies ({FREQUENCIES}) than follow "
            "from the original's config.json; take a file of the same model"
        )
