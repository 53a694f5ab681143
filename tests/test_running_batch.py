"""Answers in a running batch are those that prompts get alone, to the bit, however they arrive."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_lean_engine import NumberTokenizer, lean_model, random_ids, run
from tiny_reports import prompt_of

from radquant.errors import UserError
from radquant.generation import lean_likelihood, lean_running, lean_steps, lean_writing
from radquant.generation.lean_running import PAGE, LeanBatch, common
from radquant.generation.memory import NotEnoughMemory
from radquant.generation.running import Row, Sampling
from radquant.kernels import cpu
from radquant.runtime.runtime_file import StoredPrefix

lean_only = pytest.mark.skipif(cpu.unavailable() is not None, reason=str(cpu.unavailable()))
MOST_PAGES = 40  # of the cache that the batches here have
# Beginnings that prompts share or not, longer than a page and shorter.
TREE = random_ids(110, 5)
POOL = [
    *(TREE[:length] for length in (1, 63, 64, 65, 100, 110)),
    *(TREE[:length] + random_ids(9, length) for length in (0, 40, 64, 90)),
    random_ids(3, 8),
    random_ids(100, 9),
]


@dataclass
class Failing:
    """A decoder whose step fails when it reads a token; all else is the decoder's."""

    lean: Any
    token: int = -1
    error: Exception = field(default_factory=lambda: RuntimeError("broken"))

    def run(self, reads: Any, wanted: Any) -> torch.Tensor:
        found = self.lean.run(reads, wanted)
        if any(self.token in read.ids for read in reads.values()):
            raise self.error
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self.lean, name)


@dataclass
class FailingOnce:
    """A decoder whose first step fails when it is done; all else is the decoder's."""

    lean: Any
    failed: bool = False

    def run(self, reads: Any, wanted: Any) -> torch.Tensor:
        found = self.lean.run(reads, wanted)
        if not self.failed:
            self.failed = True
            raise RuntimeError("broken")
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self.lean, name)


def stored_prefix(lean: Any, tokens: int) -> StoredPrefix:
    config = lean.config
    shape = (1, config.num_key_value_heads, tokens, config.head_dim)
    states = [torch.randn(shape, generator=torch.Generator().manual_seed(1)) for _ in range(2)]
    each = config.num_hidden_layers
    return StoredPrefix(random_ids(tokens, 4), [states[0]] * each, [states[1]] * each)


MODELS = ["llama", "gemma3, capped", "llama behind a prefix", "llama, whole"]


@pytest.fixture(scope="module", params=MODELS)
def batch(request: pytest.FixtureRequest) -> Iterator[LeanBatch]:
    name = request.param.removesuffix(" behind a prefix").removesuffix(", whole")
    behind, whole = request.param.endswith("prefix"), request.param.endswith("whole")
    lean = lean_model(name)
    page = LeanBatch(lean, None, 0).bytes_for(1)
    lean = replace(lean, whole=whole)
    return LeanBatch(lean, stored_prefix(lean, 3) if behind else None, MOST_PAGES * page)


@pytest.fixture(scope="module")
def alone(batch: LeanBatch) -> dict[int, list[int]]:
    """What the evaluation's own writing makes of each prompt of the pool by itself: 8 tokens."""
    stored = [] if batch.stored is None else list(batch.stored.ids)
    lean = lean_model("llama" if batch.lean.config.model_type == "llama" else "gemma3, capped")
    found = {}
    for place, ids in enumerate(POOL):
        lean_steps.begin(lean, stored, 128, batch.stored)
        ends = lean_writing.Settings(8, frozenset())
        made = lean_writing.generate(lean, NumberTokenizer(), [prompt_of(stored + ids)], ends, 1)
        found[place] = list(map(int, made.outputs[0].text.split()))
    return found


def row_of(batch: LeanBatch, place: int, tokens: int) -> Row:
    stored = [] if batch.stored is None else list(batch.stored.ids)
    return Row(stored + POOL[place], tokens)


def run_to_end(batch: LeanBatch, rows: list[Row]) -> dict[Row, Exception]:
    failed: dict[Row, Exception] = {}
    while batch.rows:
        given, broken = batch.step()
        failed |= broken
        for row in given:
            if len(row.written) == row.count:
                batch.leave(row)
    return failed


ARRIVALS = st.lists(
    st.tuples(
        st.integers(0, len(POOL) - 1),  # the prompt
        st.integers(1, 8),  # tokens of the answer
        st.integers(0, 12),  # the step before which it comes
        st.one_of(st.none(), st.integers(0, 6)),  # steps after which its client leaves
    ),
    min_size=1,
    max_size=8,
)


@lean_only
@settings(max_examples=25, deadline=None)
@given(arrivals=ARRIVALS, part=st.sampled_from([16, 70, 128]))
def test_any_mix_of_arrivals_gives_what_each_gets_alone(batch, alone, arrivals, part) -> None:
    """Also with rows that leave, and with beginnings that others have read; in bounded memory."""
    rows = [row_of(batch, place, tokens) for place, tokens, _, _ in arrivals]
    comes = {row: come for row, (_, _, come, _) in zip(rows, arrivals, strict=True)}
    leaves = {
        row: come + gone
        for row, (_, _, come, gone) in zip(rows, arrivals, strict=True)
        if gone is not None
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lean_running, "PROMPT_TOKENS", part)
        for step in count():
            for row in [row for row in rows if comes[row] == step]:
                batch.join(row)
            for row in [row for row in rows if leaves.get(row) == step]:
                batch.leave(row)
            if not batch.rows and step > max(comes.values()):
                break
            writing = {row for row in batch.rows.values() if row.written}
            given, failed = batch.step() if batch.rows else ([], {})
            assert not failed
            assert writing <= set(given)  # whoever writes goes on in every step
            for row in given:
                if len(row.written) == row.count:
                    batch.leave(row)
    for row, (place, *_) in zip(rows, arrivals, strict=True):
        assert row.written == alone[place][: len(row.written)]
        assert row in leaves or len(row.written) == row.count
    assert batch.lean.decoder.cache_bytes() <= batch.cache + batch.bytes_for(128)
    assert len(batch.kept) <= lean_running.KEPT


def asking(batch: LeanBatch, place: int, kind: str) -> Row:
    """A row of a prompt of the pool that draws its tokens, wants to know how likely all are, …"""
    row = row_of(batch, place, 6)
    if kind != "echo":
        row.sampling = Sampling(1.5, 0.9, 40 + place)
    row.top, row.echo = (None if kind == "drawn" else 2), kind == "echo"
    return row


def found(row: Row) -> tuple[Any, ...]:
    return row.written, row.chances, row.prompt_chances


KINDS = ["drawn", "drawn and told", "echo"]


@pytest.fixture(scope="module")
def asking_alone(batch: LeanBatch) -> dict[tuple[int, str], tuple[Any, ...]]:
    """What each prompt of the pool gets by itself, when nothing of it was read before."""
    told = {}
    for place in range(len(POOL)):
        for kind in KINDS:
            for number in list(batch.kept):
                batch.forget(number)
            row = asking(batch, place, kind)
            batch.join(row)
            assert not run_to_end(batch, [row])
            told[place, kind] = found(row)
    return told


@lean_only
@settings(max_examples=20, deadline=None)
@given(
    arrivals=st.lists(
        st.tuples(
            st.integers(0, len(POOL) - 1), st.sampled_from([*KINDS, "plain"]), st.integers(0, 6)
        ),
        min_size=1,
        max_size=8,
    ),
    part=st.sampled_from([16, 70, 128]),
)
def test_what_is_drawn_and_told_is_what_a_row_gets_alone(
    batch, alone, asking_alone, arrivals, part
) -> None:
    """To the bit, whatever stands beside it and however prompts are cut; plain rows are, too."""
    rows = [
        row_of(batch, place, 6) if kind == "plain" else asking(batch, place, kind)
        for place, kind, _ in arrivals
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lean_running, "PROMPT_TOKENS", part)
        for step in range(7):
            for row, (*_, comes) in zip(rows, arrivals, strict=True):
                if comes == step:
                    batch.join(row)
            for row in batch.step()[0] if batch.rows else []:
                if len(row.written) == row.count:
                    batch.leave(row)
        assert not run_to_end(batch, rows)
    for row, (place, kind, _) in zip(rows, arrivals, strict=True):
        if kind == "plain":
            assert row.written == alone[place][:6]
        else:
            assert found(row) == asking_alone[place, kind]


@lean_only
def test_chances_are_those_of_the_scores(batch, alone, asking_alone) -> None:
    """As the evaluation's likelihoods have them; the likeliest is what is written greedily."""
    lean = lean_model("llama" if batch.lean.config.model_type == "llama" else "gemma3, capped")
    stored = 0 if batch.stored is None else len(batch.stored.ids)
    for place, ids in enumerate(POOL):
        written, chances, of_prompt = asking_alone[place, "echo"]
        assert written == alone[place][:6]
        assert [chance.token for chance in chances] == written
        assert [chance.likeliest[0] for chance in chances] == [
            (c.token, c.logprob) for c in chances
        ]
        assert list(of_prompt) == list(range(stored + 1, stored + len(ids)))
        assert [chance.token for chance in of_prompt.values()] == ids[1:]
        if not stored:
            (nats,), _ = lean_likelihood.answer_nll(lean, [prompt_of(ids[:1], answer=ids[1:])], 1)
            told = -sum(chance.logprob for chance in of_prompt.values())
            assert told == pytest.approx(nats, rel=1e-12)


@lean_only
def test_a_step_that_is_done_anew_draws_and_tells_the_same(batch, asking_alone) -> None:
    own = batch.lean
    for kind in KINDS:
        row = asking(batch, 10, kind)
        batch.join(row)
        while len(row.written) < 3:
            batch.step()
        batch.lean = FailingOnce(own)
        try:
            assert not run_to_end(batch, [row])
        finally:
            batch.lean = own
        assert found(row) == asking_alone[10, kind]


@lean_only
def test_a_beginning_is_read_once(batch, monkeypatch) -> None:
    """Also by rows that come together, and by one that comes when all others have left."""
    if batch.lean.whole:
        pytest.skip("it reads all of it")
    read = []
    run = type(batch.lean).run
    monkeypatch.setattr(
        type(batch.lean),
        "run",
        lambda lean, reads, wanted: (
            read.append(sum(len(r.ids) for r in reads.values())) or run(lean, reads, wanted)
        ),
    )
    for number in list(batch.kept):
        batch.forget(number)
    begin = random_ids(100, 77)
    stored = [] if batch.stored is None else list(batch.stored.ids)
    rows = [Row([*stored, *begin, token], 1) for token in range(3, 9)]
    for row in rows:
        batch.join(row)
    run_to_end(batch, rows)
    assert sum(read) == len(begin) + 6
    late = Row([*stored, *begin, 20], 1)
    batch.join(late)
    read.clear()
    run_to_end(batch, [late])
    assert sum(read) == 1


@lean_only
def test_a_long_prompt_holds_up_no_short_one(batch, monkeypatch) -> None:
    if batch.lean.whole:
        pytest.skip("it reads prompts one after another")
    monkeypatch.setattr(lean_running, "PROMPT_TOKENS", 16)
    stored = [] if batch.stored is None else list(batch.stored.ids)
    long, short = (Row([*stored, *random_ids(count, 50 + count)], 2) for count in (110, 6))
    batch.join(long)
    batch.join(short)
    given, _ = batch.step()
    assert given == [short]
    while not long.written:  # and it goes on beside
        before = batch.shown[next(iter(batch.rows))]
        batch.step()
        assert batch.shown[next(iter(batch.rows))] > before
    for row in (long, short):
        batch.leave(row)


@lean_only
def test_prompts_that_must_not_be_cut_are_read_at_once(batch, alone, monkeypatch) -> None:
    """Also those of rows that are read anew because a step failed."""
    if not batch.lean.whole:
        pytest.skip("it cuts prompts")
    rows = [row_of(batch, place, 4) for place in (5, 10)]
    read: dict[int, list[int]] = {}
    own = type(batch.lean).run

    def watched(lean: Any, reads: Any, wanted: Any) -> torch.Tensor:
        for number, part in reads.items():
            read.setdefault(number, []).append(len(part.ids))
        if wanted and len(rows[0].written) == 2 and not failed_once:
            failed_once.append(own(lean, reads, wanted))
            read.clear()
            raise RuntimeError("broken")
        return own(lean, reads, wanted)

    failed_once: list[torch.Tensor] = []
    monkeypatch.setattr(type(batch.lean), "run", watched)
    for row in rows:
        batch.join(row)
    assert not run_to_end(batch, rows)
    assert [row.written for row in rows] == [alone[place][:4] for place in (5, 10)]
    assert failed_once
    for parts, row in zip(read.values(), rows, strict=True):
        assert parts[0] == len(row.ids)
        assert set(parts[1:]) == {1}


@lean_only
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RuntimeError("broken"), RuntimeError),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), NotEnoughMemory),
    ],
)
def test_a_row_that_fails_fails_alone(batch, alone, error: Exception, kind: type) -> None:
    places = (0, 5, 10)
    rows = [row_of(batch, place, 4) for place in places]
    seen = {token for row in rows for token in row.ids} | {t for n in places for t in alone[n]}
    token = min(set(range(3, 49)) - seen)
    broken = Row([*rows[1].ids[:80], token], 4)
    own = batch.lean
    batch.lean = Failing(own, token, error)
    try:
        for row in (rows[0], broken, *rows[1:]):
            batch.join(row)
        failed = run_to_end(batch, rows)
    finally:
        batch.lean = own
    assert list(failed) == [broken]
    assert isinstance(failed[broken], kind)
    assert [row.written for row in rows] == [alone[place][:4] for place in places]


@lean_only
def test_scores_that_are_no_numbers_end_one_row(batch, alone, monkeypatch) -> None:
    rows = [row_of(batch, place, 3) for place in (0, 10)]
    for row in rows:
        batch.join(row)

    class Broken:
        def greedy(self, hidden: torch.Tensor) -> torch.Tensor:
            found = own.decoder.greedy(hidden)
            found[0] = -1
            return found

        def __getattr__(self, name: str) -> Any:
            return getattr(own.decoder, name)

    own = batch.lean
    batch.lean = Failing(own)
    batch.lean.decoder = Broken()
    try:
        _, failed = batch.step()
    finally:
        batch.lean = own
    assert list(failed) == rows[:1]
    assert isinstance(failed[rows[0]], UserError)
    assert "not finite" in str(failed[rows[0]])
    run_to_end(batch, rows)
    assert rows[1].written == alone[10][:3]


@lean_only
def test_a_row_that_begins_as_another_keeps_its_tokens() -> None:
    """Also when the other leaves, and a third takes what it leaves behind."""
    lean = lean_model("llama")
    ids, other = random_ids(100, 1), random_ids(120, 2)
    (whole,) = run(lean, [ids], [0])
    for row, same, tokens in ((1, 0, -1), (1, 0, 101), (1, 9, 64), (0, 0, 64), (-1, 0, 64)):
        with pytest.raises(RuntimeError):
            lean.decoder.begin_as(row, same, tokens)
    lean.decoder.begin_as(1, 0, PAGE)
    lean.decoder.begin_as(2, 0, 90)
    with pytest.raises(RuntimeError, match="has begun"):
        lean.decoder.begin_as(1, 0, PAGE)
    lean.decoder.release(0)
    run(lean, [other], [3])
    (rest,) = run(lean, [ids[PAGE:]], [1])
    assert torch.equal(rest, whole[PAGE:])
    lean.decoder.release(1)
    run(lean, [other], [4])
    (rest,) = run(lean, [ids[90:]], [2])
    assert torch.equal(rest, whole[90:])
    for row in (2, 3, 4):
        lean.decoder.release(row)
    made = lean.decoder.cache_bytes()
    run(lean, [other, other, ids], [0, 1, 2])  # in the pages that all of them have left
    assert lean.decoder.cache_bytes() == made


@given(
    st.lists(st.integers(0, 1), max_size=300),
    st.lists(st.integers(0, 1), max_size=300),
    st.integers(0, 300),
    st.integers(0, 70),
)
def test_common(one: list[int], other: list[int], shared: int, begin: int) -> None:
    same = [7] * shared
    one, other = same + one, same + other
    begin = min(begin, shared)
    equal = next(
        (n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
        min(len(one), len(other)),
    )
    assert common(one, other, begin) == max(0, min(equal, len(one) - 1) - begin)
