"""GPTQ against the exact update of its paper, and against rounding to nearest."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from radquant.errors import UserError
from radquant.packed.grid import QuantizedWeight, find_grid, quantize
from radquant.quantization.gptq import factorize, processing_order, quantize_gptq, round_scaled
from radquant.settings.recipe import Recipe

recipes = st.builds(
    Recipe.model_construct,  # groups of 16 are no checkpoint's
    method=st.just("gptq"),
    bits=st.sampled_from([2, 3, 4, 8]),
    group_size=st.sampled_from([16, 32, -1]),
    zero_point=st.booleans(),
    desc_act=st.booleans(),
)


def gptq(bits: int = 4, group_size: int = 32, **more: bool | float) -> Recipe:
    return Recipe.model_construct(method="gptq", bits=bits, group_size=group_size, **more)  # type: ignore[arg-type]


def correlated(width: int, seed: int, tokens: int = 400) -> Tensor:
    """Inputs of few directions and unequal channels, as activations are: [tokens, width]."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width // 4, width, generator=generator)
    x = torch.randn(tokens, width // 4, generator=generator) @ mixing
    x += torch.randn(tokens, width, generator=generator)
    return x * torch.rand(width, generator=generator).add(0.05).mul(3)


def random_weight(out: int, width: int, seed: int) -> Tensor:
    return torch.randn(out, width, generator=torch.Generator().manual_seed(seed + 10**6))


def output_error(quantized: QuantizedWeight, weight: Tensor, x: Tensor) -> float:
    return float((x.double() @ (quantized.dequantize() - weight).double().T).square().sum())


def damped(gram: Tensor, share: float = 0.01) -> Tensor:
    return gram.double() + share * gram.double().diagonal().mean() * torch.eye(len(gram))


def exact_targets(weight: Tensor, h: Tensor, order: Tensor, rounded: Tensor) -> Tensor:
    """What each column is rounded from, by Optimal Brain Quantization's update, [out, in] float64.

    For each column anew, the inverse of H over the columns that are left (the paper's eq. 2):
    δ = −(w_q − quant(w_q)) / [H⁻¹]_qq · (H⁻¹)_{q,:}. `rounded` says what each was rounded to.
    """
    current = weight.double().clone()
    for place, column in enumerate(order.tolist()):
        left = order[place:]
        inverse = torch.linalg.inv(h[left][:, left])
        error = (current[:, column] - rounded[:, column].double()) / inverse[0, 0]
        target = current[:, column].clone()
        current[:, left] -= error[:, None] * inverse[0]
        current[:, column] = target
    return current


def assert_nearest(quantized: QuantizedWeight, targets: Tensor, group: Tensor, bits: int) -> None:
    """Every integer must be the one nearest its target; within float32's error of .5, either."""
    scale, zero = quantized.scales.double()[:, group], quantized.zeros.double()[:, group]
    places = targets / scale + zero
    tie = 1e-5 * max(1.0, float(places.abs().max()) / 4)
    distance = (quantized.integers - places.clamp(0, 2**bits - 1)).abs()
    assert distance.max() <= 0.5 + tie


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("zero_point", [True, False])
@pytest.mark.parametrize(("width", "group_size"), [(64, 16), (160, 32), (160, -1)])
@pytest.mark.parametrize("clipped", [False, True])
def test_static_groups_follow_the_exact_update(
    bits: int, zero_point: bool, width: int, group_size: int, clipped: bool
) -> None:
    """Widths below and above one lazy block."""
    recipe = gptq(bits, group_size, zero_point=zero_point)
    weight, x = random_weight(12, width, bits), correlated(width, bits)
    group = torch.arange(width) // (group_size if group_size > 0 else width)
    keep = torch.tensor([1.0, 0.8, 0.55])[torch.arange(12)[:, None] % 3 + 0 * group.unique()]
    keep = keep if clipped else None
    gram = x.T @ x
    quantized = quantize_gptq(weight, gram, recipe, keep)
    plain = quantize(weight, recipe, keep)
    assert torch.equal(quantized.scales, plain.scales)
    assert torch.equal(quantized.zeros, plain.zeros)
    assert quantized.group_index is None
    order = gram.diagonal().argsort(descending=True)
    targets = exact_targets(weight, damped(gram), order, quantized.dequantize())
    assert_nearest(quantized, targets, group, bits)
    assert not torch.equal(quantized.integers, plain.integers)


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("group_size", [16, 32, -1])
def test_desc_act_follows_the_exact_update(bits: int, group_size: int) -> None:
    recipe = gptq(bits, group_size, desc_act=True)
    weight, x = random_weight(12, 160, 0), correlated(160, 0)
    gram = x.T @ x
    quantized = quantize_gptq(weight, gram, recipe)
    order = gram.diagonal().argsort(descending=True)
    size = group_size if group_size > 0 else 160
    group = torch.empty(160, dtype=torch.int64)
    group[order] = torch.arange(160) // size
    assert quantized.group_index is not None
    assert quantized.group_index.dtype == torch.int32
    assert torch.equal(quantized.group_index.long(), group)
    h, rounded = damped(gram), quantized.dequantize()
    assert_nearest(quantized, exact_targets(weight, h, order, rounded), group, bits)
    # A group's grid: from its weights as they are when all columns before it are rounded.
    for first in range(0, 160, size):
        before, left = order[:first], order[first:]
        gone = (weight - rounded)[:, before].double()
        # The least squares solution for the columns that are left, given the others' errors.
        best = weight[:, left].double() + gone @ h[before][:, left] @ torch.linalg.inv(
            h[left][:, left]
        )
        scale, zero = find_grid(best[:, :size].float(), recipe)
        torch.testing.assert_close(
            quantized.scales[:, first // size].float(), scale, rtol=1e-3, atol=0
        )
        assert (quantized.zeros[:, first // size].float() - zero).abs().max() <= 1


@settings(max_examples=60, deadline=None)
@given(recipes, st.integers(0, 2**31), st.floats(1e-6, 1e6))
def test_inputs_without_correlation_give_nearest_rounding(
    recipe: Recipe, seed: int, size: float
) -> None:
    """With H = size·identity no column can make good for another."""
    weight = random_weight(5, 160, seed)
    quantized = quantize_gptq(weight, torch.eye(160) * size, recipe)
    plain = quantize(weight, recipe)
    assert torch.equal(quantized.integers, plain.integers)
    assert torch.equal(quantized.dequantize(), plain.dequantize())


@settings(max_examples=30, deadline=None)
@given(recipes, st.integers(0, 2**31))
def test_integers_fit_and_do_not_depend_on_the_number_of_tokens(recipe: Recipe, seed: int) -> None:
    weight, x = random_weight(5, 64, seed), correlated(64, seed, 90)
    gram = x.T @ x
    quantized = quantize_gptq(weight, gram, recipe)
    assert int(quantized.integers.max()) < 2**recipe.bits
    assert int(quantized.zeros.max()) < 2**recipe.bits
    again = quantize_gptq(weight, gram * 4, recipe)  # each token four times
    assert torch.equal(quantized.dequantize(), again.dequantize())


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.booleans())
def test_channels_may_come_in_any_order(seed: int, zero_point: bool) -> None:
    """Shuffling input channels shuffles the result, where groups do not depend on the order."""
    weight, x = random_weight(5, 150, seed), correlated(150, seed)
    gram = x.T @ x
    shuffled = torch.randperm(150, generator=torch.Generator().manual_seed(seed))
    for recipe in (gptq(3, -1, zero_point=zero_point), gptq(3, 30, desc_act=True)):
        plain = quantize_gptq(weight, gram, recipe)
        again = quantize_gptq(weight[:, shuffled], gram[shuffled][:, shuffled], recipe)
        assert torch.equal(plain.dequantize()[:, shuffled], again.dequantize())


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize(
    "more", [{}, {"zero_point": False}, {"desc_act": True}, {"group_size": -1}]
)
def test_outputs_are_closer_than_by_nearest_rounding(bits: int, more: dict[str, int]) -> None:
    """On strongly correlated inputs: a tenth of the squared error, and no case of 10 is far off."""
    recipe = gptq(bits, **more)  # type: ignore[arg-type]
    ratios = []
    for seed in range(10):
        weight, x = random_weight(16, 128, seed), correlated(128, seed)
        error = output_error(quantize_gptq(weight, x.T @ x, recipe), weight, x)
        ratios.append(error / output_error(quantize(weight, recipe), weight, x))
    assert max(ratios) < 0.15
    assert sum(ratios) / 10 < 0.1


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_little_correlation_does_little_harm(bits: int) -> None:
    """Inputs that are independent but for chance: better on average, never worse by 1 %."""
    ratios = []
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        weight, x = random_weight(16, 64, seed), torch.randn(4000, 64, generator=generator)
        error = output_error(quantize_gptq(weight, x.T @ x, gptq(bits)), weight, x)
        ratios.append(error / output_error(quantize(weight, gptq(bits)), weight, x))
    assert max(ratios) < 1.01
    assert sum(ratios) / 20 < 1


def test_a_kept_range_is_kept() -> None:
    weight, x = random_weight(8, 64, 1), correlated(64, 1)
    keep = torch.full((8, 2), 0.55)
    quantized = quantize_gptq(weight, x.T @ x, gptq(), keep)
    assert torch.equal(quantized.scales, quantize(weight, gptq(), keep).scales)
    with pytest.raises(ValueError, match="desc_act"):
        quantize_gptq(weight, x.T @ x, gptq(desc_act=True), keep)


@pytest.mark.parametrize("group_size", [32, -1])
def test_rounding_under_a_scale_is_rounding_the_scaled_weight(group_size: int) -> None:
    """Against the scaled weight for the scaled inputs, with a factor of its own."""
    weight, x = random_weight(40, 96, 3), correlated(96, 3, tokens=2000)
    scale = torch.exp(torch.randn(96, generator=torch.Generator().manual_seed(4)) / 2)
    recipe, gram = gptq(group_size=group_size, damp_percent=0.0), x.T @ x
    scaled_gram = gram / scale[:, None] / scale
    directly = quantize_gptq(weight * scale, scaled_gram, recipe).dequantize() / scale
    columns = processing_order(scaled_gram).flip(0)
    factor = factorize(gram, columns, recipe.damp_percent)
    found = round_scaled(weight, scale, columns, factor, recipe)
    # A rounding error now and then turns a weight the other way, and those behind it.
    assert ((found - directly).abs() < 1e-4).float().mean() > 0.97
    losses = [float(((each - weight) @ x.T).norm()) for each in (found, directly)]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)
    assert losses[1] < 0.8 * float(((quantize(weight, recipe).dequantize() - weight) @ x.T).norm())


@pytest.mark.parametrize("desc_act", [False, True])
def test_fewer_tokens_than_channels_are_enough(desc_act: bool) -> None:
    """H is singular; the damping makes it invertible."""
    weight, x = random_weight(8, 64, 2), correlated(64, 2, tokens=9)
    recipe = gptq(desc_act=desc_act)
    error = output_error(quantize_gptq(weight, x.T @ x, recipe), weight, x)
    assert error < 0.2 * output_error(quantize(weight, recipe), weight, x)


def test_dead_channels_are_rounded_to_nearest_and_disturb_nothing() -> None:
    """The others come out as if the dead ones were not there."""
    recipe = gptq(4, -1, damp_percent=0.2)
    weight, x = random_weight(8, 64, 3), correlated(64, 3)
    x[:, ::3] = 0
    live = x.abs().sum(0) > 0
    weight[:, ~live] /= 10  # inside the range of the others
    quantized = quantize_gptq(weight, x.T @ x, recipe)
    plain = quantize(weight, recipe)
    assert torch.equal(quantized.integers[:, ~live], plain.integers[:, ~live])
    x = x[:, live]
    without = quantize_gptq(weight[:, live], x.T @ x, recipe)
    assert torch.equal(quantized.integers[:, live], without.integers)


@pytest.mark.parametrize("desc_act", [False, True])
def test_without_any_activation_rounding_is_to_nearest(desc_act: bool) -> None:
    weight = random_weight(4, 64, 4)
    quantized = quantize_gptq(weight, torch.zeros(64, 64), gptq(desc_act=desc_act))
    assert torch.equal(quantized.dequantize(), quantize(weight, gptq()).dequantize())


def test_the_inputs_are_left_as_they_are_and_bfloat16_is_taken() -> None:
    weight, x = random_weight(4, 64, 5).bfloat16(), correlated(64, 5)
    gram = x.T @ x
    copies = weight.clone(), gram.clone()
    quantized = quantize_gptq(weight, gram, gptq())
    assert torch.equal(weight, copies[0])
    assert torch.equal(gram, copies[1])
    expected = quantize_gptq(weight.float(), gram, gptq())
    assert torch.equal(quantized.integers, expected.integers)


def test_damping_is_raised_where_rounding_made_h_indefinite() -> None:
    gram = torch.ones(64, 64)
    gram.diagonal()[10:] -= 0.05  # least eigenvalue about −0.05: 1 % is too little, 10 % is enough
    with pytest.warns(UserWarning, match=r"damp_percent to 0\.1"):
        quantized = quantize_gptq(random_weight(4, 64, 6), gram, gptq())
    with pytest.warns(UserWarning, match="damp_percent"):
        again = quantize_gptq(random_weight(4, 64, 6), gram, gptq())
    assert torch.equal(quantized.integers, again.integers)


def test_a_matrix_that_is_no_gram_matrix_is_an_error() -> None:
    gram = torch.eye(64)
    gram[3, 4] = gram[4, 3] = 100.0
    with pytest.raises(UserError, match="not positive definite even with damp_percent 10;"):
        quantize_gptq(random_weight(4, 64, 7), gram, gptq())


@pytest.mark.parametrize("broken", [torch.inf, torch.nan])
def test_activations_that_are_not_numbers_are_an_error(broken: float) -> None:
    x = correlated(64, 8)
    x[5, 7] = broken
    with pytest.raises(UserError, match="infinities or NaN"):
        quantize_gptq(random_weight(4, 64, 8), x.T @ x, gptq())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("desc_act", [False, True])
def test_a_gpu_gives_the_same_up_to_ties(desc_act: bool) -> None:
    weight, x = random_weight(12, 160, 9), correlated(160, 9)
    recipe = gptq(desc_act=desc_act)
    here = quantize_gptq(weight, x.T @ x, recipe)
    there = quantize_gptq(weight.cuda(), (x.T @ x).cuda(), recipe)
    assert there.integers.is_cuda
    assert (here.integers != there.integers.cpu()).float().mean() < 0.01
    error = output_error(here, weight, x)
    moved = QuantizedWeight(
        there.integers.cpu(),
        there.scales.cpu(),
        there.zeros.cpu(),
        None if there.group_index is None else there.group_index.cpu(),
    )
    assert output_error(moved, weight, x) == pytest.approx(error, rel=0.02)
