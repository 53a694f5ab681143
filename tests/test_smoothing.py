"""SmoothQuant's and SmoothAttention's scales, and that folding them changes no function."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_architectures import CPU, KNOWN, UNKNOWN, logits_of, observed, tiny_model
from tiny_models import token_samples, token_sequences
from torch import Tensor

from radquant.errors import UserError
from radquant.families.inspection import architecture_of, decoder_layers, head_dim_of
from radquant.packed.formats import format_for
from radquant.quantization.awq import scale_group, source_channels
from radquant.quantization.layerwise import quantize_model
from radquant.quantization.original_model import open_original
from radquant.quantization.smoothing import (
    divide_keys,
    key_maker,
    key_scale,
    pair_lengths,
    smooth_scale,
)
from radquant.settings.recipe import SMOOTH, Recipe

UNCHANGED = 1e-4  # relative change of the logits in float32
seeds = st.integers(0, 2**31)
ATTENTION = ["llama", "mistral", "ministral3", "smollm3", "qwen2", "gemma", "gemma2"]


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 3), seeds)
def test_the_scale_is_the_papers(width: int, count: int, seed: int) -> None:
    weights = [random(5 + n, width, seed=seed + n) for n in range(count)]
    largest = random(width, seed=seed + 9).abs() + 0.1
    found = smooth_scale(weights, largest, torch.arange(width), width)
    together = torch.cat(weights)
    for channel in range(width):
        weight = float(together[:, channel].abs().max())
        expected = float(largest[channel]) ** 0.5 / max(weight, 1e-5) ** 0.5
        assert float(found[channel]) == pytest.approx(expected, rel=1e-4)


def test_channels_that_share_a_source_share_a_scale() -> None:
    """Two value heads of width 4 that four query heads read: the largest of both counts."""
    weight, largest = random(6, 16, seed=1), random(16, seed=2).abs()
    found = smooth_scale([weight], largest, source_channels(8, 16, 4), 8)
    for channel in range(8):
        head, place = divmod(channel, 4)
        read = [2 * head * 4 + place, (2 * head + 1) * 4 + place]
        expected = (largest[read].max() / weight[:, read].abs().max()) ** 0.5
        assert float(found[channel]) == pytest.approx(float(expected), rel=1e-4)


def test_channels_without_any_size_have_a_scale() -> None:
    largest = torch.tensor([0.0, 1.0, 0.0])
    weight = torch.tensor([[0.0, 0.0, 1.0]])
    found = smooth_scale([weight], largest, torch.arange(3), 3)
    assert torch.isfinite(found).all()
    assert (found > 0).all()


@pytest.mark.parametrize("storage", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [*KNOWN, *UNKNOWN])
@torch.inference_mode()
def test_folding_leaves_the_function_unchanged(kind: str, storage: torch.dtype) -> None:
    model = tiny_model(kind, storage)
    architecture = architecture_of(model.config, model)
    layers = decoder_layers(model, architecture)
    with observed(layers, architecture) as statistics:
        before = logits_of(model)
    recipe = Recipe(method="rtn", bits=8, group_size=32, transform=SMOOTH)
    for layer, of_layer in zip(layers, statistics, strict=True):
        for group, of_group in zip(architecture.groups, of_layer, strict=True):
            scale_group(layer, group, of_group, recipe, head_dim_of(model.config), storage)
    with observed(layers, architecture) as after:
        assert (logits_of(model) - before).norm() / before.norm() < UNCHANGED
    for of_layer, now in zip(statistics, after, strict=True):
        for expected, found in zip(of_layer, now, strict=True):  # divided as the inputs are
            torch.testing.assert_close(found.largest, expected.largest, rtol=1e-2, atol=1e-3)
    folded = [group.source is not None for group in architecture.groups]
    assert any(folded) == (kind in KNOWN)


# ------------------------------------------------------------------------------ SmoothAttention


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 3), st.sampled_from([2, 4, 24]), seeds)
def test_key_scales_are_powers_of_two_near_the_root(heads: int, width: int, seed: int) -> None:
    largest = random(heads * width, seed=seed).exp()
    found = key_scale(largest, width)
    exponents = torch.log2(found)
    assert torch.equal(exponents, exponents.round())
    for head in range(heads):
        for place in range(width // 2):
            pair = [head * width + place, head * width + width // 2 + place]
            root = float(largest[pair].max()) ** 0.5
            assert found[pair[0]] == found[pair[1]]
            assert 2**-0.5001 <= float(found[pair[0]]) / root <= 2**0.5001


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.sampled_from([2, 4, 24]), seeds)
def test_lengths_of_pairs_stay_wherever_a_key_stands(heads: int, width: int, seed: int) -> None:
    """Against transformers' rotary embedding at random positions."""
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    keys = random(1, heads, 7, width, seed=seed)
    angle = 100 * random(1, 7, width // 2, seed=seed + 1).repeat(1, 1, 2)
    turned = apply_rotary_pos_emb(keys, keys, angle.cos(), angle.sin())[1]
    flat = [each.transpose(1, 2).flatten(2) for each in (keys, turned)]
    lengths = [pair_lengths(each, width) for each in flat]
    torch.testing.assert_close(*lengths, rtol=1e-3, atol=1e-4)
    first, second = keys[..., : width // 2], keys[..., width // 2 :]
    direct = (first**2 + second**2).sqrt().amax(2)[0]  # [heads, width / 2]
    torch.testing.assert_close(lengths[0], torch.cat([direct, direct], -1).flatten())


def observed_lengths(model: Any, layer: Any, width: int) -> Tensor:
    """The largest lengths of the pairs of a layer's keys, [kv_heads · width]."""
    seen: list[Tensor] = []
    maker = key_maker(layer)
    handle = maker.register_forward_hook(lambda _, __, keys: seen.append(pair_lengths(keys, width)))
    logits_of(model)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ATTENTION)
@torch.inference_mode()
def test_divided_keys_leave_the_function_unchanged(kind: str, dtype: torch.dtype) -> None:
    """With rotary embedding, grouped queries and biases; keys get smaller where they were large."""
    model = tiny_model(kind, dtype)
    architecture = architecture_of(model.config, model)
    width = head_dim_of(model.config)
    before = logits_of(model)
    for layer in decoder_layers(model, architecture):
        maker = key_maker(layer)
        maker.weight[3] *= 64  # an outlying channel
        if maker.bias is not None:
            maker.bias[3] *= 64
    changed = logits_of(model)
    assert (changed - before).norm() > 0.01 * before.norm()
    for layer in decoder_layers(model, architecture):
        largest = observed_lengths(model, layer, width)
        stored = {name: each.clone() for name, each in layer.named_parameters()}
        divide_keys(layer, key_scale(largest, width), width)
        after = observed_lengths(model, layer, width)
        assert float(after.max() / after.min()) < float(largest.max() / largest.min()) ** 0.75
        for name, parameter in layer.named_parameters():
            part = name.rpartition(".")[0]
            moved = part in ("self_attn.q_proj", "self_attn.k_proj")
            assert moved or torch.equal(parameter, stored[name])
            # Powers of two: no digit is lost in the dtype that the original is stored in.
            assert torch.equal(parameter, parameter.to(dtype).float())
    now = logits_of(model)
    assert (now - changed).norm() / changed.norm() < UNCHANGED


@torch.inference_mode()
def test_scales_that_differ_within_a_pair_would_change_it() -> None:
    """So that the test above can tell."""
    model = tiny_model("llama")
    layer = model.model.layers[0]
    before = logits_of(model)
    divide_keys(layer, torch.exp2(random(32, seed=0).round()), 16)
    assert (logits_of(model) - before).norm() > 0.01 * before.norm()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("qwen3", "not known for models that normalize their keys"),
        ("gemma3_text", "not known for models that normalize their keys"),
        ("gemma3", "not known for models that normalize their keys"),
        ("phi3", "needs queries and keys that are made by layers of their own"),
        ("gpt_neox", "needs queries and keys that are made by layers of their own"),
    ],
)
def test_other_keys_are_refused(kind: str, said: str) -> None:
    model = tiny_model(kind)
    layer = decoder_layers(model, architecture_of(model.config, model))[0]
    with pytest.raises(UserError, match=said):
        key_maker(layer)


def quantize(kind: str, folder: Path) -> float:
    """The largest change by dividing the keys of a tiny model."""
    tiny_model(kind).save_pretrained(folder / "m")
    source = open_original(folder / "m")
    recipe = Recipe(method="rtn", bits=8, group_size=32, smooth_attention=True)
    sequences = token_samples(token_sequences(4, 12))
    return quantize_model(
        source, folder / "w", recipe, format_for(recipe), sequences, CPU
    ).largest_change


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2", "opt"])
def test_the_run_divides_keys(kind: str, tmp_path: Path) -> None:
    assert 0 <= quantize(kind, tmp_path) < UNCHANGED / 10


def test_keys_of_another_position_embedding_stop_the_run(tmp_path: Path) -> None:
    """StableLM turns a quarter of a head's channels, whose pairs are others."""
    with pytest.raises(
        UserError,
        match=r"^dividing the keys changed the output of model\.layers\.\d by .*; "
        "leave smooth_attention out$",
    ):
        quantize("stablelm", tmp_path)
