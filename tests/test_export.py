"""scripts/export.py: other servers' layouts, against readers written out from their sources."""

import json
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_architectures import tiny_model
from tiny_models import SCRIPTS, store, tiny_llama, token_sequences, write_samples
from transformers import AutoModelForCausalLM

from radquant.checkpoints.loading import load
from radquant.errors import UserError
from radquant.export import modelopt, omniserve
from radquant.export.modelopt import export_modelopt
from radquant.export.omniserve import export_omniserve
from radquant.export.source import older_config
from radquant.packed.grid import QuantizedWeight, quantize
from radquant.packed.progressive_grid import int8_weights
from radquant.settings.recipe import Recipe

IDS = token_sequences(1, 12, seed=9)[0][None]
# The least that OmniServe's kernels take: heads of 128 channels, layers of 256 inputs.
WIDE = {
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "num_hidden_layers": 1,
    "attention_bias": True,
}
PROGRESSIVE = ("--method", "rtn", "--group-size", "128", "--progressive")
SYMMETRIC = ("--method", "rtn", "--group-size", "128", "--symmetric")
SLOW = (64, 384)  # out, in of layers that are read value by value


def random_weight(recipe: Recipe, shape: tuple[int, int] = SLOW) -> QuantizedWeight:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return quantize(weight, recipe)


# ------ OmniServe, value by value


def omniserve_integer(qweight: list[list[int]], out: int, channel: int, inputs: int) -> int:
    """q from the reshapes of W4A8OF16LinearDynamicInputScale.from_linear (w4a8_linear.py).

    There it is [out / 32, 2, 2, 8, in / 32, 2, 4, 4], permuted to [N, K, 8, 4, in: 2, out: 2, in:
    4]. The first of the outputs' twos is in the halves of a byte, low first.
    """
    tile, (a, b, c) = out // 32, (out // 16 % 2, out // 8 % 2, out % 8)
    block, (d, e, f) = channel // 32, (channel // 16 % 2, channel // 4 % 4, channel % 4)
    byte = (((((tile * (inputs // 32) + block) * 8 + c) * 4 + e) * 2 + d) * 2 + b) * 4 + f
    row, column = divmod(byte, inputs // 2)
    return (qweight[row][column] & 0xFF) >> (4 * a) & 15


def test_omniserves_weights_read_one_by_one() -> None:
    weight = random_weight(Recipe(method="rtn", bits=4, group_size=128, progressive=True))
    out, inputs = weight.integers.shape
    packed = omniserve.pack_linear(weight)
    assert {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in packed.items()} == {
        "qweight": (torch.int8, (out, inputs // 2)),
        "s1_scales": (torch.float16, (out,)),
        "s2_scales": (torch.int8, (3, out)),
        "s2_zeros": (torch.int8, (3, out)),
    }
    rows = packed["qweight"].tolist()
    read = [[omniserve_integer(rows, o, c, inputs) for c in range(inputs)] for o in range(out)]
    assert read == weight.integers.tolist()
    scales, zeros = packed["s2_scales"].tolist(), packed["s2_zeros"].tolist()
    for o in range(out):
        place = o // 32 * 32 + o % 8 * 4 + o % 32 // 8  # 0, 8, 16, 24, 1, 9 …
        for group in range(3):
            scale = int(weight.scales[o, group])
            assert scales[group][place] == scale
            offset = -int(weight.zeros[o, group]) * scale % 256
            assert zeros[group][place] % 256 == offset
    assert torch.equal(packed["s1_scales"], weight.channel_scales)  # type: ignore[arg-type]


def test_omniserves_kernel_sees_the_int8_weights() -> None:
    """What each thread of gemm_cuda.cu loads, unpacks and hands to mma.m16n8k32.

    share_to_reg_one_stage_B: thread t loads 16 bytes at t·16 of a tile. The halves of the four
    words are its eight registers, and four scales lie at (t / 4)·4. In the tensor core's B
    fragment, thread t holds column t / 4, and rows (t mod 4)·4 … + 3, in the second register plus
    16.
    """
    weight = random_weight(Recipe(method="rtn", bits=4, group_size=128, progressive=True))
    out, inputs = weight.integers.shape
    packed = omniserve.pack_linear(weight)
    stream = [byte & 0xFF for byte in packed["qweight"].flatten().tolist()]
    found = [[0] * inputs for _ in range(out)]
    for tile in range(out // 32):
        for block in range(inputs // 32):
            start = (tile * (inputs // 32) + block) * 512
            scales = packed["s2_scales"][block * 32 // 128, tile * 32 : tile * 32 + 32].tolist()
            zeros = packed["s2_zeros"][block * 32 // 128, tile * 32 : tile * 32 + 32].tolist()
            for thread in range(32):
                bytes_ = stream[start + thread * 16 : start + thread * 16 + 16]
                x, y, z, w = (bytes_[i : i + 4] for i in range(0, 16, 4))
                low, high = (lambda v: [b & 15 for b in v]), (lambda v: [b >> 4 for b in v])
                loaded = [low(x), low(z), low(y), low(w), high(x), high(z), high(y), high(w)]
                for register, values in enumerate(loaded):
                    place = thread // 4 * 4 + register // 2
                    scale, zero = scales[place], zeros[place] & 0xFF
                    for position, q in enumerate(values):
                        assert q * scale < 256  # no carry into the next byte of the register
                        byte = (q * scale + zero) % 256
                        column = tile * 32 + register // 2 * 8 + thread // 4
                        row = block * 32 + register % 2 * 16 + thread % 4 * 4 + position
                        found[column][row] = byte - 256 if byte > 127 else byte
    expected = int8_weights(weight.integers, weight.zeros, weight.scales)
    assert found == expected.tolist()


def test_omniserves_weights_per_channel() -> None:
    weight = random_weight(Recipe(method="rtn", bits=4, group_size=-1))
    out, inputs = weight.integers.shape
    packed = omniserve.pack_linear(weight)
    assert sorted(packed) == ["qweight", "s1_scales", "s1_szeros"]
    rows = packed["qweight"].tolist()
    for o in range(0, out, 5):
        for c in range(0, inputs, 7):
            value = omniserve_integer(rows, o, c, inputs) * packed["s1_scales"][o].float()
            read = value - packed["s1_szeros"][o].float()
            assert read.item() == pytest.approx(weight.dequantize()[o, c].item(), abs=2e-3)
    assert packed["s1_szeros"].dtype == torch.float16


# ------ OmniServe, whole checkpoints


def with_plain_norms(directory: Path) -> Path:
    """Norms of decoder layers are 1, as rotation leaves them; the final one is not."""
    tensors = load_file(directory / "model.safetensors")
    for name in [n for n in tensors if n.endswith("layernorm.weight")]:
        tensors[name] = torch.ones_like(tensors[name])
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    return directory


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_plain_norms(tiny_llama(tmp_path_factory.mktemp("tiny") / "original", **WIDE))


@pytest.fixture(scope="module")
def progressive(original: Path) -> Path:
    return store(original, original.parent / "progressive", *PROGRESSIVE)


@pytest.fixture(scope="module")
def symmetric(original: Path) -> Path:
    return store(original, original.parent / "symmetric", *SYMMETRIC)


def export(form: str, checkpoint: Path, output: Path, *options: str) -> Path:
    command = ["export.py", "--checkpoint", str(checkpoint), "--format", form]
    with mock.patch.object(sys, "argv", [*command, "--output", str(output), *options]):
        runpy.run_path(str(SCRIPTS / "export.py"), run_name="__main__")
    return output


def logits_of(original: Path, weights: dict[str, torch.Tensor], head: torch.Tensor) -> torch.Tensor:
    """Logits of the original's class with other weights, and with a head of its own."""
    model = AutoModelForCausalLM.from_pretrained(original)
    model.load_state_dict({n: t.float() for n, t in weights.items()}, strict=False)
    hidden: torch.Tensor = model.model(IDS).last_hidden_state
    return hidden @ head.float().T


@pytest.mark.parametrize("options", [PROGRESSIVE, ("--method", "rtn", "--group-size", "-1")])
def test_an_omniserve_checkpoint_holds_the_model(
    original: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    checkpoint = store(original, tmp_path / "checkpoint", *options)
    exported = export("omniserve", checkpoint, tmp_path / "exported")
    stored = torch.load(exported / "pytorch_model.bin", weights_only=True)
    weights = {}
    for name in [n.removesuffix(".qweight") for n in stored if n.endswith(".qweight")]:
        assert name.endswith("_proj")
        qweight = stored[f"{name}.qweight"].tolist()
        out, inputs = len(qweight), 2 * len(qweight[0])
        q = torch.tensor(
            [[omniserve_integer(qweight, o, c, inputs) for c in range(inputs)] for o in range(out)]
        )
        s1 = stored[f"{name}.s1_scales"].float()[:, None]
        if f"{name}.s1_szeros" in stored:
            weights[f"{name}.weight"] = q * s1 - stored[f"{name}.s1_szeros"].float()[:, None]
            continue
        place = torch.tensor([o // 32 * 32 + o % 8 * 4 + o % 32 // 8 for o in range(out)])
        scales = stored[f"{name}.s2_scales"].int().T[place].repeat_interleave(128, 1)
        offsets = stored[f"{name}.s2_zeros"].int().T[place].repeat_interleave(128, 1)
        levels = (q * scales + offsets + 128) % 256 - 128
        weights[f"{name}.weight"] = levels * s1
    assert len(weights) == 7
    # The loader takes no tensor with "norm" in its name: there they stay 1.
    kept = {n: t for n, t in stored.items() if "norm" not in n and n.endswith((".weight", ".bias"))}
    norms = dict.fromkeys([n for n in stored if "norm" in n], torch.ones(WIDE["hidden_size"]))
    head = kept.pop("lm_head.weight")
    found = logits_of(original, {**weights, **kept, **norms}, head)
    expected = load(checkpoint).model(IDS).logits
    assert (found - expected).norm() < 5e-3 * expected.norm()
    config = json.loads((exported / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["torch_dtype"] == "float16"
    assert config["rope_theta"] == 10000.0
    assert config["rope_scaling"] is None
    assert "OmniServe" in (exported / "README.md").read_text()
    assert "radquant.checkpoints.loading.load" not in (exported / "README.md").read_text()
    record = json.loads((exported / "export.json").read_text())
    assert record["checkpoint"]["recipe"]["method"] == "rtn"
    assert "pytorch_model.bin" in record["files"]
    assert (exported / "tokenizer.json").is_file()


def test_norms_that_the_server_would_skip_are_refused(tmp_path: Path) -> None:
    original = tiny_llama(tmp_path / "original", **WIDE)
    checkpoint = store(original, tmp_path / "checkpoint", *PROGRESSIVE)
    with pytest.raises(UserError, match=r"input_layernorm.weight is not 1 and OmniServe's loader"):
        export_omniserve(checkpoint, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()
    exported = export("omniserve", checkpoint, tmp_path / "exported", "--keep-norms")
    stored = torch.load(exported / "pytorch_model.bin", weights_only=True)
    plain = load_file(checkpoint / "model.safetensors")
    for name in ("model.norm.weight", "model.layers.0.input_layernorm.weight"):
        assert torch.equal(stored[name], plain[name].half())
    assert torch.equal(stored["lm_head.weight"], plain["model.embed_tokens.weight"].half())


def calibrated(*options: str) -> Callable[[Path, Path], Path]:
    def made(original: Path, output: Path) -> Path:
        return store(original, output, *options, "--calibration", str(write_samples(output.parent)))

    return made


def tiny(**changes: Any) -> Callable[[Path, Path], Path]:
    def made(original: Path, output: Path) -> Path:
        model = tiny_llama(output.parent / "other", **{**WIDE, **changes})
        return store(model, output, *PROGRESSIVE)

    return made


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (calibrated("--method", "rtn", "--bits", "8"), "4 bits, not 8"),
        (
            calibrated("--method", "rtn", "--progressive", "--group-size", "64"),
            r"groups of 128 or whole rows \(-1\), not of 64",
        ),
        (calibrated("--method", "awq", "--group-size", "128"), "progressive scales only; quantize"),
        (tiny(num_attention_heads=4, num_key_value_heads=2), "attention heads of 64 channels"),
        (tiny(mlp_bias=True), "biases in the MLP"),
        (tiny(intermediate_size=128), "256 at least; down_proj has 128"),
        (tiny(hidden_act="gelu"), "activation gelu"),
        (
            tiny(rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}),
            "rotary scaling 'dynamic'",
        ),
    ],
)
def test_what_omniserve_cannot_hold(
    original: Path, tmp_path: Path, made: Callable[[Path, Path], Path], said: str
) -> None:
    checkpoint = made(original, tmp_path / "checkpoint")
    with pytest.raises(UserError, match=said) as raised:
        export_omniserve(checkpoint, tmp_path / "exported")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("writer", [export_omniserve, export_modelopt])
def test_other_architectures_and_originals_are_refused(
    original: Path, tmp_path: Path, writer: Callable[[Path, Path], None]
) -> None:
    with pytest.raises(UserError, match="is not quantized; name a checkpoint"):
        writer(original, tmp_path / "exported")
    with pytest.raises(UserError, match=r"has no config.json"):
        writer(tmp_path, tmp_path / "exported")
    tiny_model("gemma2").save_pretrained(tmp_path / "gemma")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(original / file, tmp_path / "gemma" / file)
    checkpoint = store(tmp_path / "gemma", tmp_path / "checkpoint", "--method", "rtn")
    with pytest.raises(UserError, match=r"is a Gemma2ForCausalLM; .* LlamaForCausalLM, Mistral"):
        writer(checkpoint, tmp_path / "exported")


def test_widths_of_the_kernels() -> None:
    config = {**WIDE, "hidden_size": 256, "num_key_value_heads": 1}
    omniserve.check_config(config, 128)
    with pytest.raises(UserError, match="multiples of 128 inputs, 256 at least; down_proj has 320"):
        omniserve.check_config({**config, "intermediate_size": 320}, 128)
    many = {**config, "num_attention_heads": 3, "hidden_size": 384, "intermediate_size": 416}
    with pytest.raises(UserError, match="down_proj has 416"):
        omniserve.check_config(many, -1)


# ------ ModelOpt's layout


def modelopt_integer(weight: torch.Tensor, out: int, channel: int) -> int:
    """pack_int4_in_uint8: outputs 2i and 2i + 1 in the low and high half of row i, signed."""
    nibble = int(weight[out // 2, channel]) >> (4 * (out % 2)) & 15
    return nibble - 16 if nibble > 7 else nibble


def test_modelopts_weights_read_one_by_one() -> None:
    weight = random_weight(Recipe(method="rtn", bits=4, group_size=128, zero_point=False))
    packed = modelopt.pack_linear("model.layers.0.mlp.up_proj", weight, torch.float16)
    assert {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in packed.items()} == {
        "weight": (torch.uint8, (32, 384)),
        "weight_scale": (torch.float32, (64, 3)),
    }
    expected = weight.dequantize()
    for o in range(64):
        for c in range(384):
            scale = packed["weight_scale"][o, c // 128].item()
            assert modelopt_integer(packed["weight"], o, c) * scale == expected[o, c].item()


def test_a_modelopt_checkpoint_holds_the_model(
    original: Path, symmetric: Path, tmp_path: Path
) -> None:
    exported = export("modelopt", symmetric, tmp_path / "exported")
    stored = load_file(exported / "model.safetensors")
    weights = {}
    for name in [n.removesuffix("_scale") for n in stored if n.endswith(".weight_scale")]:
        packed, scale = stored[name], stored[f"{name}_scale"]
        signed = torch.stack([packed & 15, packed >> 4], 1).flatten(0, 1).int()
        signed = signed - 16 * (signed > 7)
        weights[name] = signed * scale.repeat_interleave(128, 1)
        has_scale = name.replace(".weight", ".pre_quant_scale") in stored
        assert has_scale == name.endswith(("o_proj.weight", "down_proj.weight"))
    assert len(weights) == 7
    ones = [tensor for name, tensor in stored.items() if name.endswith("pre_quant_scale")]
    assert all(tensor.dtype == torch.float16 and (tensor == 1).all() for tensor in ones)
    kept = {n: t for n, t in stored.items() if n not in weights and t.dtype == torch.float16}
    head = stored["model.embed_tokens.weight"]
    found = logits_of(original, {**kept, **weights}, head)
    expected = load(symmetric).model(IDS).logits
    assert (found - expected).norm() < 5e-3 * expected.norm()
    assert json.loads((exported / "hf_quant_config.json").read_text())["quantization"] == {
        "quant_algo": "W4A16_AWQ",
        "kv_cache_quant_algo": None,
        "group_size": 128,
        "has_zero_point": False,
        "pre_quant_scale": True,
        "exclude_modules": ["lm_head"],
    }
    config = json.loads((exported / "config.json").read_text())
    assert config["dtype"] == config["torch_dtype"] == "float16"
    assert "quantization_config" not in config


def test_modelopts_dtype(symmetric: Path, tmp_path: Path) -> None:
    exported = export("modelopt", symmetric, tmp_path / "exported", "--dtype", "bfloat16")
    stored = load_file(exported / "model.safetensors")
    assert stored["model.norm.weight"].dtype == torch.bfloat16
    assert stored["model.layers.0.mlp.down_proj.pre_quant_scale"].dtype == torch.bfloat16
    assert stored["model.layers.0.mlp.down_proj.weight_scale"].dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--bits", "8", "--symmetric"), "has weights of 4 bits, not 8"),
        (("--symmetric",), "groups of 128, not of 32"),
        (("--group-size", "128"), "has zero points, which W4A16_AWQ has not"),
        (("--group-size", "128", "--progressive"), "W4A16_AWQ has no progressive scales"),
    ],
)
def test_what_modelopt_cannot_hold(
    original: Path, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    checkpoint = store(original, tmp_path / "checkpoint", "--method", "rtn", *options)
    with pytest.raises(UserError, match=said):
        export_modelopt(checkpoint, tmp_path / "exported")


@pytest.mark.parametrize("form", ["gptq", "compressed-tensors"])
def test_checkpoints_in_other_formats_give_the_same(
    original: Path, symmetric: Path, tmp_path: Path, form: str
) -> None:
    checkpoint = store(original, tmp_path / "checkpoint", *SYMMETRIC, "--format", form)
    first = load_file(export("modelopt", symmetric, tmp_path / "a") / "model.safetensors")
    second = load_file(export("modelopt", checkpoint, tmp_path / "b") / "model.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


# ------ both


def test_what_overflows_float16_is_refused(original: Path, tmp_path: Path) -> None:
    shutil.copytree(original, tmp_path / "original")
    tensors = load_file(original / "model.safetensors")
    tensors["model.embed_tokens.weight"][3, 3] = 1e5
    save_file(tensors, tmp_path / "original" / "model.safetensors", {"format": "pt"})
    checkpoint = store(tmp_path / "original", tmp_path / "checkpoint", *SYMMETRIC)
    with pytest.raises(UserError, match=r"embed_tokens.weight has values that torch.float16"):
        export_modelopt(checkpoint, tmp_path / "exported")


def test_a_changed_checkpoint_is_refused(progressive: Path, tmp_path: Path) -> None:
    shutil.copytree(progressive, tmp_path / "changed")
    (tmp_path / "changed" / "config.json").write_text("{}")
    with pytest.raises(UserError, match="delete the directory, and quantize or download it again"):
        export_omniserve(tmp_path / "changed", tmp_path / "exported")


def test_rotary_settings_where_older_releases_look() -> None:
    linear = {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5}
    found = older_config({"rope_parameters": linear, "hidden_size": 8}, torch.float16)
    assert found["rope_theta"] == 5e5
    assert found["rope_scaling"] == {"rope_type": "linear", "type": "linear", "factor": 2.0}
    found = older_config({"rope_theta": 7.0, "rope_scaling": None}, torch.float16)
    assert found["rope_theta"] == 7.0


@pytest.mark.parametrize(
    "options",
    [("--format", "modelopt", "--keep-norms"), ("--format", "omniserve", "--dtype", "bfloat16")],
)
def test_options_of_the_other_format(options: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        export(options[1], tmp_path, tmp_path / "exported", *options[2:])
