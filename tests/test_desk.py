"""What waits and what is written at once, by a batch that only counts; what a stream sends."""

import time
from collections.abc import Iterator
from queue import Queue
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny_tokenizers import byte_tokenizer

from radquant.errors import UserError
from radquant.generation.engines.kind import Opened, Wanted
from radquant.generation.outputs import read_output
from radquant.generation.running import Row
from radquant.serving.desk import Desk
from radquant.serving.parts import Answer, Part
from radquant.serving.requests import BadRequest
from radquant.serving.streaming import settled

END = 1  # the token that ends an answer
TOKENIZER = byte_tokenizer()


class Counting:
    """A batch whose rows write the length of their prompt; a token of -9 breaks it."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.steps: Queue[None] = Queue()  # each is waited for
        self.most = 0

    def bytes_for(self, tokens: int) -> int:
        return tokens

    def join(self, row: Row) -> None:
        if row.ids == [-8]:
            raise UserError("the row cannot be run")
        self.rows.append(row)
        self.most = max(self.most, len(self.rows))

    def step(self) -> tuple[list[Row], dict[Row, Exception]]:
        self.steps.get(timeout=20)
        failed: dict[Row, Exception] = {row: ValueError() for row in self.rows if -9 in row.ids}
        self.rows = [row for row in self.rows if row not in failed]
        for row in self.rows:
            row.written.append(10 + len(row.ids))
        return list(self.rows), failed

    def leave(self, row: Row) -> None:
        self.rows = [other for other in self.rows if other is not row]


class Engine:
    """Has a batch and nothing else."""

    SAMPLES = True

    def __init__(self, batch: Counting) -> None:
        self.batch = batch

    def running(self, opened: Opened, cache: int) -> Counting:
        return self.batch


@pytest.fixture
def batch() -> Counting:
    return Counting()


@pytest.fixture
def desk(batch: Counting, tmp_path) -> Iterator[Desk]:
    opened = Opened(Wanted(tmp_path), "float32", TOKENIZER, None, (END,), 128, ())
    engine: Any = Engine(batch)
    made = Desk(engine, opened, 2, 30)
    made.thread.start()
    yield made
    made.close(at_once=True)
    for _ in range(100):
        batch.steps.put(None)
    made.thread.join(20)
    assert not made.thread.is_alive()


def answer(ids: list[int], count: int) -> tuple[Answer, Queue[Any]]:
    told: Queue[Any] = Queue()
    return Answer(ids, count, stop=(), tell=told.put, chat=True), told


def test_answers_join_and_leave_while_others_are_written(desk: Desk, batch: Counting) -> None:
    long, told_long = answer([3], 9)
    desk.take([long])
    batch.steps.put(None)
    short, told_short = answer([3, 3], 2)
    third, told_third = answer([3, 3, 3], 1)
    desk.take([short, third])
    for _ in range(4):
        batch.steps.put(None)
    assert told_short.get(timeout=20).shown == 2
    assert told_third.get(timeout=20).shown == 1
    assert told_long.empty()
    assert batch.most == 2
    for _ in range(9):
        batch.steps.put(None)
    assert told_long.get(timeout=20) == Part(TOKENIZER.decode([11] * 9), (), "length", 9)


def test_one_that_fails_reaches_no_other(desk: Desk, batch: Counting) -> None:
    broken, told_broken = answer([-9], 3)
    good, told_good = answer([3], 3)
    refused, told_refused = answer([-8], 3)
    desk.take([broken, good, refused])
    for _ in range(5):
        batch.steps.put(None)
    assert isinstance(told_broken.get(timeout=20), ValueError)
    assert isinstance(told_refused.get(timeout=20), UserError)
    assert told_good.get(timeout=20).shown == 3


def test_what_leaves_makes_room(desk: Desk, batch: Counting) -> None:
    """In the batch, in the cache of 30 tokens, and among those that wait."""
    first, _ = answer([3], 20)
    desk.take([first])
    batch.steps.put(None)
    second, told = answer([3], 20)
    left, told_left = answer([3], 20)
    desk.take([left, second])
    batch.steps.put(None)
    assert told.empty()
    desk.leave([first, left])
    for _ in range(22):
        batch.steps.put(None)
    assert told.get(timeout=20).shown == 20
    assert told_left.empty()
    assert batch.most == 1


def test_what_never_fits_is_refused_at_once(desk: Desk) -> None:
    with pytest.raises(BadRequest, match="more than") as caught:
        desk.take([answer([3], 30)[0]])
    assert caught.value.status == 503


def test_a_desk_that_closes_finishes_what_it_writes(desk: Desk, batch: Counting) -> None:
    written, told = answer([3], 20)
    waiting, told_waiting = answer([3], 20)
    desk.take([written, waiting])
    batch.steps.put(None)
    while not written.written:
        time.sleep(0.001)
    desk.close()
    refusal = told_waiting.get(timeout=20)
    assert (refusal.status, "ending" in refusal.message) == (503, True)
    with pytest.raises(BadRequest, match="ending"):
        desk.take([answer([3], 1)[0]])
    for _ in range(20):
        batch.steps.put(None)
    assert told.get(timeout=20).shown == 20
    desk.thread.join(20)
    assert not desk.thread.is_alive()


# ------------------------------------------------------------------------ what a stream sends

THINKER = byte_tokenizer(("<s>", "</s>", "<think>", "</think>"))
PIECES = ["the ", "lungs", " ", "\n", "é", "漢", "😀", "<", "<thi", "nk>", "STO", "P", "x"]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


@settings(max_examples=80, deadline=None)
@given(text=TEXTS, stop=st.sampled_from([(), ("STOP",), ("x", "\n\n")]))
@example("a <think>b</think> c", ())
@example("a <thinker", ())
def test_a_stream_never_takes_anything_back(text: str, stop: tuple[str, ...]) -> None:
    """What is sent behind each token begins what the whole answer turns out to be."""
    ids = TOKENIZER(text)["input_ids"]
    sent = ""
    for count in range(1, len(ids) + 1):
        whole = read_output(TOKENIZER, ids[:count], {END}, stop).text
        assert whole.startswith(sent)
        if any(mark in TOKENIZER.decode(ids[:count]) for mark in stop):
            return
        now = settled(TOKENIZER, [], ids[:count], stop)
        assert now.startswith(sent)
        sent = now
    ended = read_output(TOKENIZER, [*ids, END], {END}, stop).text
    assert ended.startswith(sent)
    # What is held back is at most a mark's beginning, the end of a character, and spaces.
    assert not ids or len(ended) - len(sent) <= 24 or "<think>" in text


def ids_of(*parts: str) -> list[int]:
    return [token for part in parts for token in THINKER(part)["input_ids"]]


@pytest.mark.parametrize(
    ("prompt", "written", "sent"),
    [
        ("q", "<think>a</think>b", "b"),
        ("q<think>", "a</think>b", "b"),
        ("q<think>", "a", ""),
        ("q<think></think>", "a b", "a b"),
        ("q", "a b", ""),  # it may be thinking that has not ended
    ],
)
def test_thinking_is_not_sent(prompt: str, written: str, sent: str) -> None:
    assert settled(THINKER, ids_of(prompt), ids_of(written), ()) == sent


def test_what_a_tokenizer_may_still_clean_is_held_back(monkeypatch) -> None:
    monkeypatch.setattr(TOKENIZER, "clean_up_tokenization_spaces", True)
    assert settled(TOKENIZER, [], TOKENIZER("they do n't")["input_ids"], ()) == "they"
