"""Formats of checkpoints: which holds what, what others announce, and reading all of them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny_architectures import tiny_model
from tiny_models import store, tiny_llama, token_sequences, write_samples
from transformers import AutoModelForCausalLM

from radquant.checkpoints.loading import load
from radquant.errors import UserError
from radquant.packed.formats import (
    Settings,
    all_formats,
    field_bits,
    format_for,
    in_memory,
    settings_of,
    stored_format,
    unpack,
)
from radquant.packed.grid import QuantizedWeight, quantize
from radquant.packed.linear import PackedLinear
from radquant.settings.recipe import Recipe

IDS = token_sequences(1, 12, seed=9)[0][None]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(
        tmp_path_factory.mktemp("tiny") / "original", attention_bias=True, num_key_value_heads=2
    )


@pytest.fixture(scope="module")
def in_gptq(original: Path) -> Path:
    return store(original, original.parent / "gptq", "--method", "rtn", "--format", "gptq")


@pytest.fixture
def loose(in_gptq: Path, tmp_path: Path) -> Path:
    """A copy of a checkpoint as another tool would leave it: without a record of hashes."""
    shutil.copytree(in_gptq, tmp_path / "loose")
    (tmp_path / "loose" / "quantization.json").unlink()
    return tmp_path / "loose"


@pytest.mark.parametrize(
    ("recipe", "asked", "name"),
    [
        (Recipe(method="awq", bits=4, group_size=128), None, "gemm"),
        (Recipe(method="rtn", bits=8, group_size=-1), None, "gemm"),
        (Recipe(method="awq", bits=3, group_size=128), None, "gptq"),
        (Recipe(method="gptq", bits=4, group_size=128), None, "gptq"),
        (Recipe(method="gptq", bits=4, group_size=128), "gemm", "gemm"),
        (Recipe(method="gptq", bits=2, group_size=128), "compressed-tensors", "compressed-tensors"),
        (
            Recipe(method="gptq", bits=4, group_size=-1, desc_act=True),
            "gemm",
            "gemm",
        ),  # one group has no order
        (Recipe(method="gptq", bits=4, group_size=128, progressive=True), None, "qoq"),
    ],
)
def test_the_format_of_a_recipe(recipe: Recipe, asked: str | None, name: str) -> None:
    assert name == format_for(recipe, asked).NAME


@pytest.mark.parametrize(
    ("recipe", "asked", "said"),
    [
        (Recipe(method="awq", bits=3, group_size=128), "gemm", "cannot hold 3 bits; use gptq"),
        (
            Recipe(method="gptq", bits=3, group_size=128),
            "compressed-tensors",
            "cannot hold 3 bits; use gptq",
        ),
        (
            Recipe(method="gptq", bits=4, group_size=32, desc_act=True),
            "gemm",
            "groups in order of activation",
        ),
        (
            Recipe(method="gptq", bits=4, group_size=32, desc_act=True),
            "compressed-tensors",
            "in order of activation",
        ),
        (Recipe(method="awq", bits=4, group_size=32), "exl2", "no format 'exl2'"),
        (
            Recipe(method="awq", bits=4, group_size=32),
            "qoq",
            "holds progressive scales only; set progressive to true",
        ),
        (
            Recipe(method="awq", bits=4, group_size=32, progressive=True),
            "gemm",
            "cannot hold progressive .* format qoq",
        ),
    ],
)
def test_a_format_that_cannot_hold_a_recipe(recipe: Recipe, asked: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        format_for(recipe, asked)


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(
        [(f.NAME, b) for f in all_formats() if f.NAME not in ("qoq", "gguf") for b in f.BITS]
    ),
    st.booleans(),
    st.sampled_from([32, -1]),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 2**31),
)
def test_every_format_gives_back_what_was_stored(
    form: tuple[str, int], zero_point: bool, group_size: int, outs: int, groups: int, seed: int
) -> None:
    name, bits = form
    recipe = Recipe(method="rtn", bits=bits, group_size=group_size, zero_point=zero_point)
    weight = torch.randn(32 * outs, 32 * groups, generator=torch.Generator().manual_seed(seed))
    stored = quantize(weight, recipe)
    packed = stored_format(name).pack(stored, recipe)
    config = json.loads(json.dumps(stored_format(name).config(recipe, ["lm_head"])))
    read = unpack(packed, settings_of(config))
    assert torch.equal(read.integers, stored.integers)
    assert torch.equal(read.zeros, stored.zeros)
    assert torch.equal(read.scales, stored.scales)
    layer = PackedLinear(weight.shape[1], weight.shape[0], field_bits(bits), group_size)
    layer.load_state_dict(in_memory(packed, settings_of(config)), strict=False, assign=True)
    assert torch.equal(layer.dequantize().T, stored.dequantize())


def out_of_order() -> QuantizedWeight:
    """Three groups whose channels take turns."""
    stored = quantize(torch.randn(32, 96), Recipe(method="rtn", bits=4, group_size=32))
    index = (torch.arange(96) * 7 % 3).to(torch.int32)
    return QuantizedWeight(stored.integers, stored.scales, stored.zeros, index)


@pytest.mark.parametrize("name", ["gptq", "compressed-tensors"])
def test_groups_in_order_of_activation(name: str) -> None:
    """Weights by the definition, (q − zero)·scale of each channel's own group."""
    stored = out_of_order()
    assert stored.group_index is not None
    recipe = Recipe(method="gptq", bits=4, group_size=32, desc_act=True)
    packed = stored_format(name).pack(stored, recipe)
    config = stored_format(name).config(recipe, [])
    if name == "compressed-tensors":  # llm-compressor wrote such groups until its package refused
        packed["weight_g_idx"] = stored.group_index
        config["config_groups"]["group_0"]["weights"]["actorder"] = "group"
    layer = PackedLinear(96, 32, 4, 32, ordered=True)
    layer.load_state_dict(in_memory(packed, settings_of(config)), strict=False, assign=True)
    weight, x = torch.zeros(32, 96), torch.randn(2, 5, 96)
    for channel, group in enumerate(stored.group_index.tolist()):
        offset = stored.integers[:, channel].float() - stored.zeros[:, group].float()
        weight[:, channel] = offset * stored.scales[:, group].float()
    assert torch.equal(layer.dequantize().T, weight)
    torch.testing.assert_close(layer(x), x @ weight.T, rtol=1e-5, atol=1e-5)


AUTOAWQ = {
    "quant_method": "awq",
    "bits": 4,
    "group_size": 128,
    "zero_point": True,
    "version": "gemm",
    "modules_to_not_convert": None,
}
GPTQMODEL = {
    "quant_method": "gptq",
    "method": "gptq",
    "bits": 3,
    "group_size": 64,
    "desc_act": True,
    "sym": True,
    "lm_head": False,
    "format": "gptq",
    "checkpoint_format": "gptq",
    "pack_dtype": "int32",
    "meta": {"quantizer": ["gptqmodel:7.2.0"], "damp_percent": 0.05},
}
WEIGHTS = {"num_bits": 4, "type": "int", "symmetric": False, "strategy": "group", "group_size": 128}
COMPRESSED = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "quantization_status": "compressed",
    "config_groups": {
        "group_0": {"targets": ["Linear"], "weights": WEIGHTS, "input_activations": None}
    },
    "ignore": ["lm_head"],
}


def grouped(**changes: object) -> dict[str, object]:
    """An llm-compressor configuration with other weights."""
    group = {"targets": ["Linear"], "weights": {**WEIGHTS, **changes}, "format": "pack-quantized"}
    return {**COMPRESSED, "config_groups": {"group_0": group}}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (AUTOAWQ, Settings("gemm", 4, 128, False)),
        ({**AUTOAWQ, "version": "GEMM", "group_size": -1}, Settings("gemm", 4, -1, False)),
        (GPTQMODEL, Settings("gptq", 3, 64, True, True, True)),
        (
            {**GPTQMODEL, "sym": False, "desc_act": False}
            | dict.fromkeys(("format", "checkpoint_format"), "gptq_v2"),
            Settings("gptq", 3, 64, False),
        ),
        (
            {"quant_method": "gptq", "bits": 4, "group_size": 128},
            Settings("gptq", 4, 128, True, True),
        ),
        ({**GPTQMODEL, "dynamic": {"-:.*vision.*": {}}}, Settings("gptq", 3, 64, True, True, True)),
        (COMPRESSED, Settings("compressed-tensors", 4, 128, False)),
        (
            grouped(strategy="channel", group_size=None, symmetric=True, num_bits=8),
            Settings("compressed-tensors", 8, -1, True),
        ),
    ],
)
def test_what_other_tools_announce(config: dict[str, object], expected: Settings) -> None:
    assert settings_of(config) == expected


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            {"quant_method": "bitsandbytes"},
            "says neither load_in_4bit nor load_in_8bit",
        ),
        ({}, "quant_method None cannot be read"),
        ({**AUTOAWQ, "version": "gemv_fast"}, "version 'gemv_fast' cannot be read"),
        ({**AUTOAWQ, "version": "marlin"}, "version 'marlin' cannot be read"),
        ({**AUTOAWQ, "version": "gemv", "format": "gemm"}, "names two versions, gemm and gemv"),
        ({**AUTOAWQ, "version": "gemv", "bits": 8}, "'gemv' have 4 bits, and this one says 8"),
        ({**AUTOAWQ, "bits": 5}, "5-bit checkpoints in gemm cannot be read"),
        ({"quant_method": "awq", "bits": 4}, "no group_size"),
        ({**AUTOAWQ, "group_size": -2}, "group_size -2"),
        ({**GPTQMODEL, "checkpoint_format": "marlin"}, "'marlin'"),
        ({**GPTQMODEL, "pack_dtype": "int16"}, "int16"),
        ({**COMPRESSED, "format": "marlin-24"}, "marlin-24 cannot be read"),
        ({**COMPRESSED, "config_groups": {}}, "has no config_groups"),
        (grouped(type="float"), "floating-point weights of 4 bits by group in groups of 128"),
        (grouped(strategy="block"), "of type int by block cannot be read"),
        (
            {
                **COMPRESSED,
                "config_groups": {"group_0": {"weights": WEIGHTS, "input_activations": {}}}
                | {"group_1": {"weights": {**WEIGHTS, "num_bits": 8}}},
            },
            "group_0, has no targets",
        ),
        (
            {
                **COMPRESSED,
                "config_groups": {
                    "g": {"targets": ["Linear"], "weights": WEIGHTS, "input_activations": WEIGHTS}
                },
            },
            "activations of 4 bits of type int by group, dynamic: None, are not known",
        ),
    ],
)
def test_what_cannot_be_read_is_one_sentence(config: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said) as raised:
        settings_of(config)
    assert "\n" not in str(raised.value)


def test_all_formats_of_the_same_weights_compute_the_same(original: Path, in_gptq: Path) -> None:
    expected = load(in_gptq).model(IDS).logits
    for name in ("gemm", "compressed-tensors"):
        options = ("--method", "rtn", "--format", name)
        loaded = load(store(original, original.parent / name, *options))
        assert loaded.layers_quantized == 14
        assert torch.equal(loaded.model(IDS).logits, expected)


@pytest.mark.parametrize(
    "options",
    [
        ("--method", "rtn", "--bits", "3"),
        ("--method", "rtn", "--bits", "2", "--symmetric"),
        ("--method", "gptq", "--bits", "4", "--desc-act", "--symmetric"),
        ("--method", "gptq", "--bits", "8", "--desc-act", "--group-size", "-1"),
    ],
)
def test_a_loaded_checkpoint_computes_with_its_weights(
    original: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """Logits against a plain transformers model that holds the dequantized weights."""
    calibration = ("--calibration", str(write_samples(tmp_path)))
    checkpoint = store(original, tmp_path / "checkpoint", *options, *calibration)
    config = json.loads((checkpoint / "config.json").read_text())["quantization_config"]
    stored = load_file(checkpoint / "model.safetensors")
    plain = AutoModelForCausalLM.from_pretrained(original)
    suffixes = ("qweight", "qzeros", "scales", "g_idx")
    for name in [n.removesuffix(".qweight") for n in stored if n.endswith(".qweight")]:
        tensors = {suffix: stored[f"{name}.{suffix}"] for suffix in suffixes}
        weight = unpack(tensors, settings_of(config)).dequantize()
        plain.get_parameter(f"{name}.weight").data.copy_(weight)
    logits = load(checkpoint).model(IDS).logits
    torch.testing.assert_close(logits, plain(IDS).logits, rtol=1e-4, atol=1e-4)


def edit(directory: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Rewrite a checkpoint's tensors."""
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})


def test_scales_keep_their_dtype(loose: Path) -> None:
    """Tools that store a bfloat16 model keep its scales in bfloat16 or float32."""

    def widen(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if name.endswith("scales")]:
            tensors[name] = tensors[name].float() * (1 + 1e-5)

    before = load(loose).model(IDS).logits
    edit(loose, widen)
    model = load(loose, dtype=torch.bfloat16).model
    layer = model.get_submodule("model.layers.0.mlp.up_proj")
    assert layer.scales.dtype == torch.float32
    assert model.model.norm.weight.dtype == torch.bfloat16
    assert not torch.equal(load(loose).model(IDS).logits, before)


def test_several_shards(loose: Path) -> None:
    expected = load(loose).model(IDS).logits
    tensors = load_file(loose / "model.safetensors")
    (loose / "model.safetensors").unlink()
    weight_map = {}
    for number in (1, 2):
        file = f"model-0000{number}-of-00002.safetensors"
        part = {name: tensors[name] for name in sorted(tensors)[number - 1 :: 2]}
        save_file(part, loose / file, {"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (loose / "model.safetensors.index.json").write_text(json.dumps(index))
    assert torch.equal(load(loose).model(IDS).logits, expected)


LAYER = "model.layers.1.mlp.down_proj"


def drop(name: str) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda tensors: tensors.__delitem__(f"{LAYER}.{name}")


def replace(name: str, tensor: torch.Tensor) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda tensors: tensors.update({f"{LAYER}.{name}": tensor})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (drop("qzeros"), f"layer {LAYER} cannot be read: its qzeros is missing"),
        (drop("qweight"), "loose has no weights for model.layers.1"),
        (replace("scales", torch.ones(5, 64)), r"its scales has shape \[5, 64\], not \[4, 64\]"),
        (replace("qweight", torch.ones(16, 64)), "its qweight holds torch.float32"),
        (replace("g_idx", torch.zeros(128).int()), "does not make 4 groups of one size"),
        (replace("g_idx", torch.arange(128).int() // 16), "does not make 4 groups of one size"),
        (lambda t: t.update({"model.norm.weight": torch.ones(3)}), r"model.norm.weight has shape"),
        (lambda t: t.update({"model.norm.extra": torch.ones(3)}), "model.norm.extra"),
        (lambda t: t.update({"model.norm.qweight": torch.ones(3)}), "norm"),
    ],
)
def test_a_damaged_checkpoint_is_one_sentence(
    loose: Path, change: Callable[[dict[str, torch.Tensor]], None], said: str
) -> None:
    edit(loose, change)
    with pytest.raises(UserError, match=said) as raised:
        load(loose)
    assert str(loose) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_unknown_method_names_the_directory(loose: Path) -> None:
    config = json.loads((loose / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "hqq"}
    (loose / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"loose/config\.json: checkpoints with quant_method 'hqq'"):
        load(loose)


def test_what_ends_an_answer_is_taken_over(loose: Path) -> None:
    (loose / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 7]}))
    assert load(loose).model.generation_config.eos_token_id == [2, 7]


@pytest.mark.parametrize("name", ["gemm", "gptq", "compressed-tensors"])
def test_a_model_with_images_writes_text(original: Path, tmp_path: Path, name: str) -> None:
    model = tiny_model("gemma3")
    model.save_pretrained(tmp_path / "images")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(original / file, tmp_path / "images" / file)
    options = ("--method", "rtn", "--bits", "8", "--format", name)
    loaded = load(store(tmp_path / "images", tmp_path / name, *options))
    assert type(loaded.model).__name__ == "Gemma3ForConditionalGeneration"
    assert loaded.layers_quantized == 14
    state = loaded.model.state_dict()
    kept = {n: t for n, t in model.state_dict().items() if "vision" in n or "projector" in n}
    assert kept
    assert all(torch.equal(state[n], tensor) for n, tensor in kept.items())
    difference = (loaded.model(IDS).logits - model(IDS).logits).norm() / model(IDS).logits.norm()
    assert difference < 0.1
    written = loaded.model.generate(IDS, max_new_tokens=4, do_sample=False, eos_token_id=None)
    assert written.shape == (1, IDS.shape[1] + 4)
