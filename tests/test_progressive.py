"""Progressive scales (QoQ): the grid, its storage, and the product in integers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from integer_product import int8_forward, integer_product, quantize_tokens, stored_levels
from safetensors.torch import load_file, save_file
from tiny_models import store, tiny_llama, token_sequences, write_samples
from transformers import AutoModelForCausalLM

from radquant.checkpoints.loading import load
from radquant.errors import UserError
from radquant.packed import progressive_grid
from radquant.packed.formats import check_tensors, in_memory, qoq, settings_of, unpack
from radquant.packed.grid import QuantizedWeight, by_group, find_grid, quantize
from radquant.packed.progressive_grid import channel_scales, int8_weights
from radquant.packed.progressive_linear import ProgressiveLinear
from radquant.quantization.awq import output_error, scaled_rounding
from radquant.quantization.clipping import search_clip
from radquant.quantization.gptq import quantize_gptq
from radquant.settings.recipe import Recipe, recipe_of
from radquant.settings.tool_limits import check_tool_recipe

RTN = Recipe(method="rtn", bits=4, group_size=32, progressive=True)
IDS = token_sequences(1, 12, seed=9)[0][None]


def weights(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    """Rows and groups of very different size, as in real models."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.exp(torch.randn(rows, columns // 32, generator=generator)).repeat_interleave(32, 1)
    return torch.randn(rows, columns, generator=generator) * size * 0.02


def gram_of(columns: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(4 * columns, columns, generator=generator)
    x *= torch.exp(torch.randn(columns, generator=generator))
    return x.T @ x


def check(weight: QuantizedWeight) -> None:
    """What every progressive weight is: whole group scales, INT8 values at both levels."""
    assert weight.channel_scales is not None
    assert weight.channel_scales.dtype == torch.float16
    assert weight.scales.dtype == weight.zeros.dtype == weight.integers.dtype == torch.uint8
    assert 1 <= int(weight.scales.min()) <= int(weight.scales.max()) <= 16
    assert int(weight.zeros.max()) <= 15
    assert int(weight.integers.max()) <= 15
    levels = int8_weights(weight.integers, weight.zeros, weight.scales)
    exact = levels.double() * weight.channel_scales.double()[:, None]
    assert torch.equal(weight.dequantize().double(), exact)


def test_a_row_by_hand() -> None:
    """Channel scale 1: the weights are INT8 values, 119 the largest."""
    row = torch.zeros(64)
    row[:4] = torch.tensor([119.0, -119.0, 16.0, 0.0])
    row[32:36] = torch.tensor([15.0, 3.0, -15.0, 2.0])
    weight = quantize(row[None], RTN)
    check(weight)
    assert weight.channel_scales.tolist() == [1.0]  # type: ignore[union-attr]
    assert weight.scales.tolist() == [[16, 2]]  # 238 / 15 = 15.87 and 30 / 15
    # −119 / 16 would give zero 7, whose largest point is 128: no INT8. 15 / 2 is rounded to even.
    assert weight.zeros.tolist() == [[8, 8]]
    assert weight.integers[0, :4].tolist() == [15, 1, 9, 8]
    assert weight.dequantize()[0, :4].tolist() == [112.0, -112.0, 16.0, 0.0]
    assert weight.dequantize()[0, 32:36].tolist() == [14.0, 4.0, -16.0, 2.0]


@pytest.mark.parametrize("low", range(-119, 1, 7))
@pytest.mark.parametrize("keep", [1.0, 0.75])
def test_all_sixteen_values_of_every_range_are_int8(low: int, keep: float) -> None:
    """Every range in the protective one, and every integer, which GPTQ may call for."""
    high = torch.arange(120.0)
    groups = torch.stack([torch.full_like(high, low), high], -1)
    scale, zero = progressive_grid.find_grid(groups, torch.ones(120), keep)
    points = (torch.arange(16)[None] - zero[:, None]) * scale[:, None]
    assert int(points.min()) >= -128
    assert int(points.max()) <= 127
    assert torch.equal(points, points.round())
    extent = (high - low) * keep
    assert (15 * scale >= 0.9 * extent - 1e-3).all()
    covered = (groups * keep).clamp(points.amin(1, True), points.amax(1, True))
    cut = (covered - groups * keep).abs().sum(1)
    assert (cut <= (extent - 15 * scale).clamp(min=0) + scale).all()  # the zero is rounded, too


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 4), st.integers(1, 4), st.sampled_from([1e-9, 1e-3, 1.0, 300.0]), st.integers(0)
)
def test_every_weight_is_stored_as_it_is_evaluated(
    rows: int, groups: int, size: float, seed: int
) -> None:
    weight = quantize(weights(8 * rows, 32 * groups, seed % 2**31) * size, RTN)
    check(weight)
    config = settings_of(json.loads(json.dumps(qoq.config(RTN, ["lm_head"]))))
    packed = qoq.pack(weight, RTN)
    check_tensors(packed, config, 32 * groups, 8 * rows)
    assert torch.equal(unpack(packed, config).dequantize(), weight.dequantize())
    layer = layer_of(weight)
    assert torch.equal(layer.dequantize().T, weight.dequantize())
    levels = int8_weights(weight.integers, weight.zeros, weight.scales)
    assert torch.equal(stored_levels(layer), levels)


def layer_of(weight: QuantizedWeight) -> ProgressiveLinear:
    out, channels = weight.integers.shape
    layer = ProgressiveLinear(channels, out, 4, channels // weight.scales.shape[1])
    config = settings_of(qoq.config(RTN, []))
    tensors = in_memory(qoq.pack(weight, RTN), config)
    layer.load_state_dict(tensors, strict=False, assign=True)
    return layer


def test_the_layout_read_by_hand() -> None:
    weight = quantize(weights(8, 64), RTN)
    packed = qoq.pack(weight, RTN)
    assert {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in packed.items()} == {
        "qweight": (torch.int32, (8, 8)),
        "group_scales": (torch.uint8, (8, 2)),
        "group_zeros": (torch.uint8, (8, 2)),
        "channel_scales": (torch.float16, (8,)),
    }
    for out, channel in ((0, 0), (3, 17), (7, 63)):
        field = packed["qweight"][out, channel // 8].item() >> (4 * (channel % 8)) & 15
        value = (field - int(packed["group_zeros"][out, channel // 32])) * int(
            packed["group_scales"][out, channel // 32]
        )
        expected = value * float(packed["channel_scales"][out])
        assert weight.dequantize()[out, channel].item() == expected


def test_the_channel_scale_belongs_to_the_whole_row() -> None:
    """One group's scale depends on the row's largest weight; the row's, not on clipping."""
    weight = weights(16, 128)
    whole = quantize(weight, RTN)
    kept = torch.full((16, 4), 0.6)
    clipped = quantize(weight, RTN, kept)
    check(clipped)
    assert torch.equal(clipped.channel_scales, whole.channel_scales)  # type: ignore[arg-type]
    assert torch.equal(
        whole.channel_scales.float(),  # type: ignore[union-attr]
        (weight.abs().amax(1) / 119).half().float(),
    )
    assert (clipped.scales <= whole.scales).all()


def test_the_clip_search_sees_the_grid_that_is_stored() -> None:
    """No share of any one group's range, put in by itself, does better by the loss of the row."""
    weight, gram = weights(8, 64), gram_of(64)
    kept = search_clip(weight, gram, RTN)
    assert (kept < 1).any()

    def loss(keep: torch.Tensor) -> torch.Tensor:
        delta = quantize(weight, RTN, keep).dequantize() - weight
        return ((delta @ gram) * delta).sum(1)

    found = loss(kept)
    assert found.sum() < loss(torch.ones_like(kept)).sum()
    for step in range(10):  # the last group was searched last, beside the others as they are
        other = kept.clone()
        other[:, -1] = 1 - step * 0.05
        assert (found <= loss(other) * (1 + 1e-4)).all()


def test_the_scale_search_sees_the_grid_that_is_stored() -> None:
    weight, gram = weights(8, 64), gram_of(64)
    scale = torch.exp(torch.randn(64, generator=torch.Generator().manual_seed(3)) / 2)
    rounded = scaled_rounding(gram, RTN)(weight, scale)
    assert torch.equal(rounded, quantize(weight * scale, RTN).dequantize() / scale)


@pytest.mark.parametrize("clipped", [False, True])
def test_gptq_rounds_to_the_progressive_grid(clipped: bool) -> None:
    weight, gram = weights(16, 128), gram_of(128)
    recipe = Recipe(method="gptq", bits=4, group_size=32, rounding="gptq", progressive=True)
    keep = search_clip(weight, gram, recipe) if clipped else None
    nearest, compensated = quantize(weight, recipe, keep), quantize_gptq(weight, gram, recipe, keep)
    check(compensated)
    assert torch.equal(nearest.scales, compensated.scales)
    assert torch.equal(nearest.zeros, compensated.zeros)
    errors = [output_error(q.dequantize() - weight, gram) for q in (nearest, compensated)]
    assert errors[1] < errors[0]
    scale = torch.exp(torch.randn(128, generator=torch.Generator().manual_seed(3)) / 2)
    rounded = scaled_rounding(gram, recipe)(weight, scale)
    steps, zero = find_grid(by_group(weight * scale, 32), recipe)
    points = by_group(rounded * scale, 32) / steps[..., None] + zero[..., None]
    torch.testing.assert_close(points, points.round(), rtol=0, atol=1e-3)


def test_costs_little_more_than_free_scales() -> None:
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(64, 512, generator=generator)
    errors = [
        (
            quantize(
                weight, Recipe(method="rtn", bits=4, group_size=64, progressive=p)
            ).dequantize()
            - weight
        ).norm()
        for p in (False, True)
    ]
    assert errors[0] < errors[1] < 1.06 * errors[0]


def test_a_row_of_zeros_stays_zero() -> None:
    weight = quantize(torch.zeros(8, 64), RTN)
    check(weight)
    assert weight.dequantize().abs().max() == 0
    assert channel_scales(torch.zeros(1, 2, 32)).item() > 0


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"bits": 8}, "does not go with 8 bits; use 4"),
        ({"group_size": -1}, "group size -1"),
        ({"zero_point": False}, "without zero points"),
        ({"method": "gptq", "desc_act": True}, "desc_act; leave it out"),
    ],
)
def test_what_progressive_does_not_go_with(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        recipe_of({"method": "rtn", "bits": 4, "group_size": 64, "progressive": True} | values)


def test_other_tools_have_no_progressive_scales() -> None:
    with pytest.raises(UserError, match="AutoAWQ cannot do progressive scales; leave progressive"):
        check_tool_recipe("autoawq", Recipe(method="awq", bits=4, group_size=64, progressive=True))


# ------ the product in integers


def plain_product(x: torch.Tensor, weight: QuantizedWeight) -> list[list[int]]:
    """Σ x·(q − zero)·s_group in Python's own integers."""
    size = weight.integers.shape[1] // weight.scales.shape[1]
    rows = []
    for out in range(len(weight.integers)):
        q, z, s = (t[out].tolist() for t in (weight.integers, weight.zeros, weight.scales))
        rows.append([(q[c] - z[c // size]) * s[c // size] for c in range(len(q))])
    return [[sum(a * b for a, b in zip(token, row, strict=True)) for row in rows] for token in x]


def test_the_integer_product_is_exact() -> None:
    weight = quantize(weights(24, 96), RTN)
    x = torch.randint(-128, 128, (5, 96), generator=torch.Generator().manual_seed(2))
    x = x.to(torch.int8)
    layer = layer_of(weight)
    product = integer_product(x, stored_levels(layer))
    assert product.dtype == torch.int32
    assert product.tolist() == plain_product([row.tolist() for row in x], weight)  # type: ignore[arg-type]
    theirs = x.numpy().astype(np.int32) @ stored_levels(layer).numpy().astype(np.int32).T
    assert np.array_equal(product.numpy(), theirs)


def test_the_largest_sums_fit_int32() -> None:
    inputs = 2**17 - 1
    x, weight = torch.full((1, inputs), -128).to(torch.int8), torch.full((2, inputs), -128)
    product = integer_product(x, weight.to(torch.int8))
    assert product.tolist() == [[inputs * 2**14] * 2]
    with pytest.raises(ValueError, match="can overflow INT32"):
        integer_product(torch.zeros(1, 2**17, dtype=torch.int8), weight.to(torch.int8))
    with pytest.raises(ValueError, match="must be int8"):
        integer_product(x.float(), weight.to(torch.int8))


def test_registers_wrap_as_bytes_do() -> None:
    """q·s_group plus the stored −zero·s_group, byte by byte modulo 256, is (q − zero)·s_group."""
    q, z, s = (
        t.flatten()
        for t in torch.meshgrid(
            torch.arange(16), torch.arange(16), torch.arange(1, 17), indexing="ij"
        )
    )
    valid = ((q - z) * s >= -128) & ((q - z) * s <= 127)
    q, z, s = q[valid], z[valid], s[valid]
    stored = [(-int(b) * int(c)) % 256 for b, c in zip(z, s, strict=True)]
    register = [(int(a) * int(c) + m) % 256 for a, c, m in zip(q, s, stored, strict=True)]
    signed = [value - 256 if value > 127 else value for value in register]
    found = int8_weights(*(t.to(torch.uint8)[:, None] for t in (q, z, s)))
    assert found[:, 0].tolist() == signed == ((q - z) * s).tolist()


def test_values_that_are_no_int8_are_refused() -> None:
    bad = QuantizedWeight(
        torch.full((8, 32), 15, dtype=torch.uint8),
        torch.full((8, 1), 9, dtype=torch.uint8),
        torch.zeros(8, 1, dtype=torch.uint8),
        channel_scales=torch.ones(8).half(),
    )
    with pytest.raises(UserError, match="reaches 135 … 135, which is no INT8"):
        qoq.pack(bad, RTN)


def test_activations_have_one_scale_per_token() -> None:
    x = torch.tensor([[1.0, -127.0, 0.5, 1.5], [2.0, 0.0, -1.0, 0.25]])
    integers, scales = quantize_tokens(x)
    assert integers.tolist() == [[1, -127, 0, 2], [127, 0, -64, 16]]  # halves to even
    assert scales.tolist() == [1.0, torch.tensor(2 / 127).half().item()]
    assert quantize_tokens(torch.zeros(1, 4))[0].abs().max() == 0


def test_the_simulation_agrees_with_the_integers() -> None:
    """Weights dequantized and multiplied in floating point by rounded activations."""
    weight = quantize(
        weights(32, 256), Recipe(method="rtn", bits=4, group_size=64, progressive=True)
    )
    layer = layer_of(weight)
    layer.bias = torch.randn(32, generator=torch.Generator().manual_seed(6))
    x = torch.randn(2, 7, 256, generator=torch.Generator().manual_seed(4))
    integers, scales = quantize_tokens(x)
    computed = int8_forward(layer, integers, scales, torch.float32)
    simulated = layer(integers.float() * scales.float()[..., None])
    torch.testing.assert_close(computed, simulated, rtol=1e-5, atol=1e-5)
    halves = int8_forward(layer, integers, scales)
    assert halves.dtype == torch.float16
    torch.testing.assert_close(halves.float(), simulated, rtol=2e-3, atol=2e-3)


# ------ checkpoints


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny") / "original", attention_bias=True)


@pytest.mark.parametrize(
    "options",
    [
        ("--method", "rtn"),
        ("--method", "awq"),
        ("--method", "awq", "--rounding", "gptq"),
        ("--method", "gptq"),
    ],
)
def test_a_loaded_checkpoint_computes_with_its_weights(
    original: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    calibration = ("--calibration", str(write_samples(tmp_path)))
    checkpoint = store(original, tmp_path / "checkpoint", "--progressive", *options, *calibration)
    config = json.loads((checkpoint / "config.json").read_text())["quantization_config"]
    assert config["quant_method"] == "radquant-qoq"
    record = json.loads((checkpoint / "quantization.json").read_text())
    assert record["recipe"]["progressive"] is True
    assert record["format"] == "qoq"
    stored = load_file(checkpoint / "model.safetensors")
    plain = AutoModelForCausalLM.from_pretrained(original)
    state = plain.state_dict()
    for name in stored:
        if name in state:
            state[name].copy_(stored[name])
    for name in [n.removesuffix(".qweight") for n in stored if n.endswith(".qweight")]:
        suffixes = ("qweight", "group_scales", "group_zeros", "channel_scales")
        weight = unpack({s: stored[f"{name}.{s}"] for s in suffixes}, settings_of(config))
        check(weight)
        plain.get_parameter(f"{name}.weight").data.copy_(weight.dequantize())
    loaded = load(checkpoint)
    assert loaded.layers_quantized == 14
    layers = [m for m in loaded.model.modules() if isinstance(m, ProgressiveLinear)]
    assert len(layers) == 14
    torch.testing.assert_close(loaded.model(IDS).logits, plain(IDS).logits, rtol=1e-4, atol=1e-4)
    assert "progressive (QoQ" in (checkpoint / "README.md").read_text()


def test_a_damaged_checkpoint_is_one_sentence(original: Path, tmp_path: Path) -> None:
    checkpoint = store(original, tmp_path / "checkpoint", "--progressive", "--method", "rtn")
    (checkpoint / "quantization.json").unlink()
    tensors = load_file(checkpoint / "model.safetensors")
    name = "model.layers.1.mlp.down_proj"
    tensors[f"{name}.group_scales"] += 100
    save_file(tensors, checkpoint / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=f"layer {name} cannot be read: .* no INT8"):
        load(checkpoint)
    tensors[f"{name}.group_scales"] = tensors[f"{name}.group_scales"].half()
    save_file(tensors, checkpoint / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="its group_scales holds torch"):
        load(checkpoint)
