"""Formats of other programs that are read: every value as the program's own code has it.

tests/foreign_layers.safetensors has small layers as bitsandbytes 0.50.2 and torchao 0.18 stored
them on a CPU. It also has the SHA-256 of the float32 values that their own code makes of them.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_models import store, tiny_llama, token_sequences
from torch import Tensor
from transformers.integrations.finegrained_fp8 import Fp8Dequantize

from radquant.checkpoints.loading import load
from radquant.errors import UserError
from radquant.files import read_json
from radquant.packed.formats import check_tensors, settings_of, unpack
from radquant.packed.in_memory import quantized_layer
from radquant.packed.linear import PackedLinear, QuantizedLinear
from radquant.runtime.activations import quantize_activations
from radquant.settings.precision import Activations

LAYERS = Path(__file__).with_name("foreign_layers.safetensors")
BNB = {"quant_method": "bitsandbytes", "_load_in_4bit": False, "_load_in_8bit": False}
BNB |= {"llm_int8_skip_modules": None, "llm_int8_threshold": 6.0, "load_in_4bit": True}


def torchao(kind: str, **data: Any) -> dict[str, Any]:
    return {
        "quant_method": "torchao",
        "quant_type": {"default": {"_type": kind, "_data": data}},
        "modules_to_not_convert": None,
        "include_input_output_embeddings": False,
    }


CONFIGS: dict[str, tuple[dict[str, Any], tuple[int, int]]] = {
    "nf4": ({**BNB, "bnb_4bit_quant_type": "nf4"}, (24, 40)),
    "fp4": ({**BNB, "bnb_4bit_quant_type": "fp4", "bnb_4bit_quant_storage": "bfloat16"}, (32, 64)),
    "nf4-nested": ({**BNB, "bnb_4bit_quant_type": "nf4"}, (160, 128)),
    "int8": ({**BNB, "load_in_4bit": False, "load_in_8bit": True}, (24, 40)),
    "torchao-int8": (torchao("Int8WeightOnlyConfig", group_size=None), (32, 64)),
    "torchao-fp8": (torchao("Float8WeightOnlyConfig"), (32, 64)),
    "torchao-intx": (torchao("IntxWeightOnlyConfig"), (32, 64)),
    "awq-gemv": (
        {**{"quant_method": "awq", "bits": 4, "group_size": 32}, "zero_point": True}
        | {"version": "gemv"},
        (16, 192),
    ),
}


def stored(name: str) -> dict[str, Tensor]:
    found = load_file(LAYERS)
    return {k.removeprefix(f"{name}."): v for k, v in found.items() if k.startswith(f"{name}.")}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_value_is_the_programs_own(name: str) -> None:
    config, (outputs, inputs) = CONFIGS[name]
    settings, tensors = settings_of(config), stored(name)
    check_tensors(tensors, settings, inputs, outputs)
    values = unpack(tensors, settings).dequantize().contiguous()
    with safe_open(LAYERS, "pt") as file:
        expected = file.metadata()[name].split()[0]
    assert hashlib.sha256(values.numpy().tobytes()).hexdigest() == expected


def test_layers_of_gemv_lie_in_memory_as_others() -> None:
    """Packed along the inputs in the file, and along the outputs for the kernels here."""
    config, (outputs, inputs) = CONFIGS["awq-gemv"]
    settings, tensors = settings_of(config), stored("awq-gemv")
    layer = quantized_layer(tensors, settings, inputs, outputs)
    assert isinstance(layer, PackedLinear)
    assert torch.equal(layer.dequantize().T, unpack(tensors, settings).dequantize())


@pytest.mark.parametrize("block", [None, (32, 16)])
def test_fp8_of_transformers(block: tuple[int, int] | None) -> None:
    torch.manual_seed(2)
    weight = torch.randn(64, 48).to(torch.float8_e4m3fn)
    shape = () if block is None else (2, 3)
    scale = torch.rand(shape) + 0.1
    settings = settings_of(
        {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": block}
    )
    tensors = {"weight": weight, "weight_scale_inv": scale}
    check_tensors(tensors, settings, 48, 64)
    expected = Fp8Dequantize(None)._dequantize_one(weight, scale.reshape(shape or (1, 1)))
    assert torch.equal(unpack(tensors, settings).dequantize(), expected)
    assert settings.activations is not None
    assert settings.activations.granularity == ("tensor" if block is None else "group")


def test_fp8_blocks_that_end_early() -> None:
    settings = settings_of({"quant_method": "fp8", "weight_block_size": [32, 32]})
    weight = torch.ones(40, 48).to(torch.float8_e4m3fn)
    scales = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    tensors = {"weight": weight, "weight_scale_inv": scales}
    check_tensors(tensors, settings, 48, 40)
    values = unpack(tensors, settings).dequantize()
    assert (values[:32, :32] == 1).all()
    assert (values[:32, 32:] == 2).all()
    assert (values[32:, :32] == 3).all()
    assert (values[32:, 32:] == 4).all()


def test_large_inputs_of_llm_int8_stay_as_they_are() -> None:
    x = torch.tensor([[[1.0, -0.013, 7.5, 0.5], [0.1, 0.2, 0.3, -6.0]]])
    rounded = quantize_activations(x, Activations(bits=8, keep_from=6.0))
    assert torch.equal(rounded[x.abs() >= 6], x[x.abs() >= 6])
    rest = quantize_activations(x.masked_fill(x.abs() >= 6, 0), Activations(bits=8))
    assert torch.equal(rounded[x.abs() < 6], rest[x.abs() < 6])


AUTO = {"quant_method": "auto-round", "bits": 4, "group_size": 32, "sym": True, "data_type": "int"}
AUTO |= {"block_name_to_quantize": "model.layers", "autoround_version": "0.15.1"}


@pytest.mark.parametrize(("name", "packed"), [("gptq", "auto_gptq"), ("gemm", "auto_awq")])
def test_auto_round_names_whose_tensors_they_are(tmp_path: Path, name: str, packed: str) -> None:
    """The same model as under the format's own name."""
    original = tiny_llama(tmp_path / "original")
    options = ["--symmetric"] if name == "gptq" else []
    options += ["--group-size", "32"]
    directory = store(original, tmp_path / name, "--method", "rtn", "--format", name, *options)
    (directory / "quantization.json").unlink()
    ids = token_sequences(1, 12)[0][None]
    expected = load(directory).model(ids).logits
    extra = {"model.layers.0.mlp.up_proj": {"bits": 16, "data_type": "float"}}
    for change, said in (({}, None), ({"extra_config": extra}, "up_proj")):
        config = json.loads((directory / "config.json").read_text())
        config["quantization_config"] = {
            **AUTO,
            "packing_format": f"auto_round:{packed}",
            "sym": name == "gptq",
            **change,
        }
        (directory / "config.json").write_text(json.dumps(config))
        if said is None:
            assert torch.equal(load(directory).model(ids).logits, expected)
            continue
        with pytest.raises(UserError, match=said):  # it is quantized in the files
            load(directory)


def test_auto_rounds_own_packing_has_zeros_as_they_are() -> None:
    own = settings_of({**AUTO, "packing_format": "auto_round", "sym": False})
    assert (own.format, own.zeros_less_one, own.symmetric) == ("gptq", False, False)


def test_a_whole_checkpoint_of_bitsandbytes(tmp_path: Path) -> None:
    """Suffixes with dots, layers that are left out, and a layer of the wrong size."""
    original = tiny_llama(tmp_path / "original")
    tensors = load_file(original / "model.safetensors")
    layer = "model.layers.0.mlp.up_proj"
    state = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [128, 64]}
    table = torch.linspace(-1, 1, 16)
    codes = torch.randint(0, 256, (128 * 32, 1), dtype=torch.uint8)
    del tensors[f"{layer}.weight"]
    tensors |= {
        f"{layer}.weight": codes,
        f"{layer}.weight.absmax": torch.arange(128.0) / 128,
        f"{layer}.weight.quant_map": table,
        f"{layer}.weight.quant_state.bitsandbytes__nf4": as_bytes(state),
    }
    skip = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj", "layers.1"]
    config = read_json(original / "config.json")
    config["quantization_config"] = {
        **BNB,
        "bnb_4bit_quant_type": "nf4",
        "llm_int8_skip_modules": skip,
    }
    (original / "config.json").write_text(json.dumps(config))
    save_file(tensors, original / "model.safetensors", {"format": "pt"})
    loaded = load(original)
    (module,) = [m for m in loaded.model.modules() if isinstance(m, QuantizedLinear)]
    halves = torch.stack((codes.flatten() // 16, codes.flatten() % 16), -1).reshape(128, 64)
    expected = table[halves.long()] * (torch.arange(128.0) / 128)[:, None]
    assert torch.equal(module.dequantize().T, expected)
    tensors[f"{layer}.weight.quant_state.bitsandbytes__nf4"] = as_bytes(
        state | {"shape": [64, 128]}
    )
    save_file(tensors, original / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=rf"layer {layer} cannot be read: it has shape \[64, 128\]"):
        load(original)


def as_bytes(state: dict[str, Any]) -> Tensor:
    return torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "block": ({"quant_method": "fp8", "weight_block_size": [128]}, "are no sizes"),
    "e5m2": ({"quant_method": "fp8", "fmt": "e5m2"}, "format 'e5m2' cannot be read"),
    "scheme": ({"quant_method": "fp8", "activation_scheme": "odd"}, "'odd'; it is not known"),
    "neither": ({**BNB, "load_in_4bit": False}, "says neither load_in_4bit nor load_in_8bit"),
    "af4": ({**BNB, "bnb_4bit_quant_type": "af4"}, "of type 'af4' cannot be read"),
    "int4": (torchao("Int4WeightOnlyConfig"), "of Int4WeightOnlyConfig cannot be read"),
    "by layer": (
        {"quant_method": "torchao", "quant_type": {"a": {}, "b": {}}},
        "torchao checkpoints of .* cannot be read",
    ),
    "embedding": (
        torchao("Int8WeightOnlyConfig") | {"include_input_output_embeddings": True},
        "says include_input_output_embeddings: True, which is not applied",
    ),
    "marlin": ({**AUTO, "packing_format": "auto_round:marlin"}, "'auto_round:marlin' cannot be"),
    "mxfp": ({**AUTO, "data_type": "mx_fp"}, "says data_type: 'mx_fp', which cannot be read"),
    "w4a8": ({**AUTO, "act_bits": 8}, "says act_bits: 8, which are not applied"),
    "experts": ({"quant_method": "mxfp4"}, "quant_method 'mxfp4' cannot be read"),
}


@pytest.mark.parametrize(("config", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_read_is_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        settings_of(config)


DAMAGED: dict[str, tuple[str, dict[str, Tensor | None], str]] = {
    "state": (
        "nf4",
        {"weight.quant_state.bitsandbytes__nf4": torch.tensor([123], dtype=torch.uint8)},
        "its quant_state is no JSON",
    ),
    "cut": ("nf4", {"weight": torch.zeros(100, dtype=torch.uint8)}, "it has 100 bytes and"),
    "half nested": ("nf4-nested", {"weight.nested_quant_map": None}, "are quantized themselves"),
    "tiles": ("int8", {"weight_format": torch.tensor(1, dtype=torch.uint8)}, "order of a GPU's"),
    "scales": ("torchao-intx", {"_weight_scale": torch.ones(32, 7)}, r"shape \[32, 7\], which its"),
}


@pytest.mark.parametrize(("name", "change", "said"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_layer_is_refused(name: str, change: dict[str, Tensor | None], said: str) -> None:
    config, (outputs, inputs) = CONFIGS[name]
    tensors = {k: v for k, v in {**stored(name), **change}.items() if v is not None}
    settings = settings_of(config)
    with pytest.raises(UserError, match=said):
        quantized_layer(tensors, settings, inputs, outputs)
