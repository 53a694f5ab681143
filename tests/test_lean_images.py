"""Images in the decoder in C++: held against transformers' own masks, and against other batches."""

from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_lean_engine import as_loaded, random_ids, random_packed, relative
from test_vision import TEMPLATE, Shown, plain_greedy, plain_nll, plain_of, shown
from tiny_architectures import TEXT, tiny_model
from tiny_image_models import image_config
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, Mistral3Config, MistralConfig

from radquant.checkpoints.loading import load
from radquant.errors import UserError
from radquant.generation import (
    batching,
    lean_likelihood,
    lean_steps,
    lean_writing,
    opening,
    transformers_likelihood,
)
from radquant.generation.engines.kind import Wanted
from radquant.generation.lean_decoder import take_over, unsupported
from radquant.generation.lean_rows import LeanDecoder, Read, runs
from radquant.generation.tasks import Task
from radquant.generation.vision import with_features
from radquant.kernels import cpu
from radquant.packed.linear import PackedLinear
from radquant.prompts import chat_prompt
from radquant.runtime import activations
from radquant.settings.precision import Activations

__all__ = ["shown"]
pytestmark = pytest.mark.skipif(cpu.unavailable() is not None, reason=str(cpu.unavailable()))
HIDDEN, LONGEST = 64, 2048
# Numbers of tokens of text and images in turn; a prompt of no image has one number.
ROWS = [[5, 20, 3, 7, 30], [40], [0, 6, 4], [1, 4, 0, 4, 2, 1, 9]]


def make_model(window: int, bits: int | None = None, **changed: Any) -> Any:
    sizes = {"sliding_window": window, "max_position_embeddings": LONGEST}
    model = tiny_model("gemma3", **sizes | changed)
    generator = torch.Generator().manual_seed(3)
    layers = model.model.language_model.layers
    for name, linear in list(layers.named_modules()) if bits else []:
        if isinstance(linear, nn.Linear):
            layers.set_submodule(name, random_packed(linear, bits or 0, generator))
    return model


def lean_model(window: int, bits: int | None = None, rounding: Any = None) -> LeanDecoder:
    loaded = as_loaded(make_model(window, bits))
    assert unsupported(loaded, rounding) is None
    lean = take_over(loaded, rounding)
    lean.reach(LONGEST)
    return lean


def row_of(lengths: list[int], seed: int = 0) -> Read:
    """Random tokens, and random vectors in the place of every second run of them."""
    types = [place % 2 for place, length in enumerate(lengths) for _ in range(length)]
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(sum(types), HIDDEN, generator=generator) * 8  # as large as embeddings
    ids = random_ids(len(types), seed)
    ids = [10**6 if kind else token for kind, token in zip(types, ids, strict=True)]
    return Read(ids, vectors, types) if sum(types) else Read(ids)


@torch.inference_mode()
def plain_scores(model: Any, read: Read, before: list[int], told: bool = True) -> Tensor:
    """Scores of one row by itself, [tokens, vocabulary], by transformers without a cache."""
    types = torch.tensor([[0] * len(before) + list(read.types or [0] * len(read.ids))])
    ids = torch.tensor([[*before, *read.ids]]).where(types == 0, torch.tensor(0))
    embedded = model.get_input_embeddings()(ids)
    if read.vectors is not None:
        embedded[types == 1] = read.vectors.to(embedded.dtype)
    more = {"token_type_ids": types} if told else {}
    return model(inputs_embeds=embedded, use_cache=False, **more).logits[0]


def scores(lean: LeanDecoder, rows: list[Read], numbers: list[int] | None = None) -> list[Tensor]:
    lengths = [len(read.ids) for read in rows]
    numbers = list(range(len(rows))) if numbers is None else numbers
    hidden = lean.run(dict(zip(numbers, rows, strict=True)), range(sum(lengths)))
    return list(lean.decoder.logits(hidden).split(lengths))


# ------------------------------------------------------------------------- against transformers


@dataclass
class Both:
    model: Any
    lean: LeanDecoder


@pytest.fixture(scope="module", params=[8, 25, LONGEST])
def both(request: pytest.FixtureRequest) -> Both:
    """One model, twice; its first layer sees so many tokens, fewer than an image has or more."""
    return Both(make_model(request.param), lean_model(request.param))


@settings(max_examples=10)
@given(
    rows=st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=5), min_size=1, max_size=4),
    leading=st.booleans(),
    shared=st.sampled_from([0, 3, 70]),
)
def test_scores_are_those_of_transformers(
    both: Both, rows: list[list[int]], leading: bool, shared: int
) -> None:
    """Images at any place and of any length, beside prompts without, behind what all share."""
    before = random_ids(shared, 99)
    made = [row_of([0, *row] if leading else row, seed) for seed, row in enumerate(rows)]
    lean_steps.begin(both.lean, before, LONGEST)
    for read, found in zip(made, scores(both.lean, made), strict=True):
        expected = plain_scores(both.model, read, before)[len(before) :]
        assert relative(found, expected) < 1e-5


def test_images_longer_than_a_chunk(both: Both) -> None:
    """Chunks are of 512 tokens: an image stands across the border, and one fits into none."""
    made = [row_of(lengths, n) for n, lengths in enumerate([[500, 30, 2], [5, 700, 3, 300, 9]])]
    lean_steps.begin(both.lean, [], LONGEST)
    for read, found in zip(made, scores(both.lean, made), strict=True):
        assert relative(found, plain_scores(both.model, read, [])) < 1e-5


def test_what_these_tests_would_notice(both: Both) -> None:
    """An image that is seen in one direction alone, or another one, gives other scores."""
    read = row_of([5, 20, 3])
    assert read.vectors is not None
    found = scores_alone(both.lean, read)
    causal = scores_alone(LeanDecoder(**{**vars(both.lean), "both_ways": False}), read)
    other = scores_alone(both.lean, Read(read.ids, read.vectors.flip(0), read.types))
    for wrong in (causal, other):
        assert torch.equal(wrong[:5], found[:5])
        assert relative(wrong[5:], found[5:]) > 0.05


def scores_alone(lean: LeanDecoder, read: Read) -> Tensor:
    lean_steps.begin(lean, [], LONGEST)
    return scores(lean, [read])[0]


@pytest.mark.parametrize("bits", [4, 8])
def test_packed_layers(bits: int) -> None:
    """W4A16 and 8 bits are what the unpacked weights compute."""
    model, lean = make_model(25, bits), lean_model(25, bits)
    made = [row_of(lengths, seed) for seed, lengths in enumerate(ROWS)]
    for read, found in zip(made, scores(lean, made), strict=True):
        assert relative(found, plain_scores(model, read, [])) < 1e-4


def test_rounded_activations() -> None:
    """W4A8: an image's tokens are rounded as all others are."""
    rounding = Activations(bits=8)
    model, lean = make_model(25, 4), lean_model(25, 4, rounding)
    read = row_of(ROWS[0])
    exact = plain_scores(model, read, [])
    packed = {n: m for n, m in model.named_modules() if isinstance(m, PackedLinear)}
    activations.attach(model, packed, rounding)
    simulated = plain_scores(model, read, [])
    # Float noise moves a value over the edge between two integers here and there.
    assert relative(scores(lean, [read])[0], simulated) < relative(simulated, exact) / 4


def test_bfloat16() -> None:
    """Against transformers in bfloat16, which rounds in many more places."""
    read = row_of(ROWS[0])
    expected = plain_scores(make_model(25), read, [])
    half = make_model(25).to(torch.bfloat16)
    theirs = plain_scores(half, read, []).float()
    lean = take_over(as_loaded(half), None)
    lean.reach(LONGEST)
    assert relative(scores(lean, [read])[0], expected) < relative(theirs, expected)


# ------------------------------------------------------------------------------ reports and files


def test_reports_from_image_files(shown: Shown) -> None:
    """One to three images a report, and one of text alone: against pixels, by transformers' code.

    Rows join a running batch, and stand behind what all prompts share.
    """
    plain, made, row = shown.plain, [*shown.made], {"id": "t", "indication": "pain", "findings": ""}
    inputs = [plain_of(shown.processor, *each) for each in zip(made, shown.rows, strict=True)]
    tokenizer = shown.loaded.tokenizer
    made.append(chat_prompt(*(tokenizer, TEMPLATE, row, [], "findings")))
    made[-1] = replace(made[-1], answer_ids=[7, 12, 9])
    only_text = torch.tensor([made[-1].ids])
    inputs.append({"input_ids": only_text, "token_type_ids": only_text * 0, "pixel_values": None})
    lean = take_over(load(Path(plain.name_or_path), vision=False), None)
    shared = batching.shared_prefix(made)
    assert len(shared) == 3
    ends = lean_writing.Settings(10, frozenset([2]))
    expected = [plain_greedy(plain, each, 10) for each in inputs]
    nats = [plain_nll(plain, of, p.answer_ids) for of, p in zip(inputs, made, strict=True)]
    for begins, size in (([], 1), (shared, 2), (shared, 6)):
        lean_steps.begin(lean, begins, 100)
        done = lean_writing.generate(
            *(lean, tokenizer, made, ends, size), features=shown.features
        ).outputs
        for output, tokens in zip(done, expected, strict=True):
            text = tokenizer.decode(tokens, skip_special_tokens=True).strip()
            assert (output.text, output.tokens) == (text, len(tokens))
        found, _ = lean_likelihood.answer_nll(lean, made, size, shown.features)
        assert found == pytest.approx(nats, rel=2e-5)
    fewer = replace(made[0], images=(*made[0].images, *made[1].images))
    with pytest.raises(UserError, match="report r0: its prompt has 4 tokens for images, and their"):
        lean_steps.read_of(lean, fewer, shown.features)


def test_engine_auto_is_lean(shown: Shown) -> None:
    """In the stages' own words, with a prefix of text that the images share."""
    wanted = Wanted(Path(shown.plain.name_or_path), device="cpu", images=True)
    engine, opened = opening.open_precision("auto", wanted, scores=True)
    assert opened.engine == "lean"
    assert opened.processor.image_seq_length == 4
    shared = batching.shared_prefix(shown.made)
    task = with_features(opened, Task("", [shown.made], shared, 100, 3))
    done = engine.score(opened, task)
    expected = transformers_likelihood.answer_nll(
        shown.loaded.model, shown.made, 0, features=shown.features
    )
    assert done.work.results == pytest.approx(expected, rel=2e-5)
    assert done.work.shared_tokens == len(shared)


# --------------------------------------------------------------------------- against other batches


@pytest.mark.parametrize(("bits", "rounding"), [(None, None), (4, None), (4, Activations(bits=8))])
def test_neighbours_and_steps_change_no_bit(bits: int | None, rounding: Any) -> None:
    """All rows in one step; each alone, cut where no image is."""
    lean = lean_model(25, bits, rounding)
    made = [row_of(lengths, seed) for seed, lengths in enumerate([*ROWS, [5, 300, 2, 400, 3]])]
    lean_steps.begin(lean, random_ids(9, 9), LONGEST)
    together = scores(lean, made)
    for number, (read, expected) in enumerate(zip(made, together, strict=True)):
        lean.decoder.release(number)
        found = [scores(lean, [part], [number])[0] for part in parts_of(read)]
        assert torch.equal(torch.cat(found), expected)


def parts_of(read: Read) -> list[Read]:
    """The row in steps of a run of text or an image each."""
    if read.vectors is None:
        return [Read(read.ids[:3]), Read(read.ids[3:])]
    shown = [place for place, kind in enumerate(read.types) if kind]
    borders = sorted({0, len(read.ids), *(edge for run in runs(shown) for edge in run)})
    parts = []
    for begin, end in pairwise(borders):
        types = read.types[begin:end]
        before = sum(read.types[:begin])
        vectors = read.vectors[before : before + sum(types)]
        parts.append(Read(read.ids[begin:end], vectors if sum(types) else None, types))
    return parts


# -------------------------------------------------------------------------------------- refusals


def test_the_text_model_inside_is_taken_over() -> None:
    """Nothing of the model is left in memory twice, and what sees is gone."""
    loaded = as_loaded(make_model(25))
    take_over(loaded, None)
    assert list(loaded.model.parameters()) == [loaded.model.model.language_model.norm.weight]


def test_scores_are_not_capped() -> None:
    """Gemma3ForConditionalGeneration has no cap, whatever the text model's configuration says."""
    loaded = as_loaded(make_model(25, final_logit_softcapping=3.0))
    read = row_of(ROWS[0])
    expected = plain_scores(loaded.model, read, [])
    assert expected.abs().max() > 3
    lean = take_over(loaded, None)
    lean.reach(LONGEST)
    assert relative(scores(lean, [read])[0], expected) < 1e-5


@pytest.mark.parametrize(
    ("seats", "blocks", "said"),
    [
        ([1, 1], [], "places of vectors must rise"),
        ([1, 8], [], "places of vectors must rise"),
        ([1], [], "need a float32 vector of 64 for each"),
        ([1, 2], [[1, 9]], "blocks must rise"),
        ([1, 2], [[2, 2]], "blocks must rise"),
        ([1, 2], [[1, 3], [2, 4]], "blocks must rise"),
        ([3, 4], [[3, 5]], "each lie within the tokens of a row"),
    ],
)
def test_places_that_are_none(
    both: Both, seats: list[int], blocks: list[list[int]], said: str
) -> None:
    ids, rows = torch.full([8], 5), torch.tensor([0] * 4 + [1] * 4)
    told = (torch.tensor(seats), torch.tensor(blocks, dtype=torch.long).view(-1, 2))
    both.lean.decoder.clear()
    with pytest.raises(RuntimeError, match=said):
        both.lean.decoder.run_shown(ids, rows, ids[:0], torch.zeros(2, HIDDEN), *told)


def test_mistral_3_is_taken_over_with_mistral_inside() -> None:
    """Mistral Small 3.1's text model; Ministral 3's scales queries by their positions."""
    tiny = image_config("mistral3", TEXT)
    assert "'ministral3'" in (
        unsupported(as_loaded(random_mistral(tiny, tiny.text_config)), None) or ""
    )
    model = random_mistral(tiny, MistralConfig(**TEXT, head_dim=32))
    read = row_of(ROWS[0])
    expected = plain_scores(model, read, [], told=False)
    lean = take_over(as_loaded(model), None)
    lean.reach(LONGEST)
    assert relative(scores(lean, [read])[0], expected) < 1e-5


def random_mistral(tiny: Any, text: Any) -> Any:
    config = Mistral3Config(vision_config=tiny.vision_config, text_config=text)
    return AutoModelForImageTextToText.from_config(config, dtype=torch.float32).eval()
