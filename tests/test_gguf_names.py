"""Names of tensors in GGUF files, held against the gguf package's own table."""

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radquant.errors import UserError
from radquant.gguf.names import (
    ARCHITECTURES,
    gguf_architecture,
    row_order,
    text_name,
    to_gguf,
    to_hugging_face,
)

PARTS = {
    "llama": ("self_attn.q_proj.weight", "mlp.down_proj.weight", "input_layernorm.weight"),
    "qwen2": ("self_attn.k_proj.bias", "self_attn.o_proj.weight"),
    "qwen3": ("self_attn.q_norm.weight", "post_attention_layernorm.weight"),
    "gemma3": (
        "self_attn.k_norm.weight",
        "post_attention_layernorm.weight",
        "pre_feedforward_layernorm.weight",
        "post_feedforward_layernorm.weight",
        "mlp.gate_proj.weight",
    ),
}


@pytest.mark.parametrize("architecture", sorted(set(ARCHITECTURES.values())))
def test_the_names_are_those_of_the_gguf_package(architecture: str) -> None:
    kind = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}[architecture]
    table = gguf.get_tensor_name_map(kind, 12)
    names = [f"model.layers.11.{part}" for part in PARTS[architecture]]
    for name in [*names, "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"]:
        stored = to_gguf(name, architecture)
        assert stored == table.get_name(name, try_suffixes=(".weight", ".bias"))
        assert stored is not None
        assert to_hugging_face(stored, architecture) == name


def test_a_model_with_images_has_its_language_part() -> None:
    name = "model.layers.3.mlp.up_proj.weight"
    assert text_name(f"language_model.{name}") == name
    assert text_name("model.language_model.layers.3.mlp.up_proj.weight") == name
    assert text_name("language_model.lm_head.weight") == "lm_head.weight"
    assert text_name("vision_tower.vision_model.encoder.layers.3.mlp.fc1.weight") is None
    assert to_gguf("multi_modal_projector.mm_soft_emb_norm.weight", "gemma3") is None
    assert to_hugging_face("rope_freqs.weight", "llama") is None


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(UserError, match="type phi3 are not known as GGUF"):
        gguf_architecture("phi3")


@given(st.integers(1, 6), st.integers(1, 16))
def test_neighbouring_rows_were_half_a_head_apart(heads: int, half: int) -> None:
    order = row_order(2 * half * heads, heads)
    pairs = order.reshape(heads, half, 2)
    assert (pairs[..., 1] - pairs[..., 0] == half).all()
    assert (np.sort(order) == np.arange(2 * half * heads)).all()
    assert (pairs[..., 0] // (2 * half) == np.arange(heads)[:, None]).all()


def test_rows_that_are_no_heads_are_refused() -> None:
    with pytest.raises(UserError, match="30 rows do not fall into 4 heads"):
        row_order(30, 4)
