"""Each architecture's table on real classes of transformers: folding leaves the function alone."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from gemma import read_gemma
from tiny_architectures import (
    FURTHER,
    KNOWN,
    SHOWN,
    TEXT,
    UNKNOWN,
    change_by_folding,
    tiny_model,
)

from radquant.errors import UserError
from radquant.families.architectures import Norm, Rows
from radquant.families.gemma3 import FAMILY as GEMMA3
from radquant.families.inspection import (
    architecture_of,
    decoder_layers,
    head_dim_of,
    layer_linears,
    not_converted,
)
from radquant.quantization.awq import search_scale

UNCHANGED = 1e-4  # relative change of the logits in float32


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("storage", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", [*KNOWN, *FURTHER, *SHOWN])
def test_folding_leaves_the_function_unchanged(
    kind: str, storage: torch.dtype, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_model(kind, storage)
    before = weights_of(model)
    architecture = architecture_of(model.config, model)
    assert change_by_folding(model, architecture, storage) < UNCHANGED
    assert not capsys.readouterr().err

    path = architecture.decoder_layers
    scaled = [group for group in architecture.groups if group.source is not None]
    assert len(scaled) >= 2
    names = {name for group in scaled for name in group.linears}
    names |= {group.source.linear for group in scaled if isinstance(group.source, Rows)}
    beside = {f"{name}.weight" for group in scaled for name in group.beside}  # rounded when stored
    for name, parameter in model.named_parameters():
        changed = not torch.equal(parameter, before[name])
        inner = name.removeprefix(f"{path}.").partition(".")[2]  # without the layer's number
        linear, _, kind_of = inner.rpartition(".")
        if name.startswith(f"{path}.") and linear in names and kind_of == "weight":
            assert changed, name  # its input was scaled, or its output
        elif (
            changed and inner not in beside
        ):  # norms and biases, and what is stored of them loses nothing
            assert name.startswith(f"{path}."), name
            assert torch.equal(parameter, parameter.to(storage).float()), name


@pytest.mark.parametrize("kind", ["gemma", "gemma2", "gemma3_text", "gemma3"])
def test_gemmas_norm_divided_plainly_is_noticed(kind: str) -> None:
    """The norm multiplies by 1 + weight: dividing the weight alone ruins the model."""
    model = tiny_model(kind)
    right = architecture_of(model.config, model)
    plain = tuple(
        dataclasses.replace(group, source=Norm(group.source.name))
        if isinstance(group.source, Norm)
        else group
        for group in right.groups
    )
    change = change_by_folding(model, dataclasses.replace(right, groups=plain), torch.float32)
    assert change > 1000 * UNCHANGED


def test_the_norm_after_gemmas_attention_is_no_source() -> None:
    model = tiny_model("gemma3_text")
    right = architecture_of(model.config, model)
    gate_up = dataclasses.replace(right.groups[2], source=Norm("post_attention_layernorm", 1.0))
    groups = (*right.groups[:2], gate_up, *right.groups[3:])
    wrong = dataclasses.replace(right, groups=groups)
    assert change_by_folding(model, wrong, torch.float32) > 1000 * UNCHANGED


@pytest.mark.parametrize("kind", [*KNOWN, *FURTHER, *SHOWN])
def test_tables_name_every_linear_layer(kind: str) -> None:
    model = tiny_model(kind)
    architecture = architecture_of(model.config, model)
    layers = decoder_layers(model, architecture)
    assert len(layers) == TEXT["num_hidden_layers"]
    for layer in layers:
        assert layer_linears(layer, architecture)


def test_only_the_language_layers_of_a_model_with_images_are_converted() -> None:
    model = tiny_model("gemma3")
    architecture = architecture_of(model.config, model)
    assert architecture == dataclasses.replace(
        GEMMA3.architecture, decoder_layers="model.language_model.layers"
    )
    assert head_dim_of(model.config) == 32
    kept = not_converted(model, architecture)
    assert sorted(kept) == ["lm_head", "multi_modal_projector", "vision_tower"]
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            skipped = any(each in name for each in kept)  # as the readers of the list do it
            assert skipped != name.startswith(architecture.decoder_layers), name


def test_an_empty_model_will_do() -> None:
    config = tiny_model("gemma3_text").config
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    architecture = architecture_of(config, model)
    assert architecture == GEMMA3.architecture
    assert not_converted(model, architecture) == ["lm_head"]


@pytest.mark.parametrize("kind", UNKNOWN)
def test_an_unknown_architecture_is_left_unscaled_with_a_warning(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_model(kind)
    before = weights_of(model)
    architecture = architecture_of(model.config, model)
    warning = capsys.readouterr().err
    assert warning.startswith(f"warning: nothing is known about models of type '{kind}'")
    assert warning.count("\n") == 1
    assert len(decoder_layers(model, architecture)) == 2
    for layer in decoder_layers(model, architecture):
        assert layer_linears(layer, architecture)
    assert change_by_folding(model, architecture, torch.float32) == 0
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])


def test_what_surrounds_an_unknown_models_layers_is_not_converted() -> None:
    """OPT has linear layers between its embeddings and its decoder layers."""
    model = tiny_model("opt")
    kept = not_converted(model, architecture_of(model.config, model))
    assert sorted(kept) == ["lm_head", "project_in", "project_out"]


@pytest.mark.parametrize("name", ["Mixtral", "GptOss"])
def test_fused_experts_are_refused(name: str) -> None:
    config = getattr(transformers, f"{name}Config")(**TEXT, num_local_experts=2)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    with pytest.raises(UserError, match=r"model\.layers\.0\.mlp\.\S+ has shape .*experts"):
        architecture_of(config, model)


def test_a_model_without_linear_layers_is_refused() -> None:
    """GPT-2 keeps its weights in layers of its own."""
    config = transformers.GPT2Config(n_layer=2, n_embd=64, n_head=4, vocab_size=50)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    with pytest.raises(UserError, match=r"GPT2LMHeadModel has no list of decoder layers"):
        architecture_of(config, model)


def test_unequal_decoder_layers_are_refused() -> None:
    model = tiny_model("llama")
    model.model.layers[1].mlp.gate_proj = torch.nn.Identity()
    with pytest.raises(UserError, match=r"layers\.1 and model\.layers\.0 differ in mlp\.gate_proj"):
        architecture_of(model.config, model)


@pytest.fixture(scope="session")
def real_gemma(downloads: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Gemma 3 270M with bfloat16 values, computing in float32."""
    model = read_gemma(tmp_path_factory.mktemp("gemma"), downloads)
    return model.float().eval().requires_grad_(False)


@pytest.mark.long
def test_folding_leaves_a_real_gemma_unchanged(real_gemma: Any) -> None:
    architecture = architecture_of(real_gemma.config, real_gemma)
    assert len(decoder_layers(real_gemma, architecture)) == 18
    change = change_by_folding(real_gemma, architecture, torch.bfloat16, 2, search_scale)
    assert 0 < change < UNCHANGED
