"""What calibration looks at, against direct computation; weights fitted to rounded inputs."""

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import make_stand_out, store, tiny_llama, token_sequences, write_samples
from torch import Tensor

from radquant.errors import UserError
from radquant.models import load
from radquant.quantization import observation
from radquant.quantization.activations import quantize_activations
from radquant.quantization.architectures import Group, decoder_layers
from radquant.quantization.hidden import Hidden, embed
from radquant.quantization.observation import (
    Inputs,
    InputStatistics,
    RoundedStatistics,
    activations_for,
    best_weights,
    collect_rounded,
    collect_statistics,
    rounded_error,
    search_range,
    static_ranges,
)
from radquant.quantization.original import Original, open_original
from radquant.quantization.precision import Activations, activations_of
from radquant.quantization.streaming import fill
from radquant.quantization.verification import USUAL, output_checks

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
    arguments = embed(source, sequences, hidden, CPU)
    layer = decoder_layers(source.model, source.architecture)[0]
    fill(layer, {own: source.stored[name] for own, name in source.layer_tensors(0).items()}, CPU)
    inputs = Inputs(hidden, [arguments[n][0] for n in lengths], prefix, CPU)
    return layer, inputs, Hidden(folder / "out", lengths, hidden.width)


@torch.inference_mode()
def inputs_of_groups(source: Original, layer: Any, inputs: Inputs) -> list[list[Tensor]]:
    """What each group reads behind the prefix, [sequence] of [tokens, in] each."""
    found: list[list[Tensor]] = [[] for _ in source.architecture.groups]
    handles = [
        layer.get_submodule(group.linears[-1]).register_forward_hook(
            lambda _, args, __, f=of_group: f.append(args[0][0, inputs.prefix :].clone())
        )
        for group, of_group in zip(source.architecture.groups, found, strict=True)
    ]
    for index in range(len(inputs.arguments)):
        inputs.run(layer, index)
    for handle in handles:
        handle.remove()
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


@pytest.mark.parametrize("prefix", [0, 2])
@pytest.mark.parametrize(
    "rounding",
    [
        Activations(8),
        Activations(4, "tensor", symmetric=False),
        Activations(4, "group", 32, skip=("down_proj",)),
        Activations(8, "tensor", range="static"),
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
    for of_group, sequences, grid in zip(found, direct, ranges, strict=True):
        if of_group is None:
            continue
        rounded = [
            quantize_activations(x[None], rounding, static=grid)[0] for x in sequences if len(x)
        ]
        x, y = torch.cat(sequences), torch.cat(rounded)
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
    if sum(behind) <= observation.SAMPLE_TOKENS:
        assert found == list(texts)
    steps = {b - a for a, b in pairwise(found)}
    assert max(steps, default=0) - min(steps, default=0) <= 1
    mean = sum(behind) / len(behind)
    assert abs(len(found) * mean - observation.SAMPLE_TOKENS) <= mean or len(found) in (
        1,
        len(texts),
    )


def test_layers_that_read_the_same_are_skipped_together() -> None:
    group = Group(("mlp.gate_proj", "mlp.up_proj"), None)
    both, one = (Activations(8, skip=names) for names in (("gate_proj", "up_proj"), ("up_proj",)))
    assert activations_for(group, None) is None
    assert activations_for(group, both) is None
    assert activations_for(group, Activations(8)) == Activations(8)
    with pytest.raises(UserError, match=r"some of mlp\.gate_proj, mlp\.up_proj but not all"):
        activations_for(group, one)


# ------------------------------------------------------------------------------- static ranges


def error_of_range(x: np.ndarray, keep: float, bits: int, symmetric: bool) -> tuple[float, ...]:
    """Squared error, scale and zero for a share of the range of x."""
    low, high = min(x.min(), 0) * keep, max(x.max(), 0) * keep
    if symmetric:
        largest = 2 ** (bits - 1) - 1
        scale, zero, ends = max(-low, high) / largest, 0.0, (-largest, largest)
    else:
        scale = (high - low) / (2**bits - 1)
        zero, ends = np.round(-low / scale), (0, 2**bits - 1)
    rounded = (np.clip(np.round(x / scale) + zero, *ends) - zero) * scale
    return float(((rounded - x) ** 2).sum()), scale, zero


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("granularity", ["tensor", "group"])
@pytest.mark.parametrize("kind", ["normal", "outlier", "positive"])
def test_a_static_range_is_the_best_of_all_tried(
    bits: int, symmetric: bool, granularity: str, kind: str
) -> None:
    x = random(200, 64, seed=bits)
    if kind == "outlier":
        x[17, 40] = 1000
    elif kind == "positive":
        x = x.abs() + 3
    rounding = Activations(bits, granularity, 32, symmetric, "static")
    found = search_range(x, rounding)
    parts = [x[:, :32], x[:, 32:]] if granularity == "group" else [x]
    assert found.scale.shape == found.zero.shape == (len(parts),)
    for place, part in enumerate(parts):
        values = part.double().numpy()
        tried = [
            error_of_range(values, observation.RANGE_STEP**step, bits, symmetric)
            for step in range(observation.RANGE_STEPS)
        ]
        rounded = (values / float(found.scale[place])).round() + float(found.zero[place])
        rounded = rounded.clip(found.low, found.high) - float(found.zero[place])
        error = ((rounded * float(found.scale[place]) - values) ** 2).sum()
        assert error <= min(tried)[0] * (1 + 1e-4)
        assert any(
            np.isclose(float(found.scale[place]), scale) and float(found.zero[place]) == zero
            for _, scale, zero in tried
        )


def test_outliers_leave_something_for_the_rest() -> None:
    """Covered whole, ten values of 64,000 would cost all others nearly everything in 4 bits."""
    x = random(1000, 64, seed=3)
    x[::100, 5] = 30
    rounding = Activations(4, "tensor", range="static")
    found = search_range(x, rounding)
    assert float(found.scale) < 0.3 * 30 / 7
    ordinary = x[x < 30]
    lost = quantize_activations(ordinary[None, :, None], rounding, static=found)
    assert (lost[0, :, 0] - ordinary).square().sum() < 0.1 * ordinary.square().sum()


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
    rounded = quantize_activations(x[None], Activations(4))[0]
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
    rounded = quantize_activations(x[None], Activations(4))[0]
    evaluated = weight + 0.1 * random(out, width, seed=seed + 4)
    direct = float((rounded @ evaluated.T - x @ weight.T).double().square().sum())
    found = rounded_error(weight, evaluated, x.T @ x, statistics_of(x, rounded))
    assert found == pytest.approx(direct, rel=1e-3)


def test_a_gram_matrix_that_is_none_is_named() -> None:
    broken = RoundedStatistics(-torch.eye(4), torch.eye(4))
    with pytest.raises(UserError, match="rounded inputs is not positive definite"):
        best_weights(torch.eye(4), broken, 0.01)


DYNAMIC = {"bits": 4}
STATIC = {"bits": 4, "granularity": "tensor", "range": "static"}
GROUP = {"bits": 4, "granularity": "group", "group_size": 32, "symmetric": False}


@pytest.mark.parametrize(
    ("method", "values"),
    [("gptq", DYNAMIC), ("gptq", STATIC), ("gptq", GROUP), ("awq", DYNAMIC), ("awq", GROUP)],
)
def test_fitted_weights_lose_less_to_rounded_inputs(
    tmp_path: Path, method: str, values: dict[str, Any]
) -> None:
    """Outputs of decoder layers whose inputs are rounded, against the original's."""
    original = make_stand_out(tiny_llama(tmp_path / "o", tie_word_embeddings=False), 7)
    options = ("--method", method, "--calibration", str(write_samples(tmp_path)))
    fitted = store(original, tmp_path / "f", *options, "--activations", json.dumps(values))
    exact = store(original, tmp_path / "e", *options)
    if values is STATIC:  # the ranges are those of the original's inputs, which GPTQ leaves alone
        (exact / "quantization.json").unlink()
        for name in ("runtime.safetensors", "model.safetensors.index.json"):
            shutil.copyfile(fitted / name, exact / name)
    errors = []
    for directory in (fitted, exact):
        checks = output_checks(
            load(directory, rounding=activations_of(values)).model,
            load(original).model,
            "model.layers",
            token_sequences(6, 24),
            USUAL[4],
        )
        errors.append(sum(check.measured for check in checks[:2]))
    assert errors[0] < errors[1]
