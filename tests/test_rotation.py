"""Hadamard rotations on classes of transformers: the function stays, a wrong table is found."""

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from simulation import matrix
from tiny_architectures import FURTHER, KNOWN, UNKNOWN, logits_of, tiny_model
from tiny_models import store, tiny_llama, token_samples, token_sequences, write_samples
from torch import nn

from radquant.checkpoints.loading import load
from radquant.errors import UserError
from radquant.families import llama
from radquant.families.architectures import Architecture, Norm, O, Rows
from radquant.families.inspection import architecture_of, decoder_layers, head_dim_of
from radquant.families.llama import ARCHITECTURE as LLAMA
from radquant.packed.formats import format_for
from radquant.quantization import invariance, layerwise, rotated_embeddings, rotation
from radquant.quantization.original_model import open_original
from radquant.settings.recipe import HADAMARD, Recipe

CPU = torch.device("cpu")
UNCHANGED = 1e-4  # relative change of the logits in float32
# Matrices of these orders are not symmetric, so that a rotation the wrong way shows: 96 = 12·8,
# 40 = 20·2, 160 = 20·8.
WIDTHS = {"hidden_size": 96, "intermediate_size": 160}
FOLDED = ["llama", "mistral", "ministral3", "smollm3", "qwen2", "qwen3", "phi3", "gemma", "granite"]
ONLINE = ["gemma2", "gemma3_text", "gemma3", "olmo2", "olmo3", "cohere", "cohere2"]


def odd_widths(kind: str) -> dict[str, Any]:
    """Widths whose matrices are not symmetric: 24 or 40 of a head."""
    if kind == "opt":
        return {"hidden_size": 96, "ffn_dim": 160, "word_embed_proj_dim": 32}
    heads = {"head_dim": 40} if "head_dim" in {**KNOWN, **FURTHER}.get(kind, ("", {}))[1] else {}
    return WIDTHS | heads | ({"head_dim": 40} if kind == "gemma3" else {})


def rotated(model: Any, folder: Path, storage: torch.dtype) -> rotation.Rotation:
    """Rotate a whole `model` in place, as the engine does it by parts."""
    copy.deepcopy(model).to(storage).save_pretrained(folder / "original")
    source = open_original(folder / "original")
    table = source.architecture
    plan = rotation.plan_rotation(table, source.config, head_dim_of(source.config))
    tensors, changed = rotated_embeddings.rotated_outside(source, plan, folder)
    with torch.inference_mode():
        for layer in decoder_layers(model, table):
            rotation.rotate_layer(layer, table, plan)
        if changed:  # a tied head becomes one of its own
            head = model.get_output_embeddings()
            head.weight = nn.Parameter(head.weight.clone(), requires_grad=False)
        state = {source.own_names.get(name, name): each.load() for name, each in tensors.items()}
        assert not model.load_state_dict(state, strict=False).unexpected_keys
    return plan


def change(model: Any, folder: Path, storage: torch.dtype = torch.float32) -> float:
    """The relative change of the logits by rotating all of `model`."""
    before = logits_of(model)
    rotated(model, folder, storage)
    return float((logits_of(model) - before).norm() / before.norm())


def test_the_widths_tell_a_rotation_from_its_inverse() -> None:
    for width in (96, 40, 24, 160):
        assert not torch.allclose(matrix(width), matrix(width).T)


@pytest.mark.parametrize("kind", [*KNOWN, *FURTHER, *UNKNOWN])
def test_rotating_leaves_the_function_unchanged(kind: str, tmp_path: Path) -> None:
    model = tiny_model(kind, **odd_widths(kind))
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    assert 0 < change(model, tmp_path) < UNCHANGED
    architecture = architecture_of(model.config, model)
    names = [name for group in architecture.groups for name in group.linears]
    for name, parameter in model.named_parameters():
        inside = name.startswith(f"{architecture.decoder_layers}.")
        if inside and any(name.endswith(f".{linear}.weight") for linear in names):
            assert not torch.equal(parameter, before[name]), name


@pytest.mark.parametrize("kind", FOLDED)
def test_a_head_of_its_own(kind: str, tmp_path: Path) -> None:
    model = tiny_model(kind, tie_word_embeddings=False, **odd_widths(kind))
    assert 0 < change(model, tmp_path) < UNCHANGED


@pytest.mark.parametrize("kind", ["llama", "qwen2", "phi3", "gemma", "gemma3_text"])
def test_half_precision_costs_embedding_and_head_no_more_than_its_digits(
    kind: str, tmp_path: Path
) -> None:
    """Stored again, their values are rounded to 8 bits, an error of 2^−9 at most."""
    model = tiny_model(kind, torch.bfloat16, **odd_widths(kind))
    assert 0 < change(model, tmp_path, torch.bfloat16) < (0.02 if kind in FOLDED else UNCHANGED)


@pytest.mark.parametrize("kind", [*KNOWN, *FURTHER, *UNKNOWN])
def test_what_is_folded_and_what_is_done_at_run_time(kind: str) -> None:
    model = tiny_model(kind)
    table = architecture_of(model.config, model)
    plan = rotation.plan_rotation(table, model.config, head_dim_of(model.config))
    assert (plan.signs is not None) == (kind in FOLDED)
    every = {name for group in table.groups for name in group.linears}
    if kind in FOLDED:
        assert plan.online == ("mlp.down_proj",)
    elif kind in ONLINE:
        assert set(plan.online) == every - {O}
    else:
        assert set(plan.online) == every
    sources = {
        group.linears: group.source for group in rotation.rotated_architecture(table, plan).groups
    }
    assert all(sources[(name,)] is None for name in plan.online if (name,) in sources)


def test_a_model_with_images_keeps_its_residual_stream(tmp_path: Path) -> None:
    """What the image tower puts there is not rotated, whatever the table of the text model says."""
    model = tiny_model("gemma3")
    table = dataclasses.replace(architecture_of(model.config, model), writers=(O,))
    assert rotation.plan_rotation(table, model.config, 32).signs is None


@pytest.mark.parametrize("kind", FOLDED)
def test_rotated_activations_have_no_outlying_channel(kind: str, tmp_path: Path) -> None:
    """One channel of the embedding is a hundred times the others, and so is what layers read."""
    model = tiny_model(kind, **odd_widths(kind))
    model.get_input_embeddings().weight[:, 5] *= 100
    name, read = architecture_of(model.config, model).groups[0].linears[0], []
    layer = decoder_layers(model, architecture_of(model.config, model))[0]
    for parameter in layer.get_submodule("input_layernorm").parameters():
        parameter.fill_(0 if kind == "gemma" else 1)
    layer.get_submodule(name).register_forward_pre_hook(
        lambda _, args: read.append(args[0].flatten(0, -2))
    )
    change(model, tmp_path)
    before, after = (float(x.abs().amax() / x.abs().median()) for x in read)
    assert after < before / 4


# ------------------------------------------------------------------------------- wrong tables


def without_writers(table: Architecture) -> Architecture:
    return dataclasses.replace(table, writers=table.writers[:1])


def wrong_norm(table: Architecture) -> Architecture:
    return with_group(table, 2, Norm("input_layernorm"))


def wrong_offset(table: Architecture) -> Architecture:
    return with_group(table, 0, Norm("input_layernorm", 1.0))


def wrong_values(table: Architecture) -> Architecture:
    return with_group(table, 1, Rows("self_attn.k_proj"))


def with_group(table: Architecture, place: int, source: Norm | Rows) -> Architecture:
    groups = list(table.groups)
    groups[place] = dataclasses.replace(groups[place], source=source)
    return dataclasses.replace(table, groups=tuple(groups))


def quantize(original: Path, work: Path) -> layerwise.Quantization:
    recipe = Recipe(method="rtn", bits=8, group_size=32, transform=HADAMARD)
    source = open_original(original)
    samples = token_samples(token_sequences(4, 12))
    return layerwise.quantize_model(source, work, recipe, format_for(recipe), samples, CPU)


@pytest.mark.parametrize("spoil", [without_writers, wrong_norm, wrong_offset, wrong_values])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_wrong_table_stops_the_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Architecture], Architecture],
    dtype: torch.dtype,
) -> None:
    table = spoil(LLAMA)
    monkeypatch.setattr(llama, "FAMILY", dataclasses.replace(llama.FAMILY, architecture=table))
    original = tiny_llama(tmp_path / "m", dtype)
    with pytest.raises(
        UserError, match=r"rotating the layer changed the output of model\.layers\.0 by"
    ):
        quantize(original, tmp_path / "work")


def test_a_right_table_does_not(tmp_path: Path) -> None:
    result = quantize(tiny_llama(tmp_path / "m"), tmp_path / "work")
    assert 0 < result.largest_change < invariance.INVARIANCE_BOUND / 10
    assert result.online == ("mlp.down_proj",)


def test_a_wrong_final_norm_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are rotated the other way, say: nothing but the head's own check would see it."""
    monkeypatch.setattr(
        rotated_embeddings, "head_of_rotated", lambda head, norm, final, plan: head.float() * norm
    )
    with pytest.raises(UserError, match="rotating the head changed its scores by"):
        quantize(tiny_llama(tmp_path / "m"), tmp_path / "work")


@pytest.mark.parametrize("largest", [1.0, 1000.0])
def test_a_small_mistake_is_no_rounding(tmp_path: Path, largest: float) -> None:
    """One output of 96 off by a hundredth, also beside a token with a far larger channel."""
    model = tiny_model("llama", **odd_widths("llama"))
    table = architecture_of(model.config, model)
    plan = rotation.plan_rotation(table, model.config, head_dim_of(model.config))
    layer = decoder_layers(model, table)[0]
    hidden = torch.randn(1, 20, 96)
    hidden[:, 0, 7] *= largest
    positions = torch.arange(20)[None]
    turned = rotation.rotate_residual(hidden, plan)

    def found(spoiled: float) -> float:
        wrong = copy.deepcopy(layer)
        rotation.rotate_layer(wrong, table, plan)
        wrong.get_submodule(table.writers[0]).weight[3] *= 1 + spoiled
        angles = model.model.rotary_emb(hidden, positions)
        expected = layer(hidden, position_embeddings=angles)
        return rotation.change_by_rotation(
            expected, wrong(turned, position_embeddings=angles), plan
        )

    assert found(0) < invariance.INVARIANCE_BOUND / 10
    assert found(0.01) > invariance.INVARIANCE_BOUND


# ---------------------------------------------------------------------------- whole checkpoints


@pytest.mark.parametrize("kind", [*KNOWN, *UNKNOWN])
def test_a_rotated_checkpoint_computes_what_the_original_does(kind: str, tmp_path: Path) -> None:
    """In 8 bits, as well as one that is not rotated."""
    tokenizer = tiny_llama(tmp_path / "tokens")
    original = tmp_path / "original"
    model = tiny_model(kind, **odd_widths(kind))
    model.save_pretrained(original)
    for file in tokenizer.glob("token*"):
        (original / file.name).write_bytes(file.read_bytes())
    expected, errors = logits_of(model), {}
    for transform in ("none", HADAMARD):
        options = ["--method", "rtn", "--bits", "8", "--transform", transform]
        options += ["--calibration", str(write_samples(tmp_path))]
        loaded = load(store(original, tmp_path / transform, *options))
        assert loaded.runtime.rotate_keys == (transform == HADAMARD)
        errors[transform] = float((logits_of(loaded.model) - expected).norm() / expected.norm())
    assert errors[HADAMARD] < max(2 * errors["none"], 0.02)
    config = json.loads((tmp_path / HADAMARD / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "radquant"
