"""The AWQ engine: its losses against direct computation, its checks, and its checkpoints."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import quantize_tiny, tiny_llama, token_samples, token_sequences
from transformers import AutoModelForCausalLM

from radquant.checkpoints.loading import load
from radquant.errors import UserError
from radquant.families import llama
from radquant.families.architectures import Architecture, Norm, Rows
from radquant.families.llama import ARCHITECTURE as LLAMA
from radquant.packed.formats import format_for
from radquant.packed.grid import quantize
from radquant.packed.packing import unpack
from radquant.quantization import invariance, layerwise
from radquant.quantization.awq import (
    InputStatistics,
    fold_into_norm,
    output_error,
    search_scale,
    source_channels,
)
from radquant.quantization.clipping import search_clip
from radquant.quantization.original_model import open_original
from radquant.settings.recipe import Recipe, recipe_values

ROOT = Path(__file__).parent.parent
AWQ = Recipe(method="awq", bits=4, group_size=32)
CPU = torch.device("cpu")


@pytest.fixture
def packed_tiny(tmp_path: Path) -> Path:
    return quantize_tiny(tiny_llama(tmp_path / "original"), tmp_path)


def statistics_of(x: torch.Tensor) -> InputStatistics:
    statistics = InputStatistics.empty(x.shape[-1], CPU)
    for part in x.split(7):
        statistics.add(part)
    return statistics


def test_gram_loss_is_the_squared_output_error() -> None:
    torch.manual_seed(0)
    x, delta = torch.randn(50, 24), torch.randn(10, 24)
    direct = float(((x @ delta.T) ** 2).sum())
    assert output_error(delta, statistics_of(x).gram) == pytest.approx(direct, rel=1e-5)


def test_scaling_protects_salient_channels() -> None:
    """With a few channels of large activations, AWQ's loss must be well below plain rounding's."""
    torch.manual_seed(1)
    x = torch.randn(256, 64)
    x[:, :2] *= 50
    weight = torch.randn(32, 64)
    statistics = statistics_of(x)
    scale = search_scale([weight], statistics, torch.arange(64), 64, AWQ)
    scaled = quantize(weight * scale, AWQ).dequantize() / scale
    plain = quantize(weight, AWQ).dequantize()
    error = output_error(scaled - weight, statistics.gram)
    assert error < 0.3 * output_error(plain - weight, statistics.gram)


def test_clip_search_equals_brute_force() -> None:
    """Each group by itself first, then one group after the other beside what the others became."""
    torch.manual_seed(2)
    weight, x = torch.randn(3, 96) ** 3, torch.randn(100, 96) @ torch.randn(96, 96)
    shares = [1 - step * 0.05 for step in range(10)]
    found = search_clip(weight, statistics_of(x).gram, AWQ)
    for row, kept in zip(weight, found, strict=True):

        def error(keep: list[float], columns: slice, row: torch.Tensor = row) -> float:
            w = row[None, columns]
            delta = quantize(w, AWQ, torch.tensor([keep])).dequantize() - w
            return float((delta @ x[:, columns].T).square().sum())

        best = []
        for group in range(3):
            own = slice(group * 32, group * 32 + 32)
            best.append(min(shares, key=lambda share, own=own: error([share], own)))
        for group in range(3):
            trials = [[*best[:group], share, *best[group + 1 :]] for share in shares]
            best = min(trials, key=lambda trial: error(trial, slice(None)))
        assert kept.tolist() == pytest.approx(best)


def test_value_heads_are_read_by_their_query_heads() -> None:
    """Channels of the input of o_proj, against repeat_kv's own copying."""
    from transformers.models.llama.modeling_llama import repeat_kv

    values = torch.arange(2 * 4).view(1, 2, 1, 4)  # 2 value heads of width 4
    read = repeat_kv(values, 3).transpose(1, 2).reshape(-1)
    assert torch.equal(source_channels(8, 24, head_dim=4), read)


@pytest.mark.parametrize("storage", [torch.float16, torch.bfloat16])
def test_folding_into_a_stored_norm_is_exact(storage: torch.dtype) -> None:
    torch.manual_seed(3)
    norm = torch.nn.RMSNorm(64).requires_grad_(False)
    norm.weight.copy_(torch.randn(64).to(storage))
    before, scale = norm.weight.clone(), torch.rand(64) + 0.1
    applied = fold_into_norm(norm, scale, storage)
    torch.testing.assert_close(norm.weight * applied, before, rtol=1e-6, atol=0)
    assert torch.equal(norm.weight, norm.weight.to(storage).float())


def quantized(
    directory: Path, work: Path, recipe: Recipe = AWQ, tokens: int = 24
) -> layerwise.Quantization:
    """Quantize the model in `directory` on a few random sequences."""
    source, form = open_original(directory), format_for(recipe)
    samples = token_samples(token_sequences(6, tokens))
    return layerwise.quantize_model(source, work, recipe, form, samples, CPU)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_folding_leaves_the_function_unchanged(
    tmp_path: Path, dtype: torch.dtype, kv_heads: int
) -> None:
    original = tiny_llama(tmp_path / "m", dtype, num_key_value_heads=kv_heads)
    result = quantized(original, tmp_path / "work")
    assert 0 < result.largest_change < invariance.INVARIANCE_BOUND


def believe(monkeypatch: pytest.MonkeyPatch, table: Architecture) -> None:
    """Let the family of Llama have this table."""
    family = dataclasses.replace(llama.FAMILY, architecture=table)
    monkeypatch.setattr(llama, "FAMILY", family)


@pytest.mark.parametrize(
    "wrong",
    [
        dataclasses.replace(LLAMA.groups[0], source=Norm("post_attention_layernorm")),
        dataclasses.replace(
            LLAMA.groups[3], source=Rows("mlp.gate_proj")
        ),  # the activation is not linear
    ],
)
def test_a_wrong_table_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: object
) -> None:
    groups = tuple(wrong if g.linears == wrong.linears else g for g in LLAMA.groups)  # type: ignore[attr-defined]
    believe(monkeypatch, dataclasses.replace(LLAMA, groups=groups))
    original = tiny_llama(tmp_path / "m")
    with pytest.raises(UserError, match=r"changed the output of model\.layers\.0"):
        quantized(original, tmp_path / "work")


def test_layers_outside_the_table_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = dataclasses.replace(LLAMA, groups=LLAMA.groups[:3])
    believe(monkeypatch, table)
    with pytest.raises(UserError, match=r"down_proj"):
        quantized(tiny_llama(tmp_path / "m"), tmp_path / "work")


def test_group_size_must_divide_every_layer(tmp_path: Path) -> None:
    original = tiny_llama(tmp_path / "m")
    with pytest.raises(UserError, match=r"64 inputs .*divide every layer: \[32, 64\]"):
        quantized(original, tmp_path / "work", Recipe(method="rtn", bits=4, group_size=128))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("zero_point", [True, False])
@pytest.mark.parametrize("method", ["awq", "rtn"])
def test_the_loaded_checkpoint_computes_what_was_quantized(
    tmp_path: Path, bits: int, zero_point: bool, method: str
) -> None:
    """Logits of the packed model against a plain transformers model holding the same weights."""
    original = tiny_llama(tmp_path / "original")
    quantize_tiny(original, tmp_path, method, bits, symmetric=not zero_point)
    loaded = load(tmp_path / "checkpoint")
    stored = load_file(tmp_path / "checkpoint" / "model.safetensors")
    plain = AutoModelForCausalLM.from_pretrained(original)
    state = {name: tensor for name, tensor in stored.items() if name.endswith("norm.weight")}
    for name in [n.removesuffix(".qweight") for n in stored if n.endswith(".qweight")]:
        packed = {key: stored[f"{name}.{key}"] for key in ("qweight", "qzeros", "scales")}
        state[f"{name}.weight"] = unpack(packed, bits).dequantize()
    unknown = plain.load_state_dict(state, strict=False).unexpected_keys
    assert not unknown
    assert loaded.layers_quantized == 14
    ids = token_sequences(1, 12, seed=9)[0][None]
    torch.testing.assert_close(loaded.model(ids).logits, plain(ids).logits, rtol=1e-4, atol=1e-4)


def test_eight_bits_are_far_closer_than_four(tmp_path: Path) -> None:
    """The step of the grid is 17 times finer; the outputs' error must follow it."""
    original = tiny_llama(tmp_path / "original")
    ids = token_sequences(1, 12, seed=9)[0][None]
    expected = AutoModelForCausalLM.from_pretrained(original)(ids).logits
    errors = {}
    for bits in (4, 8):
        directory = tmp_path / str(bits)
        directory.mkdir()
        logits = load(quantize_tiny(original, directory, bits=bits)).model(ids).logits
        errors[bits] = (logits - expected).norm().item()
    assert errors[8] < errors[4] / 8


def test_two_runs_give_equal_bytes(tmp_path: Path) -> None:
    original = tiny_llama(tmp_path / "original")
    contents = []
    for run in ("a", "b"):
        (tmp_path / run).mkdir()
        quantize_tiny(original, tmp_path / run)
        contents.append((tmp_path / run / "checkpoint" / "model.safetensors").read_bytes())
    assert contents[0] == contents[1]


def test_a_changed_byte_is_noticed(packed_tiny: Path, tmp_path: Path) -> None:
    weights = packed_tiny / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors was changed"):
        load(packed_tiny)


def test_the_record_names_recipe_and_layers(packed_tiny: Path) -> None:
    record = json.loads((packed_tiny / "quantization.json").read_text())
    assert record["recipe"] == recipe_values(AWQ)
    assert len(record["layers"]) == record["checks"]["layers_quantized"] == 14
    assert all(0 < layer["output_error"] < 0.5 for layer in record["layers"])
    config = json.loads((packed_tiny / "config.json").read_text())
    assert config["quantization_config"]["version"] == "gemm"


def test_awq_without_calibration_says_so(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "scripts/quantize.py", "--model", "m", "--method"]
    command += ["awq", "--output", "o"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ended.returncode == 1
    (said,) = ended.stderr.removeprefix("at work\n").splitlines()  # of a busy machine
    assert said.startswith("error: method awq needs --calibration")
