"""What a checkpoint brings for run time: what is stored is what is evaluated.

Packed checkpoints as the scripts make and load them, against an ordinary transformers model. That
has the dequantized weights, hooks written from the definitions, and an ordinary cache.
"""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from simulation import Simulation, matrix, simulate
from tiny_models import make_stand_out, store, tiny_llama, write_samples
from tiny_reports import model_and_splits, prompt_of, random_prompts, run_script
from torch import Tensor
from transformers import AutoModelForCausalLM

from radquant.checkpoints.loading import Loaded, load
from radquant.errors import UserError
from radquant.generation import batching, transformers_likelihood
from radquant.generation import transformers_writing as generation
from radquant.generation.outputs import outputs_table
from radquant.generation.prefix import begin, behind_stored, run_prefix, stored_ids
from radquant.prompts import Prompt
from radquant.quantization import outliers
from radquant.runtime.runtime_file import FILE, Runtime
from radquant.settings.precision import Activations, KVCache, activations_of

BOS, ODD = 1, 7  # what texts begin with, and what stands out
# Matrices of these orders are not symmetric, so that a rotation the wrong way shows.
WIDTHS = {"hidden_size": 96, "intermediate_size": 160, "num_attention_heads": 4}
TENSOR = '{"bits": 8, "granularity": "tensor", "range": "static"}'
# Relative difference of the logits, of the median token: rounding turns the last digit of a product
# into a whole step, now and then.
CLOSE = 1e-4


def static(bits: int, granularity: str, symmetric: bool) -> dict[str, Any]:
    return {
        "bits": bits,
        "granularity": granularity,
        "group_size": 32,
        "symmetric": symmetric,
        "range": "static",
    }


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original") / "model"
    tiny_llama(folder, attention_bias=True, tie_word_embeddings=False, **WIDTHS)
    return make_stand_out(folder, ODD)


@pytest.fixture
def two_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prefix of two, the second of which is what texts begin with."""
    monkeypatch.setattr(outliers, "find_prefix", lambda *_: [ODD, BOS])


def checkpoint(original: Path, folder: Path, *options: str) -> Path:
    samples = write_samples(folder, BOS)
    return store(original, folder / "checkpoint", *options, "--calibration", str(samples))


def texts(count: int = 6) -> list[Prompt]:
    return [dataclasses.replace(prompt, ids=[BOS, *prompt.ids]) for prompt in random_prompts(count)]


def longest(made: list[Prompt]) -> int:
    return max(len(prompt.ids) + len(prompt.answer_ids) for prompt in made) + 8


def nll(loaded: Loaded, made: list[Prompt], shared: bool, size: int = 4) -> list[float]:
    """As scripts/likelihood.py has it."""
    placed = behind_stored(made, stored_ids(loaded))
    prefix = begin(loaded, longest(placed))
    if shared:
        prefix = run_prefix(loaded.model, batching.shared_prefix(placed), longest(placed), prefix)
        assert prefix.length >= len(stored_ids(loaded)) + 9
    found = []
    for start in range(0, len(made), size):
        part = placed[start : start + size]
        found += transformers_likelihood.answer_nll(loaded.model, part, 0, prefix)
    return found


def difference(found: Tensor, expected: Tensor) -> float:
    """Of [tokens, vocabulary] logits, the median token's."""
    return float(((found - expected).norm(dim=-1) / expected.norm(dim=-1)).median())


@torch.inference_mode()
def logits_of(loaded: Loaded, ids: list[int]) -> Tensor:
    """Of one text, [tokens, vocabulary], by the cache that the package makes."""
    placed = behind_stored([prompt_of(ids)], stored_ids(loaded))[0].ids
    prefix = begin(loaded, len(placed))
    out = loaded.model(torch.tensor([placed[prefix.length :]]), past_key_values=prefix.expanded(1))
    found: Tensor = out.logits[0]
    return found


RTN = ("--method", "rtn", "--bits", "8")
HADAMARD, PREFIX = ("--transform", "hadamard"), ("--prefix", "auto")
COMPRESSED = ("--format", "compressed-tensors")
CASES: dict[str, tuple[tuple[str, ...], dict[str, Any] | None]] = {
    "tensor": (RTN, static(8, "tensor", True)),
    "tensor asymmetric": (RTN, static(8, "tensor", False)),
    "group": (RTN, static(4, "group", True)),
    "group asymmetric": (RTN, static(8, "group", False)),
    "skip": (RTN, static(8, "tensor", True) | {"skip": ["down_proj"]}),
    "prefix": ((*RTN, *PREFIX), None),
    "hadamard": ((*RTN, *HADAMARD), None),
    "hadamard compressed": ((*RTN, *HADAMARD, *COMPRESSED), None),
    "all": ((*RTN, *HADAMARD, *PREFIX, "--smooth-attention"), static(8, "tensor", True)),
    "all asymmetric": (
        ("--method", "awq", "--bits", "4", *HADAMARD, *PREFIX),
        static(8, "group", False),
    ),
    "all gptq": (
        ("--method", "gptq", "--symmetric", *COMPRESSED, *HADAMARD, *PREFIX),
        static(8, "tensor", False),
    ),
    "smooth": (
        ("--method", "gptq", *COMPRESSED, "--transform", "smooth", "--smooth-attention", *PREFIX),
        static(8, "group", True),
    ),
}


@pytest.mark.usefixtures("two_tokens")
@pytest.mark.parametrize("case", CASES)
def test_what_is_stored_is_what_is_evaluated(original: Path, tmp_path: Path, case: str) -> None:
    options, values = CASES[case]
    if values is not None:
        options = (*options, "--activations", json.dumps(values))
    directory = checkpoint(original, tmp_path, *options)
    made = texts()
    for kv_cache in (None, KVCache(bits=8)):
        loaded = load(directory, rounding=activations_of(values), kv_cache=kv_cache)
        expected = simulate(directory, kv_cache)
        assert expected.ids == ([ODD, BOS] if "--prefix" in options else [])
        for prompt in made[:3]:
            found = logits_of(loaded, prompt.ids)
            assert difference(found, expected.logits(prompt.ids)) < CLOSE
        by_hand = [expected.nll(prompt) for prompt in made]
        for shared in (False, True):
            assert nll(loaded, made, shared) == pytest.approx(by_hand, rel=1e-3)


@pytest.mark.usefixtures("two_tokens")
def test_nothing_that_is_stored_is_without_effect(original: Path, tmp_path: Path) -> None:
    """So that the comparison above would notice if it were forgotten."""
    values = static(8, "tensor", True)
    options = (*RTN, *HADAMARD, *PREFIX, "--activations", json.dumps(values))
    directory = checkpoint(original, tmp_path, *options)
    expected, ids = simulate(directory, KVCache(bits=8)), texts(1)[0].ids
    whole = expected.logits(ids)
    for other in (
        dataclasses.replace(expected, kv_cache=None),
        dataclasses.replace(expected, rotated=False),
        dataclasses.replace(expected, ids=[]),
        simulate_without(directory, tmp_path / "ranges", "input_scale"),
    ):
        assert difference(other.logits(ids)[-5:], whole[-5:]) > 10 * CLOSE


def simulate_without(directory: Path, copy: Path, ending: str) -> Simulation:
    """With those tensors left out."""
    shutil.copytree(directory, copy)
    tensors = load_file(copy / FILE)
    kept = {name: each for name, each in tensors.items() if not name.endswith(ending)}
    save_file(kept, copy / FILE, {"activations": "null"})
    return simulate(copy, KVCache(bits=8))


# ------------------------------------------------------------------------------ stored prefixes


@pytest.fixture(scope="module")
def with_prefix(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in 8 bits with a prefix of two tokens."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outliers, "find_prefix", lambda *_: [ODD, BOS])
        return checkpoint(original, tmp_path_factory.mktemp("prefix"), *RTN, *PREFIX)


def own_states(model: Any, ids: list[int]) -> list[tuple[Tensor, Tensor]]:
    with torch.inference_mode():
        cache = model(torch.tensor([ids]), use_cache=True).past_key_values
    return [(layer.keys, layer.values) for layer in cache.layers]


@pytest.mark.parametrize("transform", ["none", "hadamard"])
@pytest.mark.usefixtures("two_tokens")
def test_the_stored_states_are_the_originals(
    original: Path, tmp_path: Path, transform: str
) -> None:
    """Not those of the rounded weights; of a rotated model, values are turned head by head."""
    directory = checkpoint(original, tmp_path, *RTN, *PREFIX, "--transform", transform)
    states = load_file(directory / FILE)
    assert states["prefix.ids"].tolist() == [ODD, BOS]
    model = AutoModelForCausalLM.from_pretrained(original)
    for layer, (keys, values) in enumerate(own_states(model, [ODD, BOS])):
        assert keys.shape == (1, 2, 2, 24)
        turned = values @ matrix(24) if transform == "hadamard" else values
        for kind, own in (("key", keys), ("value", turned)):
            torch.testing.assert_close(states[f"prefix.{layer}.{kind}"], own, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kv_cache", [None, KVCache(bits=4), KVCache(bits=8)])
@pytest.mark.parametrize("bos", [True, False])
def test_stored_states_are_tokens_in_front(
    original: Path, with_prefix: Path, kv_cache: KVCache | None, bos: bool
) -> None:
    """The original with its own states, against itself with the tokens before every text."""
    runtime = load(with_prefix).runtime
    loaded = dataclasses.replace(load(original), runtime=runtime, kv_cache=kv_cache)
    model = loaded.model
    states = own_states(model, [ODD, BOS])
    named = {
        f"prefix.{n}.{kind}": each
        for n, pair in enumerate(states)
        for kind, each in zip(("key", "value"), pair, strict=True)
    }
    explicit = Simulation(model, [ODD, BOS], named, kv_cache, False)
    made = texts() if bos else random_prompts(6)
    if kv_cache is None:  # without any cache
        for prompt in made[:2]:
            ids = [ODD, BOS, *prompt.ids[bos:]]
            with torch.inference_mode():
                whole = model(torch.tensor([ids]), use_cache=False).logits[0, 2:]
            torch.testing.assert_close(explicit.logits(prompt.ids), whole, rtol=1e-3, atol=1e-3)
    by_hand = [explicit.nll(prompt) for prompt in made]
    for shared in (False, True):
        for size in (1, 3, 6):
            assert nll(loaded, made, shared, size) == pytest.approx(by_hand, rel=1e-4)
    expected = [explicit.greedy(prompt.ids, 6) for prompt in made]
    config = generation.greedy_config(model, 6, [99], 0)
    placed = behind_stored(made, stored_ids(loaded))
    for shared in (False, True):
        prefix = begin(loaded, longest(placed))
        if shared:
            prefix = run_prefix(model, batching.shared_prefix(placed), longest(placed), prefix)
        outputs = generation.generate_batch(model, loaded.tokenizer, config, placed, prefix=prefix)
        wanted = [loaded.tokenizer.decode(new, skip_special_tokens=True) for new in expected]
        assert [output.text for output in outputs] == [text.strip() for text in wanted]
        assert {output.tokens for output in outputs} == {6}
    assert [prompt.length for prompt in placed] == [len(prompt.ids) for prompt in made]
    table = outputs_table(placed, outputs, {each.id: n for n, each in enumerate(made)})
    assert list(table["prompt_tokens"]) == [len(prompt.ids) for prompt in made]


def test_a_prefix_is_no_part_of_the_text(with_prefix: Path) -> None:
    loaded = load(with_prefix)
    made = [prompt_of([BOS, 5, 6], answer=[4]), prompt_of([5, 6]), prompt_of([])]
    placed = behind_stored(made, stored_ids(loaded))
    assert [prompt.ids for prompt in placed] == [[ODD, BOS, 5, 6], [ODD, BOS, 5, 6], [ODD, BOS]]
    assert [prompt.length for prompt in placed] == [3, 2, 0]
    assert [prompt.answer_ids for prompt in placed] == [[4], [], []]
    assert len(stored_ids(loaded)) == 2
    plain = dataclasses.replace(loaded, runtime=Runtime())
    assert behind_stored(made, stored_ids(plain)) == made
    assert len(stored_ids(plain)) == 0


def test_a_cache_is_not_used_up(with_prefix: Path) -> None:
    """Each batch gets its own copy; what is in the first does not leak into the second."""
    loaded, made = load(with_prefix), texts()
    placed = behind_stored(made, stored_ids(loaded))
    prefix = begin(loaded, longest(placed))
    shared = run_prefix(loaded.model, batching.shared_prefix(placed), longest(placed), prefix)
    assert prefix.cache.get_seq_length() == prefix.length == 2
    before = transformers_likelihood.answer_nll(loaded.model, placed, 0, shared)
    generation.generate_batch(
        loaded.model,
        loaded.tokenizer,
        generation.greedy_config(loaded.model, 6, [99], 0),
        placed,
        prefix=shared,
    )
    assert transformers_likelihood.answer_nll(loaded.model, placed, 0, shared) == before
    assert shared.cache.get_seq_length() == shared.length


def test_padding_must_not_push_the_prefix_out_of_a_window(with_prefix: Path) -> None:
    loaded = load(with_prefix)
    loaded.model.config.sliding_window = 40
    assert begin(loaded, 40).length == 2
    with pytest.raises(UserError) as refused:
        begin(loaded, 41)
    assert str(refused.value) == (
        "sequences of up to 41 tokens push the checkpoint's stored prefix out of the model's "
        "sliding window of 40; use a checkpoint with prefix none"
    )
    assert begin(dataclasses.replace(loaded, runtime=Runtime()), 41).length == 0


@pytest.mark.usefixtures("two_tokens")
def test_the_scripts_count_no_stored_token(tmp_path: Path) -> None:
    data = model_and_splits(tmp_path)
    values = json.loads(TENSOR)
    options = (*RTN, *PREFIX, *HADAMARD, "--activations", TENSOR)
    samples = write_samples(tmp_path)
    store(data / "original", data / "all", *options, "--calibration", str(samples))
    found = {}
    for model, extra in (("original", ()), ("all", ("--activations", TENSOR))):
        settings = ("--examples", "1", *extra)
        if extra:
            settings = (*settings, "--kv-cache", '{"bits": 8}')
        few = (*settings, "--max-new-tokens", "8")
        run_script("generate", data, tmp_path / f"g-{model}", *few, model=model)
        run_script("likelihood", data, tmp_path / f"l-{model}", *settings, model=model)
        found[model] = [json.loads((tmp_path / f"{x}-{model}.json").read_text()) for x in "gl"]
    for plain, stored in zip(found["original"], found["all"], strict=True):
        assert plain["prompt_tokens"] == stored["prompt_tokens"]
        assert (plain["stored_prefix_tokens"], stored["stored_prefix_tokens"]) == (0, 2)
        assert plain["shared_prefix_tokens"] == stored["shared_prefix_tokens"] > 0
        assert stored["activation_layers"] == 14
        assert stored["activations"] == {**values, "group_size": 64, "symmetric": True} | {
            "type": "int",
            "clip_ratio": 1.0,
            "skip": [],
            "keep_from": None,
        }


# ----------------------------------------------------------------------------- what is refused


def test_static_ranges_are_those_asked_for(original: Path, tmp_path: Path) -> None:
    directory = checkpoint(original, tmp_path, *RTN, "--activations", TENSOR)
    values = json.loads(TENSOR)
    assert load(directory, rounding=activations_of(values)).activation_layers == 14
    assert (
        load(directory, rounding=Activations(bits=8)).activation_layers == 14
    )  # ranges of its own
    for other in ({"symmetric": False}, {"bits": 4}, {"skip": ["down_proj"]}):
        with pytest.raises(UserError, match="has no static ranges for these activations"):
            load(directory, rounding=activations_of(values | other))


def test_other_readers_of_the_weights_are_not_disturbed(with_prefix: Path) -> None:
    """Some take every file of that kind for weights."""
    assert [path.name for path in with_prefix.glob("*.safetensors")] == ["model.safetensors"]
