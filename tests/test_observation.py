"""What calibration looks at, against direct computation; weights fitted to rounded inputs."""

from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import (
    make_stand_out,
    store,
    tiny_llama,
    token_samples,
    token_sequences,
    write_samples,
)
from torch import Tensor

from radquant.checkpoints.loading import load
from radquant.checkpoints.streaming import fill
from radquant.errors import UserError
from radquant.families.architectures import Group
from radquant.families.inspection import decoder_layers
from radquant.packed.formats import format_for, settings_of, unpack
from radquant.quantization import calibration_statistics
from radquant.quantization.calibration_statistics import (
    Inputs,
    InputStatistics,
    RoundedStatistics,
    Waiting,
    activations_for,
    best_weights,
    collect_rounded,
    collect_statistics,
    complete,
    rounded_error,
    static_ranges,
)
from radquant.quantization.hidden_states import Hidden, embed
from radquant.quantization.layerwise import may_be_rough
from radquant.quantization.onednn import onednn_products
from radquant.quantization.original_model import Original, open_original
from radquant.quantization.rounding import round_layer
from radquant.runtime.activations import quantize_activations
from radquant.settings.precision import Activations
from radquant.settings.recipe import Recipe

CPU = torch.device("cpu")
seeds = st.integers(0, 2**31)


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ----------------------------------------------------------------------------------- statistics


@pytest.fixture
def source(tmp_path: Path) -> Original:
    return open_original(tiny_llama(tmp_path / "m", num_hidden_layers=1, attention_bias=True))


@torch.inference_mode()
def first_layer(
    source: Original, folder: Path, sequences: list[Tensor], prefix: int
) -> tuple[torch.nn.Module, Inputs, Hidden]:
    lengths = tuple(map(len, sequences))
    hidden = Hidden(folder / "in", lengths, source.config.hidden_size)
    arguments = embed(source, token_samples(sequences), hidden, CPU)
    layer = decoder_layers(source.model, source.architecture)[0]
    fill(layer, {own: source.stored[name] for own, name in source.layer_tensors(0).items()}, CPU)
    inputs = Inputs(hidden, [each[0] for each in arguments], prefix, CPU)
    return layer, inputs, Hidden(folder / "out", lengths, hidden.width)


@torch.inference_mode()
def inputs_of_groups(source: Original, layer: Any, inputs: Inputs) -> list[list[Tensor]]:
    """What each group reads behind the prefix, [sequence] of [tokens, in] each."""
    found: list[list[Tensor]] = [[] for _ in source.architecture.groups]
    copy = deepcopy(layer)  # whose hooks nobody has to take off
    for of_group, group in zip(found, source.architecture.groups, strict=True):
        copy.get_submodule(group.linears[-1]).register_forward_pre_hook(
            lambda _, args, of_group=of_group: of_group.append(args[0][0, inputs.prefix :])
        )
    for index in range(len(inputs.arguments)):
        inputs.run(copy, index)
    return found


PREFIX = torch.tensor([7, 1])
BEHIND = [PREFIX, *(torch.cat([PREFIX, ids]) for ids in token_sequences(5, 9))]


@pytest.mark.parametrize("prefix", [0, 2])
@torch.inference_mode()
def test_statistics_are_those_of_the_text(source: Original, tmp_path: Path, prefix: int) -> None:
    """A stored prefix is computed, for attention to look at, and does not count."""
    layer, inputs, outputs = first_layer(source, tmp_path, BEHIND, prefix)
    direct = inputs_of_groups(source, layer, inputs)
    found = collect_statistics(layer, source.architecture, inputs, outputs, keep=True)
    for of_group, sequences in zip(found, direct, strict=True):
        x = torch.cat(sequences)
        assert of_group.tokens == len(x) == 5 * 9 + (6 * 2 if not prefix else 0)
        torch.testing.assert_close(of_group.gram, x.T @ x, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(of_group.magnitude, x.abs().sum(0), rtol=1e-5, atol=1e-5)
        assert torch.equal(of_group.largest, x.abs().amax(0))
        assert all(map(torch.equal, of_group.sample, sequences[bool(prefix) :]))
    for index in range(len(BEHIND)):
        assert torch.equal(outputs.read(index, CPU), inputs.run(layer, index))
    unkept = collect_statistics(layer, source.architecture, inputs, outputs, keep=False)
    assert not any(of_group.sample for of_group in unkept)


@torch.inference_mode()
def test_products_behind_the_checked_sequences_may_be_rounded(
    source: Original, tmp_path: Path
) -> None:
    layer, inputs, outputs = first_layer(source, tmp_path, token_sequences(6, 40), 0)
    table = source.architecture
    with onednn_products():
        exact = collect_statistics(layer, table, inputs, outputs, keep=False)
        expected = [outputs.read(index, CPU) for index in range(6)]
        rounded = collect_statistics(layer, table, inputs, outputs, keep=False, exact=2)
        found = [outputs.read(index, CPU) for index in range(6)]
    assert all(map(torch.equal, found[:2], expected[:2]))
    for one, other in zip(found, expected, strict=True):
        assert float((one - other).norm() / other.norm()) < 2**-5  # bfloat16 has 8 bits
    for one, other in zip(rounded, exact, strict=True):
        assert float((one.gram - other.gram).norm() / other.gram.norm()) < 2**-5


@pytest.mark.parametrize(
    ("stored", "allowed"),
    [
        ({"BF16"}, True),
        ({"F16"}, True),
        ({"BF16", "F16"}, True),
        ({"F32"}, False),
        ({"BF16", "F32"}, False),
    ],
)
def test_where_factors_may_be_rounded(stored: set[str], allowed: bool) -> None:
    awq = Recipe(method="awq", bits=4, group_size=32)
    assert may_be_rough(awq, stored) == allowed
    for changed in ({"rounding": "gptq"}, {"activations": Activations(bits=8)}, {"method": "gptq"}):
        assert not may_be_rough(awq.model_copy(update=changed), stored)


@pytest.mark.parametrize("prefix", [0, 2])
@pytest.mark.parametrize(
    "rounding",
    [
        Activations(bits=8),
        Activations(bits=4, granularity="tensor", symmetric=False),
        Activations(bits=4, granularity="group", group_size=32, skip=("down_proj",)),
        Activations(bits=8, granularity="tensor", range="static"),
    ],
)
@torch.inference_mode()
def test_rounded_statistics(
    source: Original, tmp_path: Path, prefix: int, rounding: Activations
) -> None:
    layer, inputs, outputs = first_layer(source, tmp_path, BEHIND, prefix)
    direct = inputs_of_groups(source, layer, inputs)
    statistics = collect_statistics(layer, source.architecture, inputs, outputs, keep=True)
    ranges = static_ranges(source.architecture, statistics, rounding)
    assert all((grid is not None) == (rounding.range == "static") for grid in ranges)
    found = collect_rounded(layer, source.architecture, inputs, rounding, ranges)
    assert [each is None for each in found] == [False] * 3 + [bool(rounding.skip)]
    for of_group, exact, grid in zip(found, direct, ranges, strict=True):
        if of_group is None:
            continue
        rounded = [quantize_activations(x[None], rounding, static=grid)[0] for x in exact if len(x)]
        x, y = torch.cat(exact), torch.cat(rounded)
        torch.testing.assert_close(of_group.gram, y.T @ y, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(of_group.cross, x.T @ y, rtol=1e-4, atol=1e-4)
        assert not torch.equal(x, y)
    again = inputs_of_groups(source, layer, inputs)  # the layer itself is left as it was
    for x, y in zip(again, direct, strict=True):
        assert all(map(torch.equal, x, y))


@given(st.integers(1, 64), st.integers(1, 30), seeds)
@settings(max_examples=30, deadline=None)
def test_divided_channels(width: int, tokens: int, seed: int) -> None:
    x, scale = random(tokens, width, seed=seed), random(width, seed=seed + 1).exp()
    found, expected = (InputStatistics.empty(width, CPU) for _ in range(2))
    found.add(x, keep=True)
    found.divide_channels(scale)
    expected.add(x / scale, keep=True)
    for name in ("gram", "magnitude", "largest"):
        torch.testing.assert_close(
            getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-4
        )
    torch.testing.assert_close(found.sample, expected.sample)
    assert found.tokens == expected.tokens == tokens


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=60), st.integers(0, 4))
def test_sequences_that_are_kept_whole(behind: list[int], prefix: int) -> None:
    """Evenly spaced, about as many tokens as asked for, and never the prefix by itself."""
    lengths = [prefix] * bool(prefix) + [prefix + count for count in behind]
    hidden = Hidden(Path("unused"), tuple(lengths), 1)
    found = sorted(Inputs(hidden, [{}] * len(lengths), prefix, CPU).sampled())
    texts = range(bool(prefix), len(lengths))
    assert found
    assert set(found) <= set(texts)
    if sum(behind) <= calibration_statistics.SAMPLE_TOKENS:
        assert found == list(texts)
    steps = {b - a for a, b in pairwise(found)}
    assert max(steps, default=0) - min(steps, default=0) <= 1
    mean = sum(behind) / len(behind)
    assert abs(len(found) * mean - calibration_statistics.SAMPLE_TOKENS) <= mean or len(found) in (
        1,
        len(texts),
    )


def test_layers_that_read_the_same_are_skipped_together() -> None:
    group = Group(("mlp.gate_proj", "mlp.up_proj"), None)
    both, one = (
        Activations(bits=8, skip=names) for names in (("gate_proj", "up_proj"), ("up_proj",))
    )
    assert activations_for(group, None) is None
    assert activations_for(group, both) is None
    assert activations_for(group, Activations(bits=8)) == Activations(bits=8)
    with pytest.raises(UserError, match=r"some of mlp\.gate_proj, mlp\.up_proj but not all"):
        activations_for(group, one)


# ------------------------------------------------------------ weights fitted to rounded inputs


def correlated(tokens: int, width: int, seed: int) -> Tensor:
    x = random(tokens, width // 4, seed=seed) @ random(width // 4, width, seed=seed + 1)
    return x + 0.5 * random(tokens, width, seed=seed + 2)


def statistics_of(x: Tensor, rounded: Tensor) -> RoundedStatistics:
    return RoundedStatistics(rounded.T @ rounded, x.T @ rounded)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([8, 16, 32]), st.integers(1, 9), st.floats(0.003, 0.5), seeds)
def test_best_weights_are_the_least_squares_solution(
    width: int, out: int, damp: float, seed: int
) -> None:
    x, weight = correlated(4 * width, width, seed), random(out, width, seed=seed + 3)
    rounded = quantize_activations(x[None], Activations(bits=4))[0]
    found = best_weights(weight, statistics_of(x, rounded), damp)
    damping = damp * float(rounded.square().sum(0).mean())
    left = np.vstack([rounded.double().numpy(), damping**0.5 * np.eye(width)])
    right = np.vstack([(x @ weight.T).double().numpy(), damping**0.5 * weight.T.double().numpy()])
    expected = np.linalg.lstsq(left, right, rcond=None)[0].T
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=2e-3 * scale)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([8, 16, 32]), st.integers(1, 9), st.floats(0.003, 0.5), seeds)
def test_exact_inputs_leave_the_weights(width: int, out: int, damp: float, seed: int) -> None:
    x, weight = correlated(4 * width, width, seed), random(out, width, seed=seed + 3)
    found = best_weights(weight, statistics_of(x, x), damp)
    torch.testing.assert_close(found, weight, rtol=1e-3, atol=1e-3)


def test_inputs_that_are_always_zero_leave_the_weights() -> None:
    """Rounding may leave nothing of a channel."""
    x = correlated(64, 16, 0)
    x[:, 3] *= 1e-6
    rounded = x.clone()
    rounded[:, 3] = 0
    weight = random(4, 16, seed=9)
    found = best_weights(weight, statistics_of(x, rounded), 0.01)
    torch.testing.assert_close(found, weight, rtol=1e-3, atol=1e-3)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([8, 16, 32]), st.integers(1, 9), seeds)
def test_the_error_is_the_norm(width: int, out: int, seed: int) -> None:
    x, weight = correlated(4 * width, width, seed), random(out, width, seed=seed + 3)
    rounded = quantize_activations(x[None], Activations(bits=4))[0]
    evaluated = weight + 0.1 * random(out, width, seed=seed + 4)
    direct = float((rounded @ evaluated.T - x @ weight.T).double().square().sum())
    found = rounded_error(weight, evaluated, x.T @ x, statistics_of(x, rounded))
    assert found == pytest.approx(direct, rel=1e-3)


def test_a_gram_matrix_that_is_none_is_named() -> None:
    broken = RoundedStatistics(-torch.eye(4), torch.eye(4))
    with pytest.raises(UserError, match="rounded inputs is not positive definite"):
        best_weights(torch.eye(4), broken, 0.01)


@pytest.mark.parametrize("method", ["gptq", "awq"])
@pytest.mark.parametrize(
    "rounding",
    [
        Activations(bits=4),
        Activations(bits=4, granularity="tensor", range="static"),
        Activations(bits=4, granularity="group", group_size=32),
    ],
)
@torch.inference_mode()
def test_fitted_weights_lose_less_to_rounded_inputs(
    source: Original, tmp_path: Path, method: str, rounding: Activations
) -> None:
    """Each linear layer of a model with an outlying token, beside plain quantization of it."""
    layer, inputs, outputs = first_layer(source, tmp_path, token_sequences(40, 24), 0)
    layer.input_layernorm.weight[3] = 30
    table = source.architecture
    statistics = collect_statistics(layer, table, inputs, outputs, keep=True)
    ranges = static_ranges(table, statistics, rounding)
    rounded = collect_rounded(layer, table, inputs, rounding, ranges)
    exact = inputs_of_groups(source, layer, inputs)
    seen = [
        [quantize_activations(x[None], rounding, static=grid)[0] for x in of_group]
        for of_group, grid in zip(exact, ranges, strict=True)
    ]
    recipe = Recipe(method=method, bits=4, group_size=32)
    form = format_for(recipe)
    errors: list[dict[str, float]] = []
    for known in (rounded, []):
        own, of_groups = deepcopy(layer), deepcopy(statistics)
        tensors, records = round_layer(own, "layer", table, recipe, form, of_groups, known)
        for group, freed in zip(table.groups, of_groups, strict=True):
            assert not freed.gram.numel()
            assert not any(own.get_parameter(f"{name}.weight").numel() for name in group.linears)
        errors.append({})
        for group, of_exact, of_rounded in zip(table.groups, exact, seen, strict=True):
            x, y = torch.cat(of_exact), torch.cat(of_rounded)
            for name in group.linears:
                evaluated = stored_weight(tensors, name, recipe)
                expected = x @ layer.get_submodule(name).weight.T
                errors[-1][name] = float((y @ evaluated.T - expected).norm() / expected.norm())
        if known:  # what is recorded is that very error
            for record in records:
                name = record["name"].removeprefix("layer.")
                assert record["output_error"] == pytest.approx(errors[-1][name], rel=1e-2)
    for name, error in errors[0].items():
        assert error < errors[1][name], name
    assert sum(errors[0].values()) < 0.95 * sum(errors[1].values())


def stored_weight(tensors: dict[str, Tensor], name: str, recipe: Recipe) -> Tensor:
    """What a linear layer's packed tensors stand for, [out, in]."""
    packed = {
        key.rpartition(".")[2]: each for key, each in tensors.items() if key.startswith(f"{name}.")
    }
    return unpack(packed, settings_of(format_for(recipe).config(recipe, []))).dequantize()


def test_a_whole_model_of_fitted_weights_loses_less(tmp_path: Path) -> None:
    """Hidden states of a whole model whose inputs are rounded, against the original's."""
    original = make_stand_out(tiny_llama(tmp_path / "o", tie_word_embeddings=False), 7)
    options = ("--method", "gptq", "--calibration", str(write_samples(tmp_path)))
    fitted = store(original, tmp_path / "f", *options, "--activations", '{"bits": 4}')
    exact = store(original, tmp_path / "e", *options)
    sequences = torch.stack(token_sequences(6, 24))
    reference = states_of(load(original).model, sequences)
    errors = [
        (
            states_of(load(directory, rounding=Activations(bits=4)).model, sequences) - reference
        ).norm()
        for directory in (fitted, exact)
    ]
    assert errors[0] < 0.9 * errors[1]


def states_of(model: Any, sequences: Tensor) -> Tensor:
    """Hidden states behind each decoder layer, [layers, batch, tokens, hidden]."""
    with torch.inference_mode():
        found = model(sequences, output_hidden_states=True, use_cache=False).hidden_states
    return torch.stack(found[1:])


def test_wide_gram_matrices_are_whole_once_they_are_completed() -> None:
    torch.manual_seed(6)
    x, weights = torch.randn(1, 60, 1100), torch.rand(60)
    found = InputStatistics.empty(1100, CPU)
    found.add(x[:, :20], weights=weights[:20])
    found.add(x[:, 20:], weights=weights[20:])
    complete(found.gram)
    expected = x[0].T @ torch.diag(weights) @ x[0]
    torch.testing.assert_close(found.gram, expected, rtol=1e-4, atol=1e-4)


@given(
    st.lists(st.tuples(st.integers(0, 7), st.booleans()), min_size=1, max_size=9), st.integers(1, 9)
)
def test_short_sequences_are_added_together_as_if_each_by_itself(
    sequences: list[tuple[int, bool]], together: int
) -> None:
    """Of some tokens each, weighted or not; what is taken may be changed afterwards."""
    generator = torch.Generator().manual_seed(together)
    expected, waiting = InputStatistics.empty(5, CPU), Waiting(InputStatistics.empty(5, CPU))
    with mock.patch.object(calibration_statistics, "GRAM_TOKENS", together):
        for count, weighted in sequences:
            x = torch.randn(1, count, 5, generator=generator)
            weights = torch.rand(count, generator=generator) if weighted else None
            expected.add(x, keep=weighted, weights=weights)
            waiting.take(x, weighted, weights)
            x.zero_()
        waiting.add()
    found = waiting.statistics
    for name in ("gram", "magnitude", "largest", "tokens", "sample"):
        torch.testing.assert_close(
            getattr(found, name), getattr(expected, name), rtol=1e-5, atol=1e-5
        )
