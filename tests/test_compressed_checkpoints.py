"""Checkpoints of compressed-tensors in all of its formats, as the package itself stores them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationScheme
from compressed_tensors.quantization.utils import calculate_qparams
from safetensors.torch import load_file, save_file
from tiny_models import tiny_llama, token_sequences
from torch import Tensor
from transformers import AutoModelForCausalLM

from radquant.checkpoints.loading import load
from radquant.errors import UserError
from radquant.files import read_json
from radquant.generation.lean_decoder import take_over
from radquant.generation.lean_rows import Read
from radquant.kernels.choice import takes_integers
from radquant.packed.formats import check_tensors, settings_of, unpack
from radquant.packed.linear import PackedLinear

INTS = {"num_bits": 8, "type": "int", "dynamic": False}
FLOAT = {"num_bits": 8, "type": "float", "symmetric": True, "dynamic": False}
BY_TOKEN = {"num_bits": 8, "type": "int", "strategy": "token", "dynamic": True}
FP8_BY_TOKEN = {**FLOAT, "strategy": "token", "dynamic": True}
BLOCK = {"strategy": "block", "block_structure": [48, 64]}
# Format, weights, inputs.
SCHEMES: dict[str, tuple[str, dict[str, Any], dict[str, Any] | None]] = {
    "w8a8": ("int-quantized", {**INTS, "strategy": "channel"}, BY_TOKEN),
    "w8a8 zeros": ("int-quantized", {**INTS, "strategy": "channel", "symmetric": False}, BY_TOKEN),
    "w8a8 tensor": ("int-quantized", {**INTS, "strategy": "tensor"}, BY_TOKEN),
    "w8 groups": ("naive-quantized", {**INTS, "strategy": "group", "group_size": 32}, None),
    "w4 bytes": ("naive-quantized", {**INTS, "num_bits": 4, "strategy": "channel"}, None),
    "w4a8": (
        "pack-quantized",
        {**INTS, "num_bits": 4, "strategy": "group", "group_size": 32},
        BY_TOKEN,
    ),
    "w8 packed": ("pack-quantized", {**INTS, "strategy": "channel"}, None),
    "w2 packed": (
        "pack-quantized",
        {**INTS, "num_bits": 2, "strategy": "group", "group_size": 32, "symmetric": False},
        None,
    ),
    "fp8": ("float-quantized", {**FLOAT, "strategy": "channel"}, FP8_BY_TOKEN),
    "fp8 tensor": ("float-quantized", {**FLOAT, "strategy": "tensor"}, FP8_BY_TOKEN),
    "fp8 block": ("float-quantized", {**FLOAT, **BLOCK}, FP8_BY_TOKEN),
    "fp8 weights": ("naive-quantized", {**FLOAT, "strategy": "channel"}, None),
}


def scales_of(weight: Tensor, scheme: QuantizationScheme) -> tuple[Tensor, Tensor]:
    """Scale and zero by the package's own formula."""
    args = scheme.weights
    assert args is not None
    if args.strategy == "tensor":
        low, high = weight.amin().reshape(1), weight.amax().reshape(1)
    elif args.strategy == "block":
        rows, columns = args.block_structure
        tiles = weight.unflatten(0, (-1, rows)).unflatten(2, (-1, columns))
        low, high = tiles.amin((1, 3)), tiles.amax((1, 3))
    else:
        groups = weight.unflatten(1, (-1, args.group_size or weight.shape[1]))
        low, high = groups.amin(-1), groups.amax(-1)
    scale, zero = calculate_qparams(low, high, args)
    return scale, zero


def compressed(weight: Tensor, name: str) -> tuple[dict[str, Tensor], dict[str, Any], Tensor]:
    """A layer's stored tensors, its group of the configuration, and its values by the package."""
    form, weights, inputs = SCHEMES[name]
    group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs}
    scheme = QuantizationScheme(**group)
    scale, zero = scales_of(weight, scheme)
    compressor = BaseCompressor.get_value_from_registry(form)
    layer = {"weight": weight, "weight_scale": scale, "weight_zero_point": zero}
    stored = compressor.compress(layer, scheme)
    values = compressor.decompress(dict(stored), scheme)["weight"].float()
    said = json.loads(scheme.model_dump_json()) | {"format": form}
    return {k: v for k, v in stored.items() if v is not None}, said, values


def announced(*groups: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "quant_method": "compressed-tensors",
        "format": groups[0]["format"] if len(groups) == 1 else "mixed-precision",
        "config_groups": {f"group_{i}": group for i, group in enumerate(groups)},
        "ignore": ["lm_head"],
        "quantization_status": "compressed",
        **more,
    }


@pytest.mark.parametrize("name", SCHEMES)
def test_every_value_is_the_packages_own(name: str) -> None:
    torch.manual_seed(3)
    weight = torch.randn(96, 128) * torch.randn(96, 1).exp()
    stored, group, expected = compressed(weight, name)
    settings = settings_of(announced(group))
    check_tensors(stored, settings, 128, 96)
    assert torch.equal(unpack(stored, settings).dequantize(), expected)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("compressed") / "original")


def checkpoint(
    original: Path, directory: Path, groups: dict[str, str], **more: Any
) -> tuple[Path, dict[str, Tensor]]:
    """A checkpoint with the layers whose names end so in these schemes, and its layers' values."""
    tensors, values, said = load_file(original / "model.safetensors"), {}, {}
    for name in [name for name in tensors if "_proj" in name]:
        layer = name.removesuffix(".weight")
        end = next((end for end in groups if layer.endswith(end)), None)
        if end is None:
            continue
        stored, group, values[name] = compressed(tensors.pop(name), groups[end])
        tensors |= {f"{layer}.{suffix}": tensor.contiguous() for suffix, tensor in stored.items()}
        said[end] = group | {"targets": [f"re:.*{end}$"] if len(groups) > 1 else ["Linear"]}
    directory.mkdir()
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    config = read_json(original / "config.json")
    config["quantization_config"] = announced(*said.values(), **more)
    (directory / "config.json").write_text(json.dumps(config))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (directory / file).write_bytes((original / file).read_bytes())
    return directory, values


def logits_with(original: Path, values: dict[str, Tensor], ids: Tensor) -> Tensor:
    model = AutoModelForCausalLM.from_pretrained(original)
    for name, value in values.items():
        model.get_parameter(name).data.copy_(value)
    found: Tensor = model(ids).logits.detach()
    return found


def test_groups_of_several_kinds_are_read_layer_by_layer(original: Path, tmp_path: Path) -> None:
    groups = {"up_proj": "w2 packed", "q_proj": "fp8 weights", "down_proj": "w8 packed"}
    directory, values = checkpoint(original, tmp_path / "mixed", groups)
    ids = token_sequences(1, 24, seed=9)[0][None]
    loaded = load(directory)
    assert (loaded.layers_quantized, loaded.values, loaded.simulation) == (6, 2, None)
    expected = logits_with(original, values, ids)
    assert torch.allclose(loaded.model(ids).logits, expected, rtol=1e-4, atol=1e-4)


def test_only_layers_whose_group_says_so_round_their_inputs(original: Path, tmp_path: Path) -> None:
    rest = [f"{name}_proj" for name in ("down", "gate", "q", "k", "v", "o")]
    groups = {"up_proj": "w8a8"} | dict.fromkeys(rest, "w8 packed")
    directory, _ = checkpoint(original, tmp_path / "mixed", groups)
    loaded = load(directory)
    assert (loaded.layers_quantized, loaded.activation_layers) == (14, 2)
    assert loaded.simulation is not None
    assert not takes_integers(loaded.model.get_submodule("model.layers.0.mlp.down_proj"))
    assert all(name.endswith("up_proj") for name in loaded.simulation.touched)
    rounding, ids = loaded.simulation.settings, token_sequences(1, 24, seed=9)[0]
    for layer in loaded.model.modules():
        if isinstance(layer, PackedLinear):
            layer.scales = layer.scales.half()  # the decoder's alone
    with torch.inference_mode():
        expected = loaded.model(ids[None]).logits[0]
    lean = take_over(loaded, rounding)
    lean.reach(24)
    found = lean.decoder.logits(lean.run({0: Read(ids.tolist())}, range(24)))
    assert (found - expected).norm() < 1e-3 * expected.norm()


def test_inputs_rounded_in_two_ways_are_refused(original: Path, tmp_path: Path) -> None:
    groups = {"up_proj": "w8a8", "down_proj": "fp8"}
    directory, _ = checkpoint(original, tmp_path / "mixed", groups)
    with pytest.raises(UserError, match="rounds the inputs of some layers otherwise"):
        load(directory)
