"""Every rounding that the decoder in C++ computes in integers, against its simulation."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_lean_engine import NumberTokenizer, make_model, random_ids, run
from tiny_reports import random_prompts
from torch import Tensor
from transformers import DynamicCache

from radquant.checkpoints.loading import Loaded, is_simulated
from radquant.generation import (
    batching,
    lean_likelihood,
    lean_steps,
    lean_writing,
    prefix,
    transformers_likelihood,
)
from radquant.generation import transformers_writing as engine
from radquant.generation.lean_decoder import take_over, unsupported
from radquant.generation.lean_rows import LeanDecoder
from radquant.kernels import cpu
from radquant.kernels.choice import use_kernels
from radquant.packed.linear import PackedLinear
from radquant.runtime import activations
from radquant.runtime.kv_cache import new_cache
from radquant.runtime.runtime_file import Runtime, StoredPrefix
from radquant.settings.precision import Activations, KVCache

pytestmark = pytest.mark.skipif(cpu.unavailable() is not None, reason=str(cpu.unavailable()))

# Float noise moves a value over the edge between two integers here and there, which moves all that
# follows by less than rounding does. Mostly it does not, and scores are equal to three digits.
CLOSE = 1e-3


def simulated(name: str, rounding: Activations | None, seed: int = 0, **more: Any) -> Loaded:
    """A packed model whose inputs are rounded by hooks; static ranges are a layer's own."""
    model = make_model(name, 4)
    packed = {n: m for n, m in model.named_modules() if isinstance(m, PackedLinear)}
    static = None
    if rounding is not None and rounding.range == "static":
        made = torch.Generator().manual_seed(seed)
        static = {name: some_grid(layer, rounding, made) for name, layer in packed.items()}
    state = rounding and activations.attach(model, packed, rounding, static)
    runtime = more.pop("runtime", Runtime())
    cache = more.pop("kv_cache", None)
    return Loaded(model, None, 0, 0, 0, "none", runtime, cache, simulation=state)


def some_grid(
    layer: PackedLinear, rounding: Activations, made: torch.Generator
) -> activations.Grid:
    by_group = rounding.granularity == "group"
    count = layer.in_features // rounding.group_size if by_group else 1
    low, high = (torch.rand(count, generator=made) * 3 + 1 for _ in range(2))
    return activations.grid_of_range(-low, high, rounding)


def in_the_decoder(loaded: Loaded) -> LeanDecoder:
    rounding = None if loaded.simulation is None else loaded.simulation.settings
    assert unsupported(loaded, rounding) is None
    lean = take_over(loaded, rounding)
    lean.reach(700)
    return lean


def same(found: Tensor, expected: Tensor, exact: Tensor) -> bool:
    """Whether scores are those of a rounded model, whose own are `exact` without rounding."""
    return difference(found, expected) < max(CLOSE, difference(expected, exact) / 4)


def difference(found: Tensor, expected: Tensor) -> float:
    """Of [tokens, vocabulary] scores, the median token's."""
    return float(((found - expected).norm(dim=-1) / expected.norm(dim=-1)).median())


def scores(lean: LeanDecoder, ids: list[int]) -> Tensor:
    found: Tensor = lean.decoder.logits(run(lean, [ids])[0])
    lean.decoder.clear()
    return found


roundings = st.builds(
    lambda bits, how, symmetric, keep, skip: Activations(
        bits=bits,
        granularity=how[0],
        range=how[1],
        group_size=how[2],
        symmetric=symmetric,
        clip_ratio=keep if how[1] == "dynamic" else 1.0,
        skip=skip,
    ),
    bits=st.sampled_from([4, 8]),
    how=st.sampled_from(
        [
            *(("token", "dynamic", 64), ("tensor", "dynamic", 64), ("tensor", "static", 64)),
            *((g, r, n) for g in ("group",) for r in ("dynamic", "static") for n in (8, 16, 32)),
        ]
    ),
    symmetric=st.booleans(),
    keep=st.sampled_from([1.0, 0.9]),
    skip=st.sampled_from([(), ("down_proj",), ("self_attn.k_proj", "gate_proj")]),
)


@settings(max_examples=25, deadline=None)
@given(
    rounding=roundings,
    name=st.sampled_from(["llama", "gemma3", "qwen2"]),
    length=st.integers(1, 70),
    seed=st.integers(0, 99),
)
@torch.inference_mode()
def test_scores_are_those_that_are_simulated(
    rounding: Activations, name: str, length: int, seed: int
) -> None:
    loaded, ids = simulated(name, rounding, seed), random_ids(length, seed)
    exact, expected = (
        model(torch.tensor([ids]), use_cache=False).logits[0]
        for model in (make_model(name, 4), loaded.model)
    )
    lean = in_the_decoder(loaded)
    assert same(scores(lean, ids), expected, exact)
    # The speed of 4 bits is not what products of 8 bits take.
    assert is_simulated(loaded) == (rounding.bits == 4)


@settings(max_examples=10, deadline=None)
@given(rounding=roundings, seed=st.integers(0, 99))
@torch.inference_mode()
def test_engine_transformers_rounds_in_its_kernels(rounding: Activations, seed: int) -> None:
    """All but what has a scale over several tokens, of which some may be padding."""
    loaded, ids = simulated("llama", rounding, seed), torch.tensor([random_ids(30, seed)] * 2)
    exact, expected = (m(ids).logits[0] for m in (make_model("llama", 4), loaded.model))
    use_kernels(loaded)
    by_text = (rounding.granularity, rounding.range) == ("tensor", "dynamic")
    assert (loaded.simulation is None) == (not by_text)
    assert is_simulated(loaded) == (by_text or rounding.bits == 4)
    assert same(loaded.model(ids).logits[0], expected, exact)


WHOLE = Activations(bits=8, granularity="tensor", symmetric=False)


@torch.inference_mode()
def test_a_long_text_has_one_scale() -> None:
    """Of more tokens than pass the layers together otherwise."""
    ids = [*random_ids(620, 1), 49]
    loaded = simulated("llama", WHOLE)
    table = loaded.model.get_input_embeddings().weight
    factors = loaded.model.model.layers[0].input_layernorm.weight
    table[49] = torch.eye(64)[int(factors.abs().argmax())]  # what it becomes sets the scale
    expected = loaded.model(torch.tensor([ids]), use_cache=False).logits[0]
    lean = in_the_decoder(loaded)
    assert difference(scores(lean, ids)[:500], expected[:500]) < CLOSE
    assert difference(scores(lean, ids[:-1])[:500], expected[:500]) > 10 * CLOSE


@pytest.fixture(scope="module")
def whole() -> LeanDecoder:
    return in_the_decoder(simulated("qwen2", WHOLE))


@settings(max_examples=10, deadline=None)
@given(lengths=st.lists(st.integers(1, 70), min_size=2, max_size=6), seed=st.integers(0, 99))
def test_neighbours_have_no_part_in_a_scale(
    whole: LeanDecoder, lengths: list[int], seed: int
) -> None:
    rows = [random_ids(length, seed + number) for number, length in enumerate(lengths)]
    together = run(whole, rows)
    whole.decoder.clear()
    for ids, expected in zip(rows, together, strict=True):
        assert torch.equal(run(whole, [ids])[0], expected)
        whole.decoder.clear()


@pytest.mark.parametrize("rounding", [WHOLE, Activations(bits=4, granularity="tensor")])
def test_answers_and_their_likelihood_are_those_of_transformers(rounding: Activations) -> None:
    """Of a padded batch there, whose padding has no part; the last token counts to the scale."""
    made = random_prompts(6)
    loaded = simulated("llama", rounding)
    nats = transformers_likelihood.answer_nll(loaded.model, made, 0)
    config = engine.greedy_config(loaded.model, 8, [2], 0)
    written, _ = engine.generate_batches(loaded.model, NumberTokenizer(), config, [made])
    lean = in_the_decoder(loaded)
    lean_steps.begin(lean, [], 128)
    assert lean_likelihood.answer_nll(lean, made, 4)[0] == pytest.approx(nats, rel=1e-3)
    ends = lean_writing.Settings(8, frozenset([2]))
    found = lean_writing.generate(lean, NumberTokenizer(), made, ends, 4).outputs
    assert found == written


# ------------------------------------------------------------------------------- keys and values

caches = st.builds(
    KVCache,
    bits=st.sampled_from([4, 8]),
    granularity=st.sampled_from(["token", "head", "group"]),
    group_size=st.just(16),
    symmetric=st.booleans(),
)


@settings(max_examples=25, deadline=None)
@given(
    cache=caches,
    name=st.sampled_from(["llama", "gemma3", "qwen3"]),
    rounding=st.sampled_from([None, Activations(bits=8, granularity="tensor")]),
    length=st.integers(1, 140),
    cut=st.integers(1, 139),
    seed=st.integers(0, 99),
)
@torch.inference_mode()
def test_a_cache_in_bytes_holds_what_is_simulated(
    cache: KVCache, name: str, rounding: Activations | None, length: int, cut: int, seed: int
) -> None:
    """In two calls, as a prompt and what follows it."""
    loaded, ids = simulated(name, rounding, kv_cache=cache), random_ids(length, seed)
    parts = [part for part in (ids[:cut], ids[cut:]) if part]
    exact, expected = (
        torch.cat([model(torch.tensor([p]), past_key_values=states).logits[0] for p in parts])
        for model, states in (
            (make_model(name, 4), DynamicCache(config=loaded.model.config)),
            (loaded.model, new_cache(loaded.model.config, cache)),
        )
    )
    lean = in_the_decoder(loaded)
    found = torch.cat([lean.decoder.logits(run(lean, [part])[0]) for part in parts])
    assert same(found, expected, exact)
    assert is_simulated(loaded) == (cache.bits == 4)


EIGHT = KVCache(bits=8)


def test_a_cache_in_bytes_takes_a_quarter_and_its_scales() -> None:
    lean, rounded = (in_the_decoder(simulated("llama", None, kv_cache=c)) for c in (None, EIGHT))
    for each in (lean, rounded):
        run(each, [random_ids(60, 0), random_ids(70, 1)])
    heads, width = 2 * 2, 16  # layers, heads
    states = 3 * heads * 2 * 64 * width
    assert lean.decoder.cache_bytes() == 4 * states
    # A scale and a zero of each head's keys and of its values.
    assert rounded.decoder.cache_bytes() == states + 3 * heads * 2 * 64 * 2 * 4


@pytest.mark.parametrize("shared", [False, True])
def test_a_stored_prefix_stays_as_it_is_beside_rounded_ones(shared: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    states = [[torch.randn(1, 2, 3, 16, generator=generator) for _ in range(2)] for _ in range(2)]
    stored = StoredPrefix((5, 6, 1), *states)
    loaded = simulated("llama", None, kv_cache=KVCache(bits=4), runtime=Runtime(prefix=stored))
    made = prefix.behind_stored(random_prompts(5), prefix.stored_ids(loaded))
    start = prefix.begin(loaded, 128)
    expected = transformers_likelihood.answer_nll(loaded.model, made, 0, start)
    lean = in_the_decoder(loaded)
    begins = batching.shared_prefix(made) if shared else []
    assert lean_steps.begin(lean, begins, 128, stored) == (len(begins) if shared else 3)
    assert lean_likelihood.answer_nll(lean, made, 5)[0] == pytest.approx(expected, rel=1e-3)
    lean_steps.begin(lean, begins, 128, stored)  # pages of both kinds are used again
    assert lean_likelihood.answer_nll(lean, made, 2)[0] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"rounding": Activations(type="fp8", bits=8)}, "not to fp8"),
        ({"rounding": Activations(bits=8, keep_from=6.0)}, "keeps no activations"),
        ({"rounding": Activations(bits=8, granularity="group", group_size=4)}, "groups of 4"),
        ({"cache": KVCache(type="fp8", bits=8)}, "not to fp8"),
        ({"cache": KVCache(bits=8, granularity="group", group_size=8)}, "no groups of 8"),
    ],
)
def test_what_it_does_not_round_it_refuses(changed: dict[str, Any], reason: str) -> None:
    rounding = changed.get("rounding")
    loaded = simulated("llama", rounding, kv_cache=changed.get("cache"))
    assert reason in (unsupported(loaded, rounding) or "")
