"""The quantizer's grid against closed forms."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from radquant.quantization.grid import Recipe, by_group, find_grid, quantize, round_to_grid

recipes = st.builds(
    Recipe, st.just("rtn"), st.sampled_from([4, 8]), st.sampled_from([32, 64]), st.booleans()
)


def test_integers_of_a_range_that_fits_exactly() -> None:
    weight = torch.arange(-8, 8).float().repeat(1, 2)  # 32 channels, step 1, range −8 … 7
    quantized = quantize(weight, Recipe("rtn", 4, 32))
    assert quantized.scales.tolist() == [[1.0]]
    assert quantized.zeros.tolist() == [[8]]
    assert quantized.integers[0, :16].tolist() == list(range(16))
    assert torch.equal(quantized.dequantize(), weight)


def test_symmetric_grid_is_about_zero() -> None:
    weight = torch.linspace(-7, 3.5, 32)[None]
    quantized = quantize(weight, Recipe("rtn", 4, 32, zero_point=False))
    assert quantized.zeros.tolist() == [[8]]
    assert quantized.scales.item() == pytest.approx(1.0, rel=1e-3)


@settings(max_examples=60, deadline=None)
@given(recipes, st.integers(0, 2**31), st.floats(1e-3, 1e3), st.floats(-3, 3))
def test_error_is_at_most_half_a_step(
    recipe: Recipe, seed: int, spread: float, shift: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = (torch.randn(4, 128, generator=generator) + shift) * spread
    quantized = quantize(weight, recipe)
    step = quantized.scales.float().repeat_interleave(recipe.group_size, -1)
    error = (quantized.dequantize() - weight).abs()
    # Beside half a step: the scale's own rounding to float16 over at most 2^bits steps.
    assert (error <= step * (0.5 + 2**recipe.bits * 2**-10) + 1e-5).all()
    assert int(quantized.integers.max()) <= 2**recipe.bits - 1


@settings(max_examples=30, deadline=None)
@given(recipes, st.integers(0, 2**31), st.sampled_from([1.0, 0.8, 0.55]))
def test_what_is_searched_is_what_is_stored(recipe: Recipe, seed: int, keep: float) -> None:
    weight = torch.randn(6, 128, generator=torch.Generator().manual_seed(seed))
    groups = by_group(weight, recipe.group_size)
    searched = round_to_grid(groups, *find_grid(groups, recipe, keep), recipe.bits).flatten(-2)
    share = torch.full(groups.shape[:2], keep)
    assert torch.equal(quantize(weight, recipe, share).dequantize(), searched)


def test_a_group_of_zeros_stays_zero() -> None:
    quantized = quantize(torch.zeros(2, 64), Recipe("rtn", 4, 32))
    assert torch.equal(quantized.dequantize(), torch.zeros(2, 64))
