"""Quantized activations: the formula, the layers touched, and independence of the batch."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import quantize_tiny, store, tiny_llama, write_samples

from radquant.checkpoints.loading import load
from radquant.errors import UserError
from radquant.packed.linear import PackedLinear
from radquant.runtime.activations import quantize_activations
from radquant.settings.precision import Activations, as_values

TENSOR = {bits: Activations(bits=bits, granularity="tensor") for bits in (8, 4)}


@pytest.fixture(scope="module")
def packed_tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tiny")
    return quantize_tiny(tiny_llama(directory / "original"), directory)


def test_closed_form() -> None:
    x = torch.tensor([[[7.0, 3.4, -0.4], [-6.6, 0.0, 2.5]]])
    expected = torch.tensor([[[7.0, 3.0, 0.0], [-7.0, 0.0, 2.0]]])  # scale 7 / 7, halves to even
    assert torch.equal(quantize_activations(x, TENSOR[4]), expected)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from([4, 8]), st.integers(0, 2**31))
def test_error_is_at_most_half_a_step(bits: int, seed: int) -> None:
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(seed))
    step = x.abs().amax((1, 2), keepdim=True) / (2 ** (bits - 1) - 1)
    assert ((quantize_activations(x, TENSOR[bits]) - x).abs() <= step / 2 + 1e-6).all()


def test_padding_does_not_enter_the_scale() -> None:
    x = torch.randn(1, 4, 8)
    padded = torch.cat([torch.full((1, 3, 8), 1e6), x], dim=1)
    real = torch.tensor([[False] * 3 + [True] * 4])
    rounded = quantize_activations(padded, TENSOR[8], real)[:, 3:]
    assert torch.equal(rounded, quantize_activations(x, TENSOR[8]))


@pytest.mark.parametrize(
    "rounding",
    [*TENSOR.values(), Activations(bits=8), Activations(bits=4, granularity="group", group_size=8)],
)
def test_a_batch_changes_no_sequence(packed_tiny: Path, rounding: Activations) -> None:
    loaded = load(packed_tiny, rounding=rounding)
    torch.manual_seed(3)
    short, long = torch.randint(3, 16, (1, 5)), torch.randint(3, 16, (1, 9))
    alone = loaded.model(input_ids=short).logits
    padded = torch.cat([torch.zeros(1, 4, dtype=torch.long), short], dim=1)
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[0, :4] = 0
    together = loaded.model(
        input_ids=torch.cat([padded, long]),
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
    ).logits
    torch.testing.assert_close(together[0, 4:], alone[0], rtol=1e-3, atol=1e-3)


def test_every_packed_layer_is_touched(packed_tiny: Path) -> None:
    loaded = load(packed_tiny, rounding=Activations(bits=8))
    assert loaded.layers_quantized == loaded.activation_layers == 2 * 7
    plain = load(packed_tiny)
    ids = torch.randint(3, 16, (1, 6))
    assert not torch.equal(plain.model(ids).logits, loaded.model(ids).logits)
    assert plain.activation_layers == 0


def test_layers_are_counted_without_unpacking_them(
    packed_tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(PackedLinear, "rows", None)  # unpacks the weights
        loaded = load(packed_tiny, rounding=Activations(bits=8))
    assert loaded.activation_layers == 2 * 7
    logits = loaded.model(torch.randint(3, 16, (1, 6))).logits
    assert float(logits.std()) > 0  # layers multiply again


@pytest.mark.parametrize("method", ["rtn", "awq"])
def test_static_ranges_come_from_the_checkpoint(tmp_path: Path, method: str) -> None:
    """One for each linear layer, those that share an input too."""
    static = Activations(bits=8, granularity="tensor", range="static", skip=("down_proj",))
    options = ["--method", method, "--calibration", str(write_samples(tmp_path))]
    options += ["--activations", json.dumps(as_values(static))]
    checkpoint = store(tiny_llama(tmp_path / "original"), tmp_path / "checkpoint", *options)
    loaded = load(checkpoint, rounding=static)
    assert (loaded.layers_quantized, loaded.activation_layers) == (14, 12)
    with pytest.raises(UserError, match="give its checkpoint the same activations"):
        load(checkpoint, rounding=Activations(bits=8, granularity="tensor", range="static"))


def test_an_unquantized_model_is_refused(tmp_path: Path) -> None:
    directory = tiny_llama(tmp_path / "original")
    with pytest.raises(UserError, match="no packed linear layer"):
        load(directory, rounding=Activations(bits=8))
