"""The quantizer's grid against closed forms."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from radquant.errors import UserError
from radquant.packed.grid import QuantizedWeight, by_group, find_grid, quantize, round_to_grid
from radquant.settings.recipe import (
    Recipe,
    needs_calibration,
    recipe_of,
    uses_gptq_rounding,
)

recipes = st.builds(
    Recipe,
    method=st.just("rtn"),
    bits=st.sampled_from([2, 3, 4, 8]),
    group_size=st.sampled_from([32, 64, -1]),
    zero_point=st.booleans(),
)


def test_integers_of_a_range_that_fits_exactly() -> None:
    weight = torch.arange(-8, 8).float().repeat(1, 2)  # 32 channels, step 1, range −8 … 7
    quantized = quantize(weight, Recipe(method="rtn", bits=4, group_size=32))
    assert quantized.scales.tolist() == [[1.0]]
    assert quantized.zeros.tolist() == [[8]]
    assert quantized.integers[0, :16].tolist() == list(range(16))
    assert torch.equal(quantized.dequantize(), weight)


def test_symmetric_grid_is_about_zero() -> None:
    weight = torch.linspace(-7, 3.5, 32)[None]
    quantized = quantize(weight, Recipe(method="rtn", bits=4, group_size=32, zero_point=False))
    assert quantized.zeros.tolist() == [[8]]
    assert quantized.scales.item() == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize(("bits", "step"), [(2, 1.0), (3, 1 / 3), (4, 1 / 7), (8, 1 / 127)])
def test_symmetric_grid_of_every_width(bits: int, step: float) -> None:
    """The largest weight is a grid point, at 2^(bits−1) − 1 steps from the zero in the middle."""
    weight = torch.cat([torch.ones(1), torch.zeros(30), -torch.ones(1)])[None]
    quantized = quantize(weight, Recipe(method="rtn", bits=bits, group_size=32, zero_point=False))
    assert quantized.zeros.tolist() == [[2 ** (bits - 1)]]
    assert quantized.scales.item() == pytest.approx(step, rel=1e-3)
    assert quantized.integers[0, 0] == 2**bits - 1
    assert quantized.integers[0, 31] == 1


def test_per_channel_is_one_group_as_wide_as_the_row() -> None:
    weight = torch.randn(6, 64, generator=torch.Generator().manual_seed(0))
    whole, explicit = (
        quantize(weight, Recipe(method="rtn", bits=3, group_size=-1)),
        quantize(weight, Recipe(method="rtn", bits=3, group_size=64)),
    )
    assert whole.scales.shape == whole.zeros.shape == (6, 1)
    assert torch.equal(whole.integers, explicit.integers)
    assert torch.equal(whole.dequantize(), explicit.dequantize())
    assert by_group(weight, -1).shape == (6, 1, 64)


def test_group_index_says_which_grid_a_channel_has() -> None:
    """Against the definition, one weight at a time."""
    generator = torch.Generator().manual_seed(1)
    integers = torch.randint(0, 8, (3, 12), generator=generator, dtype=torch.uint8)
    zeros = torch.randint(0, 8, (3, 4), generator=generator, dtype=torch.uint8)
    scales = torch.rand(3, 4, generator=generator).half()
    index = torch.tensor([3, 0, 0, 2, 1, 1, 2, 3, 0, 1, 2, 3], dtype=torch.int32)
    values = QuantizedWeight(integers, scales, zeros, index).dequantize()
    assert values.dtype == torch.float32
    for out in range(3):
        for channel, group in enumerate(index.tolist()):
            steps = int(integers[out, channel]) - int(zeros[out, group])
            assert values[out, channel].item() == pytest.approx(steps * float(scales[out, group]))
    in_runs = torch.arange(12, dtype=torch.int32) // 3
    assert torch.equal(
        QuantizedWeight(integers, scales, zeros, in_runs).dequantize(),
        QuantizedWeight(integers, scales, zeros).dequantize(),
    )


@settings(max_examples=60, deadline=None)
@given(recipes, st.integers(0, 2**31), st.floats(1e-3, 1e3), st.floats(-3, 3))
def test_error_is_at_most_half_a_step(
    recipe: Recipe, seed: int, spread: float, shift: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = (torch.randn(4, 128, generator=generator) + shift) * spread
    quantized = quantize(weight, recipe)
    groups = quantized.scales.shape[1]
    step = quantized.scales.float().repeat_interleave(128 // groups, -1)
    error = (quantized.dequantize() - weight).abs()
    # Beside half a step: the scale's own rounding to float16 over at most 2^bits steps.
    assert (error <= step * (0.5 + 2**recipe.bits * 2**-10) + 1e-5).all()
    assert int(quantized.integers.max()) <= 2**recipe.bits - 1


@settings(max_examples=30, deadline=None)
@given(recipes, st.integers(0, 2**31), st.sampled_from([1.0, 0.8, 0.55]))
def test_what_is_searched_is_what_is_stored(recipe: Recipe, seed: int, keep: float) -> None:
    weight = torch.randn(6, 128, generator=torch.Generator().manual_seed(seed))
    groups = by_group(weight, recipe.group_size)
    searched = round_to_grid(groups, *find_grid(groups, recipe, keep), recipe).flatten(-2)
    share = torch.full(groups.shape[:2], keep)
    assert torch.equal(quantize(weight, recipe, share).dequantize(), searched)


def test_a_group_of_zeros_stays_zero() -> None:
    quantized = quantize(torch.zeros(2, 64), Recipe(method="rtn", bits=4, group_size=32))
    assert torch.equal(quantized.dequantize(), torch.zeros(2, 64))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": "awq", "bits": 2}, r"awq cannot do 2 bits; use 3, 4 or 8"),
        ({"method": "smooth"}, "method is 'smooth', which is not allowed; the valid ones are awq"),
        ({"bits": 5}, "type int has no 5 bits"),
        ({"bits": True}, "bits is True, which is not allowed"),
        ({"group_size": 48}, "group_size is 48, which is not allowed"),
        ({"rounding": "up"}, "rounding is 'up', which is not allowed"),
        ({"method": "rtn", "rounding": "gptq"}, "method rtn has not"),
        ({"method": "awq", "desc_act": True}, "does not go with method awq; use method gptq"),
        ({"method": "rtn", "desc_act": True}, "does not go with method rtn"),
        ({"damp_percent": 0.0}, "damp_percent is 0.0 and must be greater than 0"),
        ({"damp_percent": 1.0}, "damp_percent is 1.0 and must be less than 1"),
        ({"damp_percent": float("nan")}, "damp_percent is nan and must be a number that is finite"),
    ],
)
def test_impossible_recipes_are_errors_in_one_sentence(values: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        recipe_of({"method": "gptq", "bits": 4, "group_size": 64} | values)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("group_size", [32, 64, 128, -1])
@pytest.mark.parametrize(
    ("method", "rounding", "bits", "rounds", "calibrates"),
    [
        ("rtn", "nearest", (2, 3, 4, 8), False, False),
        ("awq", "nearest", (3, 4, 8), False, True),
        ("awq", "gptq", (3, 4, 8), True, True),
        ("gptq", "nearest", (2, 3, 4, 8), True, True),
        ("gptq", "gptq", (2, 3, 4, 8), True, True),
    ],
)
def test_possible_recipes(
    method: str,
    rounding: str,
    bits: tuple[int, ...],
    rounds: bool,
    calibrates: bool,
    group_size: int,
) -> None:
    for width in bits:
        recipe = Recipe(
            method=method,
            bits=width,
            group_size=group_size,
            rounding=rounding,
            desc_act=method == "gptq",
        )
        assert uses_gptq_rounding(recipe) == rounds
        assert needs_calibration(recipe) == calibrates
