"""The table of the vocabulary in 8 bits."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_architectures import tiny_model
from tiny_models import store, tiny_llama
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from radquant.checkpoints.loading import is_simulated, load
from radquant.errors import UserError
from radquant.generation.engines import transformers_engine
from radquant.generation.engines.kind import Wanted
from radquant.generation.lean_decoder import take_over
from radquant.kernels import cpu
from radquant.runtime import head
from radquant.settings.precision import Activations, LMHead, lm_head_of


def simulated(weight: Tensor, group_size: int) -> Tensor:
    """To the nearest of 256 points between the least and the largest of a group, 0 among them."""
    groups = weight.unflatten(1, (-1, group_size))
    low, high = groups.amin(-1, True).clamp(max=0), groups.amax(-1, True).clamp(min=0)
    step = ((high - low) / 255).half().double()
    zero = (-low / step).round()
    points = ((groups.double() / step).round() + zero).clamp(0, 255)
    return ((points - zero) * step).flatten(1)


@given(
    tied=st.booleans(),
    group_size=st.sampled_from([8, 16, 32]),
    piece=st.sampled_from([8, 16, head.SLICE]),
    seed=st.integers(0, 1000),
)
def test_what_the_model_holds_is_what_is_packed(
    tied: bool, group_size: int, piece: int, seed: int
) -> None:
    model = tiny_model("llama", tie_word_embeddings=tied)
    torch.manual_seed(seed)
    table = torch.randn_like(model.lm_head.weight)
    words = model.get_input_embeddings().weight.clone()
    with torch.no_grad():
        model.lm_head.weight.copy_(table)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head, "SLICE", piece)
        layer = head.round_head(model, LMHead(bits=8, group_size=group_size))
    rounded = model.lm_head.weight
    assert torch.equal(layer.dequantize().T[: len(table)], rounded)
    # Float noise moves a value over the edge between two points here and there.
    equal = (rounded.double() - simulated(table, group_size)).abs() < 1e-6
    assert equal.double().mean() > 0.99
    off = (rounded - table).abs().unflatten(1, (-1, group_size))
    steps = layer.scales.float().T[: len(table), :, None]
    assert (off <= 1.01 * steps).all()  # half a step, and half of one where the zero is rounded
    assert torch.equal(model.get_input_embeddings().weight, rounded if tied else words)


def test_what_does_not_fit_is_refused() -> None:
    model = tiny_model("llama")
    with pytest.raises(UserError, match="group_size 48 does not divide the model's 64"):
        head.round_head(model, LMHead(bits=8, group_size=48))
    for values, said in (
        ({"bits": 4}, "lm_head.bits is 4, which is not allowed"),
        ({"bits": 8, "group": 64}, "lm_head.group is not a known key"),
        ({"bits": 8, "group_size": 0}, "lm_head.group_size is 0 and must be at least 8"),
    ):
        with pytest.raises(UserError, match=said):
            lm_head_of(values)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("head")
    return store(tiny_llama(place / "original"), place / "rtn", "--method", "rtn")


def test_the_original_keeps_its_head(packed: Path) -> None:
    with pytest.raises(UserError, match="the original, whose head stays as it is"):
        load(packed.parent / "original", lm_head=LMHead(bits=8))


@pytest.mark.skipif(cpu.unavailable() is not None, reason=str(cpu.unavailable()))
@pytest.mark.parametrize("rounding", [None, Activations(bits=8)])
def test_with_kernels_it_is_not_simulated(packed: Path, rounding: Any) -> None:
    """Its input is never rounded to 8 bits; the lean engine checks the scores in float32 itself."""
    settings = LMHead(bits=8, group_size=32)
    plain, loaded = load(packed), load(packed, rounding=rounding, lm_head=settings)
    assert is_simulated(loaded)
    assert loaded.lm_head is not None
    take_over(plain, None)
    exact = loaded.lm_head.dequantize()[:, : loaded.model.config.vocab_size]
    lean = take_over(loaded, rounding)
    assert not is_simulated(loaded)
    hidden = torch.randn(5, exact.shape[0])
    expected = hidden.double() @ exact.double()
    torch.testing.assert_close(lean.decoder.logits(hidden).double(), expected, rtol=1e-5, atol=1e-6)
    assert loaded.weight_bytes < plain.weight_bytes


class Products(TorchDispatchMode):
    """Notes the shapes of the tables that products of several sequences are computed with."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[torch.Size] = []

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if operator is torch.ops.aten.bmm.default:
            self.tables.append(args[1].shape)
        return operator(*args, **kwargs)


@pytest.mark.parametrize("kept", [1, 3])
def test_no_sequence_has_a_table_of_its_own(kept: int, tmp_path: Path) -> None:
    opened = transformers_engine.load(Wanted(tiny_llama(tmp_path / "model"), device="cpu"))
    loaded = opened.wanted.loaded
    ids = torch.randint(0, loaded.model.config.vocab_size, (4, 6))
    with torch.inference_mode(), Products() as products:
        scores = loaded.model(ids, logits_to_keep=kept, use_cache=False).logits
        whole = loaded.model(ids, use_cache=False).logits
    assert not [table for table in products.tables if loaded.model.config.vocab_size in table]
    torch.testing.assert_close(scores, whole[:, -kept:])
