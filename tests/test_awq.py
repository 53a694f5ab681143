"""AWQ's folding and scale search at their edges."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_architectures import RECIPE
from torch import nn

from radquant.packed.grid import quantize
from radquant.quantization import awq, clipping
from radquant.quantization.awq import (
    InputStatistics,
    fold_exactly,
    fold_into_linear,
    fold_into_norm,
    rows_for_loss,
    search_scale,
)
from radquant.quantization.gptq import quantize_gptq
from radquant.quantization.rounding import round_group
from radquant.settings.recipe import Recipe

BFLOAT16 = torch.bfloat16


@pytest.mark.parametrize("storage", [torch.float16, BFLOAT16])
def test_folding_into_a_norm_of_one_plus_weight_is_exact(storage: torch.dtype) -> None:
    """Weights near −1 are the hard ones: little is left of their digits in 1 + weight."""
    torch.manual_seed(0)
    norm = nn.RMSNorm(512).requires_grad_(False)
    norm.weight.copy_(torch.linspace(-1.05, 3, 512).to(storage))
    before, scale = norm.weight.clone(), torch.exp(torch.randn(512))
    applied = fold_into_norm(norm, scale, storage, offset=1.0)
    torch.testing.assert_close((1 + norm.weight) * applied, 1 + before, rtol=1e-6, atol=1e-9)
    assert torch.equal(norm.weight, norm.weight.to(storage).float())
    assert (applied > 0).all()
    ordinary = (1 + before) / scale > 0.1  # further from 0 than the spacing of the numbers stored
    torch.testing.assert_close(applied[ordinary], scale[ordinary], rtol=0.05, atol=0)


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_what_cannot_be_divided_stays(offset: float) -> None:
    """A value whose quotient is rounded to 0 keeps its place; a factor of 0 takes any scale."""
    tiny = 2.0**-130 if offset == 0 else 2.0**-8 - offset
    stored = torch.tensor([tiny, -offset, 0.5])
    scale = torch.tensor([1e6, 3.0, 2.0])
    folded, applied = fold_exactly(stored, scale, BFLOAT16, offset)
    assert folded[0] == stored[0]
    assert applied.tolist()[:2] == [1, 3]
    assert folded[1] == -offset
    assert folded[2] != stored[2]


def test_folding_into_rows_divides_their_bias_and_leaves_the_others() -> None:
    torch.manual_seed(1)
    linear = nn.Linear(8, 6).requires_grad_(False)
    linear.bias.copy_(linear.bias.to(BFLOAT16).float())
    x, scale = torch.randn(5, 8), torch.tensor([0.3, 7.0])
    before = linear(x)
    applied = fold_into_linear(linear, slice(4, 6), scale, BFLOAT16)
    after = linear(x)
    torch.testing.assert_close(after[:, 4:] * applied, before[:, 4:])
    assert torch.equal(after[:, :4], before[:, :4])
    assert torch.equal(linear.bias, linear.bias.to(BFLOAT16).float())


def test_rows_for_the_loss_are_spread_evenly_and_count_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    narrow = torch.randn(1536, 2)
    assert rows_for_loss(narrow)[0] is narrow
    assert len(rows_for_loss(torch.zeros(4096, 4096))[0]) == 576
    assert len(rows_for_loss(torch.zeros(1024, 14336))[0]) == 512
    monkeypatch.setattr(awq, "LOSS_VALUES", 7)
    monkeypatch.setattr(awq, "LOSS_ROWS", 3)
    rows, share = rows_for_loss(torch.arange(100.0)[:, None])
    chosen = rows[:, 0].tolist()
    assert len(chosen) * share == 100
    assert {b - a for a, b in pairwise(chosen)} <= {14, 15}
    assert chosen[0] < 15
    assert chosen[-1] >= 85


def test_a_share_of_the_rows_finds_nearly_the_same_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of layers of unequal width, each sampled: the loss of the scale found, over all rows."""
    torch.manual_seed(2)
    x = torch.randn(300, 64) * torch.exp(torch.randn(64))
    statistics = InputStatistics.empty(64, torch.device("cpu"))
    statistics.add(x)
    weights = [torch.randn(512, 64), torch.randn(96, 64) * 3]

    def loss_of_found() -> float:
        scale = search_scale(weights, statistics, torch.arange(64), 64, RECIPE)
        total = 0.0
        for weight in weights:
            scaled = awq.by_group(weight * scale, RECIPE.group_size)
            rounded = awq.round_to_grid(scaled, *awq.find_grid(scaled, RECIPE), RECIPE)
            total += awq.output_error(rounded.flatten(-2) / scale - weight, statistics.gram)
        return total

    whole = loss_of_found()
    monkeypatch.setattr(awq, "LOSS_VALUES", 48 * 64)
    monkeypatch.setattr(awq, "LOSS_ROWS", 1)
    assert loss_of_found() < 1.05 * whole


def test_rows_are_clipped_alike_in_blocks_and_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    x, weight = torch.randn(200, 64).double(), torch.randn(50, 64).double()
    at_once = clipping.search_clip(weight, x.T @ x, RECIPE)
    monkeypatch.setattr(clipping, "CLIP_ROWS", 7)
    assert torch.equal(clipping.search_clip(weight, x.T @ x, RECIPE), at_once)
    assert len(at_once.unique()) > 2


@pytest.mark.parametrize("columns", [96, 1024])
def test_groups_are_clipped_alike_one_by_one_and_several_at_once(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(4)
    x = 3 * torch.randn(400, 1) * torch.randn(7 * 32) + torch.randn(400, 7 * 32)
    x, weight = x.double(), torch.randn(40, 7 * 32).double()
    found = []
    for each in (32, columns):
        monkeypatch.setattr(clipping, "CLIP_COLUMNS", each)
        found.append(clipping.search_clip(weight, x.T @ x, RECIPE))
    assert torch.equal(*found)
    assert len(found[0].unique()) > 2


def outputs_error(weight: torch.Tensor, keep: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Of each row, rounded with these shares of its groups' ranges, [out]."""
    delta = quantize(weight, RECIPE, keep).dequantize() - weight
    return (delta @ x.T).square().sum(-1)


@pytest.mark.parametrize("seed", range(4))
def test_groups_are_clipped_so_that_their_errors_cancel(seed: int) -> None:
    torch.manual_seed(seed)
    groups = 5
    # One direction that all inputs share, as language models' do.
    x = 3 * torch.randn(400, 1) * torch.randn(groups * 32) + torch.randn(400, groups * 32)
    weight = torch.randn(40, groups * 32)
    found = clipping.search_clip(weight, x.T @ x, RECIPE)
    alone = torch.cat(
        [
            clipping.search_clip(w, part.T @ part, RECIPE)
            for w, part in zip(weight.split(32, 1), x.split(32, 1), strict=True)
        ],
        1,
    )
    errors = outputs_error(weight, found, x)
    assert (errors <= outputs_error(weight, alone, x) * (1 + 1e-4)).all()
    assert errors.sum() < 0.8 * outputs_error(weight, alone, x).sum()
    for share in clipping.SHARES:  # nothing is better for the group that came last
        other = found.clone()
        other[:, -1] = share
        assert (errors <= outputs_error(weight, other, x) * (1 + 1e-4)).all()


@pytest.mark.parametrize("rounding", ["nearest", "gptq"])
def test_ranges_are_searched_unless_told_otherwise(rounding: str) -> None:
    torch.manual_seed(4)
    x = torch.randn(200, 64)
    gram = x.T @ x
    weights = {"a": torch.randn(24, 64), "b": torch.randn(8, 64)}
    scales = {}
    for clip in (True, False):
        recipe = Recipe(method="awq", bits=4, group_size=32, rounding=rounding, clip=clip)
        rounded = dict(round_group(weights, "layer", gram, recipe))
        scales[clip] = {name: each.scales.float() for name, each in rounded.items()}
    for name, weight in weights.items():
        whole = awq.find_grid(awq.by_group(weight, 32), RECIPE)[0]
        assert torch.equal(scales[False][name], whole)
        share = scales[True][name] / whole
        torch.testing.assert_close(
            share, clipping.search_clip(weight, gram, RECIPE), atol=1e-3, rtol=0
        )
        assert (share < 0.99).any()


def test_the_scale_for_gptq_never_does_harm_to_what_it_is_chosen_by() -> None:
    """Of whole layers, rounded: AWQ's usual scale may cost more than it gives."""
    recipe = Recipe(method="awq", bits=4, group_size=32, rounding="gptq", clip=False)
    gains = []
    for seed in range(6):
        torch.manual_seed(seed)
        x = torch.randn(500, 16) @ torch.randn(16, 64) + torch.randn(500, 64)
        x *= torch.exp(torch.randn(64))
        statistics, weight = InputStatistics.empty(64, torch.device("cpu")), torch.randn(96, 64)
        statistics.add(x)
        scale = search_scale([weight], statistics, torch.arange(64), 64, recipe)
        plain = quantize_gptq(weight, statistics.gram, recipe).dequantize()
        statistics.divide_channels(scale)
        rounded = quantize_gptq(weight * scale, statistics.gram, recipe).dequantize() / scale
        errors = [((each - weight) @ x.T).square().sum() for each in (rounded, plain)]
        gains.append(float(errors[0] / errors[1]))
    assert max(gains) < 1.02
    assert min(gains) < 0.98


def test_an_error_counts_the_same_by_blocks_of_a_wide_gram_matrix() -> None:
    torch.manual_seed(5)
    x, delta = torch.randn(40, 1100), torch.randn(9, 1100)
    direct = float((delta @ x.T).square().sum())
    assert awq.output_error(delta, x.T @ x) == pytest.approx(direct, rel=1e-4)


@given(
    st.lists(st.floats(0.01, 1), min_size=1, max_size=24), st.integers(0, 23), st.floats(0.01, 1)
)
def test_the_least_of_one_valley_is_found(steps: list[float], lowest: int, slope: float) -> None:
    """Losses that fall to some place and rise behind it, each by steps of its own."""
    lowest = min(lowest, len(steps) - 1)
    heights = torch.tensor(steps).cumsum(0)
    losses = (heights - heights[lowest]).abs() * slope
    places = [torch.tensor(place) for place in range(len(steps))]
    looked: list[int] = []

    def loss(place: torch.Tensor) -> float:
        looked.append(int(place))
        return float(losses[place])

    found, least = awq.least_along(places, loss)
    assert (int(found), least) == (lowest, 0)
    assert len(looked) == len(set(looked)) <= len(steps) / awq.COARSE + 5


def test_ranges_and_scales_are_the_same_to_the_bit_with_two_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(6)
    monkeypatch.setattr(clipping, "CLIP_ROWS", 16)
    x = torch.randn(300, 256) * torch.exp(torch.randn(256))
    statistics = InputStatistics.empty(256, torch.device("cpu"))
    statistics.add(x)
    weights = [torch.randn(160, 256), torch.randn(40, 256)]

    def found(threads: int) -> list[torch.Tensor]:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            scale = search_scale(weights, statistics, torch.arange(256), 256, RECIPE)
            return [scale, *(clipping.search_clip(w, statistics.gram, RECIPE) for w in weights)]
        finally:
            torch.set_num_threads(before)

    assert all(map(torch.equal, found(1), found(2)))
