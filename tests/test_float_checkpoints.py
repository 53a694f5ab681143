"""Checkpoints of floating-point types, made here and read by compressed-tensors."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import store, tiny_llama, token_sequences, write_samples
from transformers import AutoModelForCausalLM
from transformers.utils.quantization_config import CompressedTensorsConfig

from radquant.checkpoints.loading import is_simulated, load
from radquant.errors import UserError
from radquant.packed.linear import QuantizedLinear
from radquant.settings.precision import Activations, activations_of
from radquant.settings.recipe import recipe_of

IDS = torch.stack(token_sequences(2, 20, seed=3))
STATIC = {"type": "fp8", "granularity": "tensor", "range": "static"}


@pytest.fixture(autouse=True)
def uncompiled():
    with torch._dynamo.config.patch(disable=True), torch.inference_mode():
        yield


def made(folder: Path, kind: str, method: str, activations: dict | None = None) -> Path:
    size = {"fp8": "-1", "mxfp4": "32", "nvfp4": "16"}[kind]
    more = [] if activations is None else ["--activations", json.dumps(activations)]
    samples = ["--calibration", str(write_samples(folder))]
    options = ["--type", kind, "--group-size", size, "--method", method, *samples, *more]
    return store(tiny_llama(folder / "original"), folder / "checkpoint", *options)


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    layers = model.named_modules()
    return {n: m.dequantize().T for n, m in layers if isinstance(m, QuantizedLinear)}


@pytest.mark.parametrize(("method", "activations"), [("rtn", {"type": "fp8"}), ("gptq", STATIC)])
def test_fp8_computes_the_same_in_transformers(tmp_path: Path, method: str, activations):
    directory = made(tmp_path, "fp8", method, activations)
    loaded = load(directory)
    assert is_simulated(loaded)
    assert loaded.activation_layers == 14
    theirs = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    # Ours takes a scale of each token and none of a batch; neither do theirs.
    assert torch.equal(loaded.model(IDS).logits, theirs(IDS).logits)
    with pytest.raises(UserError, match="says itself how its activations"):
        load(directory, rounding=Activations(bits=8))
    exact, half = weights(loaded.model), load(directory, dtype=torch.bfloat16).model
    for name, rounded in exact.items():
        assert torch.equal(half.get_submodule(name).weight, rounded.bfloat16())


@pytest.mark.parametrize(("kind", "method"), [("mxfp4", "awq"), ("nvfp4", "gptq")])
def test_four_bits_are_the_same_weights_in_transformers(tmp_path: Path, kind: str, method: str):
    activations = (
        {"type": "nvfp4", "range": "static"} if (kind, method) == ("nvfp4", "gptq") else None
    )
    directory = made(tmp_path, kind, method, activations)
    ours = load(directory)
    theirs = AutoModelForCausalLM.from_pretrained(
        directory,
        dtype=torch.bfloat16,
        quantization_config=CompressedTensorsConfig(dequantize=True),
    )
    for name, weight in weights(ours.model).items():
        assert torch.equal(theirs.get_parameter(f"{name}.weight"), weight.bfloat16())
    stored = load_file(directory / "model.safetensors")
    if kind == "nvfp4":
        for layers in (
            "self_attn.q_proj self_attn.k_proj self_attn.v_proj",
            "mlp.gate_proj mlp.up_proj",
        ):
            names = [f"model.layers.0.{name}" for name in layers.split()]
            # Engines multiply these in one product, with one global scale of each kind.
            for suffix in ("weight_global_scale", *["input_global_scale"] * bool(activations)):
                assert len({float(stored[f"{name}.{suffix}"]) for name in names}) == 1
    assert ours.activation_layers == (14 if activations else 0)


def test_calibrated_rounding_is_nearer_on_the_types_own_grid(tmp_path: Path):
    errors = {}
    for method in ("rtn", "gptq"):
        activations = {"type": "mxfp4"} if method == "rtn" else None  # or nothing is calibrated
        folder = tmp_path / method
        folder.mkdir()
        record = json.loads(
            (made(folder, "mxfp4", method, activations) / "quantization.json").read_text()
        )
        errors[method] = sum(layer["output_error"] for layer in record["layers"])
    assert errors["gptq"] < errors["rtn"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"type": "fp8", "bits": 4}, "type fp8 has bits 8, not 4"),
        ({"type": "nvfp4", "group_size": 32}, "type nvfp4 has group_size 16, not 32"),
        ({"type": "mxfp4", "zero_point": True}, "type mxfp4 has zero_point false"),
        ({"type": "nvfp4", "method": "gptq", "desc_act": True}, "desc_act does not go with type"),
        ({"bits": 8, "activations": STATIC}, "static activations of type fp8 are stored with"),
    ],
)
def test_what_a_type_does_not_go_with_is_told(values: dict, said: str):
    with pytest.raises(UserError, match=said):
        recipe_of(values)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"type": "mxfp4", "range": "static"}, "type mxfp4 has no static range"),
        ({"type": "fp8", "clip_ratio": 0.9}, "clip_ratio does not go with type fp8"),
        ({"type": "nvfp4", "granularity": "token"}, 'granularity "group", not "token"'),
    ],
)
def test_activations_of_a_type_say_what_does_not_go(values: dict, said: str):
    with pytest.raises(UserError, match=said):
        activations_of(values)
