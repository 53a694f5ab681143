"""Infinities and NaN in calibration stop a quantization, and pass no bound."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny_models import tiny_llama, token_samples, token_sequences

from radquant.errors import UserError
from radquant.finite import largest_of, norm
from radquant.packed.formats import format_for
from radquant.quantization import awq, invariance, layerwise, onednn, outliers
from radquant.quantization.calibration_statistics import Inputs, InputStatistics
from radquant.quantization.hidden_states import Hidden
from radquant.quantization.original_model import open_original
from radquant.settings.precision import STATIC, Activations
from radquant.settings.recipe import Recipe
from radquant.verification.checkpoints import layer_lines, table_of
from radquant.verification.selftest import Check

CPU = torch.device("cpu")
STATIC_RANGES = Activations(bits=8, granularity="tensor", range=STATIC)
RECIPES = {
    "awq": Recipe(method="awq", bits=4, group_size=32),
    "awq without clipping": Recipe(method="awq", bits=4, group_size=32, clip=False),
    "awq with gptq's rounding": Recipe(method="awq", bits=4, group_size=32, rounding="gptq"),
    "awq for rounded inputs": Recipe(
        method="awq", bits=4, group_size=32, activations=Activations(bits=8)
    ),
    "gptq": Recipe(method="gptq", bits=4, group_size=32, rounding="gptq"),
    "rtn with static ranges": Recipe(
        method="rtn", bits=4, group_size=32, activations=STATIC_RANGES
    ),
    "rtn behind smoothing": Recipe(method="rtn", bits=4, group_size=32, transform="smooth"),
    "rotated": Recipe(method="rtn", bits=4, group_size=32, transform="hadamard"),
}


def with_value(directory: Path, name: str, value: float) -> Path:
    """A tiny model with one weight like that."""
    tensors = load_file(tiny_llama(directory) / "model.safetensors")
    tensors[name][5, 3] = value
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    return directory


def quantize(original: Path, recipe: Recipe, *more: torch.Tensor) -> layerwise.Quantization:
    """Calibrate on usual sequences, and on those behind them."""
    sequences, work = [*token_sequences(3, 9), *more], original / "work"
    work.mkdir()
    return layerwise.quantize_model(
        open_original(original), work, recipe, format_for(recipe), token_samples(sequences), CPU
    )


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_an_infinite_activation_is_named_by_its_layer(tmp_path: Path, recipe: Recipe) -> None:
    """One weight of up_proj makes an input of down_proj overflow."""
    original = with_value(tmp_path / "m", "model.layers.1.mlp.up_proj.weight", 3e38)
    place = (
        r"^model\.layers\.1\.mlp\.down_proj: the calibration activations of a linear layer hold "
        r"infinities or NaN once they are squared; quantize"
    )
    with pytest.raises(UserError, match=place):
        quantize(original, recipe)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_one_infinite_token_of_a_later_sequence_is_enough(tmp_path: Path, recipe: Recipe) -> None:
    """A NaN behind other values is lost in Python's `max`."""
    original = tiny_llama(tmp_path / "m")
    tensors = load_file(original / "model.safetensors")
    tensors["model.embed_tokens.weight"][0, 3] = torch.inf
    save_file(tensors, original / "model.safetensors", {"format": "pt"})
    place = r"^model\.layers\.0\.self_attn\.q_proj: the .* NaN \(first in sample 4, token 2\); "
    with pytest.raises(UserError, match=place):
        quantize(original, recipe, torch.tensor([5, 0, 6]))


@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_keys_that_are_not_finite_are_named(tmp_path: Path, value: float) -> None:
    original = with_value(tmp_path / "m", "model.layers.1.self_attn.k_proj.weight", value)
    with pytest.raises(UserError, match=r"^model\.layers\.1\.self_attn\.k_proj: the calibration"):
        quantize(original, Recipe(method="rtn", bits=4, group_size=32, smooth_attention=True))


@pytest.mark.parametrize("value", [3e38, torch.nan])
def test_the_search_of_a_prefix_stops_at_what_is_not_finite(tmp_path: Path, value: float) -> None:
    original = with_value(tmp_path / "m", "model.layers.0.mlp.up_proj.weight", value)
    sequences = token_samples(token_sequences(3, 9))
    with pytest.raises(UserError, match=r"^model\.layers\.0\.mlp\.down_proj: the calibration"):
        outliers.find_prefix(lambda: open_original(original), sequences, tmp_path / "h", CPU)


def test_the_states_of_a_prefix_are_finite(tmp_path: Path) -> None:
    """No statistic counts the prefix's own tokens."""
    original = tiny_llama(tmp_path / "m")
    tensors = load_file(original / "model.safetensors")
    tensors["model.embed_tokens.weight"][2] = torch.inf
    save_file(tensors, original / "model.safetensors", {"format": "pt"})
    recipe, work = Recipe(method="rtn", bits=4, group_size=32, prefix="auto"), tmp_path / "work"
    work.mkdir()
    sequences = token_samples([torch.tensor([2]), torch.tensor([2, 5, 6])])
    with pytest.raises(UserError, match=r"model\.layers\.0\.\S+: the calibration activations"):
        layerwise.quantize_model(
            open_original(original), work, recipe, format_for(recipe), sequences, CPU, [2]
        )


def test_a_scale_is_not_searched_by_an_error_that_overflows() -> None:
    """Statistics may be finite where what is made of them is not."""
    statistics = InputStatistics.empty(32, CPU)
    statistics.add(torch.full((2, 32), 1e18))
    weights = [torch.randn(8, 32, generator=torch.Generator().manual_seed(0)) * 1e18]
    with pytest.raises(UserError, match="too large for float32"):
        awq.search_scale(weights, statistics, torch.arange(32), 32, RECIPES["awq"])


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_largest_of_values_with_a_nan_is_nan(place: int) -> None:
    values = [0.25, 0.5, 0.125]
    assert largest_of(values) == 0.5
    values[place] = math.nan
    assert math.isnan(largest_of(values))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 5), max_size=3),
    st.floats(-44, 38),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    st.integers(0, 99),
)
def test_a_length_is_that_of_float64(
    shape: list[int], power: float, dtype: torch.dtype, seed: int
) -> None:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double() * 10**power
    x = values.to(dtype)
    expected = math.sqrt(sum(float(value) ** 2 for value in x.flatten()))
    assert norm(x) == pytest.approx(expected, rel=1e-5, abs=0)


def test_a_length_of_what_is_no_number_is_none() -> None:
    assert norm(torch.tensor([[1, math.inf], [2, 3]])) == math.inf
    for other in (1.0, math.inf, 1e20):
        assert math.isnan(norm(torch.tensor([[math.nan, 1], [other, 2]])))
    assert norm(torch.zeros(3, 0)) == norm(torch.zeros(0)) == norm(torch.zeros(2, 2)) == 0


def test_a_change_that_is_nan_in_one_sequence_passes_no_bound(tmp_path: Path) -> None:
    inputs = Inputs(Hidden(tmp_path / "in", (2, 2), 4), [{}, {}], 0, CPU)
    outputs = Hidden(tmp_path / "out", (2, 2), 4)
    torch.ones(2, 2, 4).numpy().tofile(inputs.hidden.path)
    of_second = torch.ones(2, 2, 4)
    of_second[1, 0, 0] = torch.nan
    of_second.numpy().tofile(outputs.path)
    change = invariance.change_by_folding(torch.nn.Identity(), inputs, outputs)
    with pytest.raises(UserError, match=r"changed the output of l\.0 by nan"):
        invariance.check_change(change, "l.0", "folding scales")


def test_products_that_are_nan_are_not_left_to_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "largest_product_error", lambda: math.nan)
    with onednn.onednn_products():
        assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"


def test_nan_is_the_worst_of_a_verification() -> None:
    checks = [
        *(Check(f"l.0.{name}: weights", value, 0.5) for name, value in (("q", 0.1), ("k", 0.2))),
        *(Check(f"l.0.{name}: weights", value, 0.5) for name, value in (("v", math.nan), ("o", 0))),
        Check("l.0: output", 0.1, 0.5),
    ]
    (line,) = [line for line in table_of(checks).splitlines() if ": weights" in line]
    assert line.startswith("l.0.v")
    assert line.endswith("BROKEN")
    assert "nan" in layer_lines(checks)[-1]
