"""The decoder in C++ against transformers' own models, and against itself in other batches."""

import os
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_architectures import tiny_model
from tiny_models import store, tiny_llama, write_samples
from tiny_reports import prompt_of, random_prompts
from torch import nn

from radquant.checkpoints.loading import Loaded, is_simulated, load
from radquant.errors import UserError
from radquant.generation import (
    batching,
    lean_decoder,
    lean_likelihood,
    lean_steps,
    lean_writing,
    opening,
    prefix,
    transformers_likelihood,
)
from radquant.generation import transformers_writing as engine
from radquant.generation.engines import lean
from radquant.generation.engines.kind import Wanted
from radquant.generation.lean_decoder import LeanDecoder, take_over, unsupported
from radquant.kernels import cpu
from radquant.packed.linear import PackedLinear, ValueLinear
from radquant.runtime import activations
from radquant.runtime.hadamard import rotate_input
from radquant.runtime.head import round_head
from radquant.runtime.runtime_file import Runtime, StoredPrefix
from radquant.settings.precision import Activations, KVCache, LMHead

pytestmark = pytest.mark.skipif(cpu.unavailable() is not None, reason=str(cpu.unavailable()))

# Of each architecture what it alone has; windows that are shorter and longer than the texts, and a
# rotary embedding that is scaled.
SCALED = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama, scaled": ("llama", {"rope_parameters": SCALED, "tie_word_embeddings": False}),
    "mistral": ("mistral", {}),
    "mistral, wide window": ("mistral", {"sliding_window": 100}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
    "gemma3": ("gemma3_text", {}),
    "gemma3, capped": ("gemma3_text", {"final_logit_softcapping": 3.0, "query_pre_attn_scalar": 9}),
}


def as_loaded(model: Any, tokenizer: Any = None, runtime: Runtime | None = None) -> Loaded:
    return Loaded(model, tokenizer, 0, 0, 0, "none", runtime or Runtime(), None)


def random_packed(linear: nn.Linear, bits: int, generator: torch.Generator) -> PackedLinear:
    """A packed layer of the same shape, of any integers."""
    layer = PackedLinear(linear.in_features, linear.out_features, bits, 32, linear.bias is not None)
    for words in (layer.qweight, layer.qzeros):
        words.random_(-(2**31), 2**31, generator=generator)
    layer.scales.uniform_(0.3 / 2**bits, 0.5 / 2**bits, generator=generator)
    if linear.bias is not None:
        layer.bias = linear.bias.detach()
    return layer


def make_model(name: str, bits: int | None = None) -> Any:
    kind, changed = MODELS[name]
    model = tiny_model(kind, **changed)
    generator = torch.Generator().manual_seed(3)
    linears = [(n, m) for n, m in model.model.layers.named_modules() if isinstance(m, nn.Linear)]
    for path, linear in linears if bits else []:
        model.model.layers.set_submodule(path, random_packed(linear, bits, generator))
    return model


def lean_model(name: str, bits: int | None = None, rounding: Any = None) -> LeanDecoder:
    loaded = as_loaded(make_model(name, bits))
    assert unsupported(loaded, rounding) is None
    lean = take_over(loaded, rounding)
    lean.reach(128)
    return lean


def random_ids(count: int, seed: int) -> list[int]:
    return torch.randint(3, 49, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def run(
    lean: LeanDecoder, ids: list[list[int]], rows: list[int] | None = None
) -> list[torch.Tensor]:
    """Hidden states of all tokens of each row, [tokens, hidden]."""
    numbers = range(len(ids)) if rows is None else rows
    flat = [n for n, row in zip(numbers, ids, strict=True) for _ in row]
    tokens = torch.tensor([token for row in ids for token in row])
    states = lean.decoder.run(tokens, torch.tensor(flat), torch.arange(len(tokens)))
    return list(states.split([len(row) for row in ids]))


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


# ------------------------------------------------------------------------- against transformers


@pytest.mark.parametrize("bits", [None, 4, 8])
@pytest.mark.parametrize("name", MODELS)
def test_logits_equal_those_of_transformers(name: str, bits: int | None) -> None:
    """Rows of one token and of more than a page, with and without a shared beginning."""
    model, lean = make_model(name, bits), lean_model(name, bits)
    head = random_ids(20, 7)
    rows = [random_ids(length, seed) for seed, length in enumerate((1, 90, 24))]
    for shared in ([], head):
        lean_steps.begin(lean, shared, 128)
        states = run(lean, rows)
        for ids, of_row in zip(rows, states, strict=True):
            with torch.inference_mode():
                expected = model(torch.tensor([shared + ids]), use_cache=False).logits[0]
            found = lean.decoder.logits(of_row)
            assert relative(found, expected[len(shared) :]) < 1e-4
            assert torch.equal(lean.decoder.greedy(of_row), found.argmax(-1))
        lean.decoder.clear()


@pytest.mark.parametrize("name", MODELS)
def test_the_same_tokens_as_generate(name: str) -> None:
    model, lean = make_model(name), lean_model(name)
    made = [prompt_of(random_ids(length, length)) for length in (3, 40, 11, 5, 77)]
    config = engine.greedy_config(model, 20, [2], 0)
    with torch.inference_mode():
        expected = [model.generate(torch.tensor([p.ids]), generation_config=config) for p in made]
    lean_steps.begin(lean, [], 128)
    settings_ = lean_writing.Settings(20, frozenset([2]))
    written = lean_writing.generate(lean, NumberTokenizer(), made, settings_, 2)
    for prompt, tokens, output in zip(made, expected, written.outputs, strict=True):
        assert output.text == NumberTokenizer().decode(tokens[0, len(prompt.ids) :].tolist())


class NumberTokenizer:
    """Writes tokens as numbers."""

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        return " ".join(map(str, ids))


@pytest.mark.parametrize("bits", [None, 4])
def test_likelihood_equals_that_of_transformers(bits: int | None) -> None:
    made = random_prompts(7)
    for name in ("llama", "gemma3, capped"):
        model, lean = make_model(name, bits), lean_model(name, bits)
        expected = [transformers_likelihood.answer_nll(model, [prompt], 0)[0] for prompt in made]
        for shared in ([], batching.shared_prefix(made)):
            lean_steps.begin(lean, shared, 128)
            found, sizes = lean_likelihood.answer_nll(lean, made, 3)
            assert found == pytest.approx(expected, rel=1e-4)
            assert sizes == [3]
    empty = replace(made[0], answer_ids=[])
    assert lean_likelihood.answer_nll(lean, [empty, made[1]], 3)[0][0] == 0.0


@pytest.mark.parametrize("shared", [False, True])
def test_a_stored_prefix_stands_before_every_text(shared: bool) -> None:
    """Keys and values that no tokens could have made."""
    model = make_model("llama")
    generator = torch.Generator().manual_seed(2)
    states = [[torch.randn(1, 2, 3, 16, generator=generator) for _ in range(2)] for _ in range(2)]
    stored = StoredPrefix((5, 6, 1), *states)
    loaded = as_loaded(model, runtime=Runtime(prefix=stored))
    made = prefix.behind_stored(random_prompts(5), prefix.stored_ids(loaded))
    expected = transformers_likelihood.answer_nll(model, made, 0, prefix.begin(loaded, 128))
    lean = take_over(loaded, None)
    begins = batching.shared_prefix(made) if shared else []
    assert lean_steps.begin(lean, begins, 128, stored) == (len(begins) if shared else 3)
    assert lean_likelihood.answer_nll(lean, made, 5)[0] == pytest.approx(expected, rel=1e-4)


def test_a_stored_prefix_stays_in_the_window() -> None:
    stored = StoredPrefix((5,), [], [])
    with pytest.raises(UserError, match="out of the model's sliding window of 8"):
        lean_steps.begin(lean_model("mistral"), [], 9, stored)


@pytest.mark.parametrize("bits", [4, 8])
def test_rounded_activations_are_those_that_are_simulated(bits: int) -> None:
    rounding = Activations(bits=8)
    model, lean = make_model("llama", bits), lean_model("llama", bits, rounding)
    packed = {n: m for n, m in model.named_modules() if isinstance(m, PackedLinear)}
    tokens = torch.tensor([random_ids(60, 4)])
    with torch.inference_mode():
        exact = model(tokens, use_cache=False).logits[0]
        activations.attach(model, packed, rounding)
        simulated = model(tokens, use_cache=False).logits[0]
    found = lean.decoder.logits(run(lean, tokens.tolist())[0])
    noise = relative(simulated, exact)
    # Float noise moves a value over the edge between two integers here and there.
    assert relative(found, simulated) < noise / 4
    assert torch.allclose(found[0], simulated[0], rtol=1e-3, atol=1e-3)


def test_bfloat16_enters_as_bfloat16() -> None:
    """Against transformers in bfloat16, which rounds in many more places."""
    exact, half = make_model("llama"), make_model("llama").to(torch.bfloat16)
    tokens = torch.tensor([random_ids(60, 4)])
    with torch.inference_mode():
        expected = exact(tokens, use_cache=False).logits[0]
        theirs = half(tokens, use_cache=False).logits[0].float()
    lean = take_over(as_loaded(half), None)
    lean.reach(128)
    found = lean.decoder.logits(run(lean, tokens.tolist())[0])
    assert 1e-4 < relative(found, expected) < relative(theirs, expected)


# --------------------------------------------------------------------------- against other batches


@pytest.fixture(scope="module", params=["mistral, 4", "gemma3, None", "llama, int8"])
def any_lean(request: pytest.FixtureRequest) -> LeanDecoder:
    name, _, how = request.param.rpartition(", ")
    return {
        "4": lambda: lean_model(name, 4),
        "None": lambda: lean_model(name),
        "int8": lambda: lean_model(name, 4, Activations(bits=8)),
    }[how]()


@settings(max_examples=12)
@given(
    lengths=st.lists(st.integers(1, 70), min_size=1, max_size=9),
    shared=st.integers(0, 50),
    cut=st.integers(1, 69),
)
def test_neighbours_and_steps_change_no_bit(
    any_lean: LeanDecoder, lengths: list[int], shared: int, cut: int
) -> None:
    """All rows at once in one step; each alone, in two steps."""
    lean_steps.begin(any_lean, random_ids(shared, 1), 128)
    rows = [random_ids(length, seed) for seed, length in enumerate(lengths)]
    together = run(any_lean, rows)
    for number, (ids, expected) in enumerate(zip(rows, together, strict=True)):
        any_lean.decoder.release(number)
        parts = [run(any_lean, [part], [number])[0] for part in (ids[:cut], ids[cut:]) if part]
        assert torch.equal(torch.cat(parts), expected)
        any_lean.decoder.release(number)
    assert torch.equal(
        any_lean.decoder.logits(together[0][-1:]),
        any_lean.decoder.logits(torch.cat(together))[lengths[0] - 1 : lengths[0]],
    )


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama"))


def test_outputs_are_those_of_the_other_engine(llama: Path) -> None:
    """Stop strings and end tokens, in any batch; rows that end make room for others."""
    made = random_prompts(7)
    loaded = load(llama)
    config = engine.greedy_config(loaded.model, 12, [2, 15], 0)
    free, _ = engine.generate_batches(loaded.model, loaded.tokenizer, config, [made])
    marks = (max((o.text for o in free), key=len).split()[3],)
    expected = {
        stop: engine.generate_batches(loaded.model, loaded.tokenizer, config, [made], stop)[0]
        for stop in ((), marks)
    }
    assert expected[()] != expected[marks]
    assert len({output.finish for output in free}) == 2
    lean = take_over(loaded, None)
    for stop, outputs in expected.items():
        ends = lean_writing.Settings(12, frozenset([2, 15]), stop)
        for size, shared in ((1, []), (3, batching.shared_prefix(made)), (50, [])):
            lean_steps.begin(lean, shared, 128)
            done = mock.Mock()
            written = lean_writing.generate(*(lean, loaded.tokenizer, made, ends, size), done)
            assert written.outputs == outputs
            assert written.batch_sizes == [size]
            assert done.call_count == 7
            assert all(seconds > 0 for seconds in written.seconds)


def test_memory_of_the_cache_is_used_again(llama: Path) -> None:
    lean = take_over(load(llama), None)
    lean_steps.begin(lean, [], 128)
    ends = lean_writing.Settings(4, frozenset([99]))
    lean_writing.generate(lean, NumberTokenizer(), random_prompts(12), ends, 3)
    page = 2 * 2 * 2 * 64 * 16 * 4  # layers, heads, keys and values, positions, channels, bytes
    assert lean.decoder.cache_bytes() == 3 * page
    lean_steps.begin(lean, [5, 6], 128)
    assert lean.decoder.cache_bytes() == 3 * page


def test_bytes_of_the_weights(llama: Path) -> None:
    """Packed for the processor; the embedding, which is the head, too, once in whole blocks."""
    loaded = load(llama)
    before = sum(parameter.numel() for parameter in loaded.model.parameters()) * 4
    table = loaded.model.get_input_embeddings().weight
    take_over(loaded, None)
    filling = -table.shape[0] % 16
    assert loaded.weight_bytes == before + filling * table.shape[1] * 4
    left = [module for module in loaded.model.modules() if isinstance(module, nn.Linear)]
    assert left == []
    assert list(loaded.model.parameters()) == [loaded.model.model.norm.weight]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int8])
def test_embeddings_are_read_from_the_head(dtype: torch.dtype, tied: bool) -> None:
    """In each of the forms in which the kernels keep a head, and from a table of their own."""
    model = tiny_model("gemma3_text", tie_word_embeddings=tied)  # which scales embeddings
    loaded = as_loaded(model)
    if dtype == torch.int8:
        loaded.lm_head = round_head(model, LMHead(bits=8, group_size=32))
    else:
        model.load_state_dict({k: v.to(dtype).float() for k, v in model.state_dict().items()})
    tokens = torch.tensor([random_ids(60, 4)])
    with torch.inference_mode():
        expected = model(tokens, use_cache=False).logits[0]
    lean = take_over(loaded, None)
    assert not is_simulated(loaded)
    lean.reach(128)
    assert relative(lean.decoder.logits(run(lean, tokens.tolist())[0]), expected) < 1e-4
    for wrong in (-1, 10**6):
        with pytest.raises(RuntimeError, match=f"there is no token {wrong}"):
            run(lean, [[5, wrong]])


def allow(more: int) -> None:
    """Let the process take so many more bytes than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, most))


def write_in_little_memory() -> None:
    """With pages of 16 MiB."""
    sizes = {"head_dim": 512, "num_key_value_heads": 8, "num_attention_heads": 8, "hidden_size": 16}
    model = tiny_model("mistral", num_hidden_layers=8, **sizes)
    lean = take_over(as_loaded(model), None)
    made = [prompt_of(random_ids(4, seed), answer=[7]) for seed in range(8)]
    ends = lean_writing.Settings(2, frozenset([2]))
    lean_steps.begin(lean, [], 128)
    expected = lean_writing.generate(lean, NumberTokenizer(), made, ends, 1)
    lean.decoder.clear()
    allow(34 << 20)  # beside what is free inside the process
    written = lean_writing.generate(lean, NumberTokenizer(), made, ends, 8)
    fewer = written.batch_sizes
    assert fewer in ([8, 4], [8, 4, 2]), fewer
    assert written.outputs == expected.outputs
    likely, sizes_ = lean_likelihood.answer_nll(lean, made, 8)
    assert (len(likely), sizes_) == (8, fewer)
    both = lean_writing.generate(lean, NumberTokenizer(), made, ends, 8, scores=True)
    assert both.batch_sizes[-1] < 8
    assert both.outputs == expected.outputs
    assert both.scored is not None
    assert both.scored.nats == likely


@pytest.mark.slow
def test_where_memory_runs_out_fewer_are_written_at_once() -> None:
    """In a process of its own: one that ran other tests has memory to spare inside."""
    program = f"import sys; sys.path[:0] = {sys.path}; import test_lean_engine as tests; "
    program += "tests.write_in_little_memory()"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_scores_that_are_no_numbers_stop_the_run() -> None:
    model = make_model("llama")
    model.model.layers[1].mlp.down_proj.weight[3, 5] = float("nan")
    lean = take_over(as_loaded(model), None)
    ends = lean_writing.Settings(4, frozenset([2]))
    with pytest.raises(UserError, match=r"scores for report \S+ are not finite"):
        lean_writing.generate(lean, NumberTokenizer(), random_prompts(2), ends, 2)


OTHER_LEVEL = """
import sys, torch
sys.path[:0] = {path}
import test_lean_engine as tests
found = [tests.run(tests.lean_model(name), [tests.random_ids(90, 1)])[0] for name in tests.MODELS]
torch.save([tests.cpu.level(), *found], {file!r})
"""


@pytest.mark.slow
@pytest.mark.skipif(
    cpu.unavailable() is None and cpu.level() == "avx2", reason="nothing above AVX2"
)
def test_avx2_computes_the_same(tmp_path: Path) -> None:
    file = str(tmp_path / "states.pt")
    command = OTHER_LEVEL.format(path=[*sys.path, str(Path(__file__).parent)], file=file)
    environment = os.environ | {"RADQUANT_CPU_LEVEL": "avx2"}
    subprocess.run([sys.executable, "-c", command], env=environment, check=True)
    level, *states = torch.load(file)
    assert level == "avx2"
    for name, found in zip(MODELS, states, strict=True):
        assert relative(found, run(lean_model(name), [random_ids(90, 1)])[0]) < 1e-5


# ------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("kind", "changed", "rounding", "reason"),
    [
        ("phi3", {}, None, "models of type 'phi3'"),
        ("gemma2", {}, None, "models of type 'gemma2'"),
        ("llama", {"hidden_act": "relu"}, None, "activation function 'relu'"),
        ("llama", {"head_dim": 8}, None, "heads of 8 channels"),
        ("llama", {"intermediate_size": 120}, None, "a width of 120"),
        ("gemma3_text", {"use_bidirectional_attention": True}, None, "look ahead"),
    ],
)
def test_what_it_does_not_know_it_refuses(
    kind: str, changed: Any, rounding: Any, reason: str
) -> None:
    found = unsupported(as_loaded(tiny_model(kind, **changed)), rounding)
    assert found is not None
    assert reason in found


def test_what_it_does_not_know_of_packed_models() -> None:
    def with_first(change: Any) -> str | None:
        model = make_model("llama", 4)
        change(model, model.model.layers[0].mlp.up_proj)
        return unsupported(as_loaded(model), None)

    def order(model: Any, layer: PackedLinear) -> None:
        layer.order = torch.arange(64, dtype=torch.int32)

    def scales(model: Any, layer: PackedLinear) -> None:
        layer.scales = layer.scales.bfloat16()

    def another(model: Any, layer: PackedLinear) -> None:
        layer.__class__ = type("Another", (PackedLinear,), {})

    def rotated(model: Any, layer: PackedLinear) -> None:
        layer.register_forward_pre_hook(rotate_input)

    changes = {order: "neighbouring", scales: "float16", another: "Another", rotated: "rotate"}
    for change, reason in changes.items():
        assert reason in (with_first(change) or "")
    half = as_loaded(make_model("llama").half())
    assert "float16" in (unsupported(half, None) or "")
    turned = Runtime(rotate_keys=True)
    rounded = replace(as_loaded(make_model("llama", 4), None, turned), kv_cache=KVCache(bits=8))
    assert "rotate keys" in (unsupported(rounded, None) or "")
    model = make_model("llama", 4)
    model.model.layers[1].mlp.up_proj = ValueLinear(torch.randn(160, 64))
    found = unsupported(as_loaded(model), Activations(bits=8))
    assert found == "a layer is not packed, whose activations are to be rounded"


@pytest.fixture(scope="module", params=["none", "smooth", "hadamard"])
def stored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as the workflow writes it."""
    folder = tmp_path_factory.mktemp(request.param)
    original = tiny_llama(folder / "original", hidden_size=64, intermediate_size=128)
    options = ["--method", "rtn", "--transform", request.param]
    options += ["--calibration", str(write_samples(folder))]
    return store(original, folder / request.param, *options)


@torch.inference_mode()
def test_a_stored_checkpoint_runs_as_what_it_is_or_not_at_all(stored: Path) -> None:
    """Whatever its transform, engine auto computes what transformers does."""
    wanted = Wanted(stored, device="cpu")
    ids = torch.randint(wanted.loaded.model.config.vocab_size, [12])
    expected = wanted.loaded.model(ids[None]).logits[0]
    chosen, engine_ = opening.choose("auto", wanted)
    assert chosen == ("transformers" if stored.name == "hadamard" else "lean")
    if chosen == "lean":
        lean = engine_.load(wanted).held
        lean.reach(len(ids))
        hidden = lean.decoder.run(ids, torch.zeros_like(ids), torch.arange(len(ids)))
        torch.testing.assert_close(lean.decoder.logits(hidden), expected, rtol=1e-4, atol=1e-4)
    else:
        with pytest.raises(UserError, match="rotate inputs"):
            opening.choose("lean", wanted)


@pytest.mark.parametrize("stored", ["hadamard"], indirect=True)
def test_other_scores_than_the_models_stop_the_run(
    stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lean_decoder, "hooked", lambda loaded: False)
    with pytest.raises(UserError, match="does not compute what this model does"):
        take_over(load(stored), None)


def test_kernels_are_there_before_the_weights_are(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their compiler takes gigabytes: beside a 7B model, these once made the peak of a run."""
    real, weights_were_there = cpu.unavailable, []

    def noted() -> str | None:
        weights_were_there.append("loaded" in wanted.__dict__)
        return real()

    wanted = Wanted(llama, device="cpu")
    monkeypatch.setattr(cpu, "unavailable", noted)
    assert lean.why_not(wanted) is None
    assert weights_were_there[0] is False
