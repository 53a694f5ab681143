"""Greedy generation by this package's own decoder, on a CPU.

Rows have no padding and leave when they are done; the next prompt takes their place. A row's result
does not depend, to the bit, on the rows beside it. So neither the size of a batch nor the order of
the prompts changes an output.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from radquant.cli import progress
from radquant.errors import UserError
from radquant.failures import withheld_panics
from radquant.generation.lean_reading import References, read_with_references
from radquant.generation.lean_rows import LeanDecoder, Read
from radquant.generation.lean_steps import begin, halved, read_of, stored_tokens
from radquant.generation.outputs import read_output
from radquant.generation.tasks import Output, Pace, Scored, Task, Work, not_finite
from radquant.prompts import Prompt
from radquant.runtime.runtime_file import StoredPrefix
from radquant.vision.features import Features


@dataclass(frozen=True)
class Settings:
    """When an answer ends."""

    max_new_tokens: int
    end_ids: frozenset[int]
    stop: tuple[str, ...] = ()


@dataclass
class Written:
    """What was written, in the order of the prompts."""

    outputs: list[Output]
    seconds: list[float]  # from a prompt's first step to its last
    batch_sizes: list[int]  # the one asked for, then each that memory forced
    pace: Pace
    scored: Scored | None = None  # their references


@dataclass
class Row:
    prompt: int  # its place among the prompts
    started: float
    written: list[int] = field(default_factory=list)


@torch.inference_mode()
def generate(
    lean: LeanDecoder,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    settings: Settings,
    batch_size: int,
    done: Callable[[], object] = lambda: None,
    features: Features | None = None,
    scores: bool = False,
) -> Written:
    """Write the answers of prompts that begin as `begin` was told.

    batch_size: the most rows at once; halved when memory runs out. done: called for each answer.
    features: of the prompts' images. scores: whether the prompts' references are scored, too. Each
    prompt must then have one, and no scale may be one of all tokens of a step (`lean.whole`).
    """
    if settings.max_new_tokens < 1:
        raise UserError(f"max_new_tokens is {settings.max_new_tokens}; it must be at least 1")
    if batch_size < 1:
        raise UserError(f"the batch size is {batch_size}; it must be at least 1")
    most = settings.max_new_tokens
    lean.reach(max((len(p.ids) + max(most, len(p.answer_ids)) for p in prompts), default=most))
    waiting = deque(range(len(prompts)))
    rows: dict[int, Row] = {}  # by number in the decoder
    sizes = [batch_size]
    pace = Pace()
    outputs: dict[int, Output] = {}
    seconds = [0.0] * len(prompts)
    references = References() if scores else None

    def clock() -> float:
        """Seconds without those that references took."""
        return time.perf_counter() - (0.0 if references is None else references.wall_seconds)

    while waiting or rows:
        for number in range(sizes[-1]):
            if waiting and number not in rows:
                place = waiting.popleft()
                rows[number] = Row(place, clock())
        try:
            next_tokens(lean, rows, pace, prompts, features, batch_size, references)
        except (RuntimeError, MemoryError) as error:
            sizes.append(halved(sizes[-1], error))
            restart(lean.decoder, rows, waiting)
            continue
        for number in finished(tokenizer, rows, settings):
            row = rows.pop(number)
            lean.decoder.release(number)
            outputs[row.prompt] = read_output(
                tokenizer, row.written, set(settings.end_ids), settings.stop
            )
            seconds[row.prompt] = clock() - row.started
            done()
    written = Written([outputs[place] for place in range(len(prompts))], seconds, sizes, pace)
    if references is not None:
        nats = [references.nats[place] for place in range(len(prompts))]
        written.scored = Scored(nats, references.wall_seconds, references.cpu_seconds)
    return written


def write(lean: LeanDecoder, tokenizer: Any, task: Task, stored: StoredPrefix | None) -> Work:
    """Write the answers of all prompts of a task, which are sorted by length, as one queue."""
    started = time.perf_counter()
    scores = task.scores and not lean.whole
    longest = task.longest
    if scores:
        longest = max([longest, *(len(p.ids) + len(p.answer_ids) for p in task.prompts)])
    shared = begin(lean, task.shared, longest, stored)
    before = time.perf_counter() - started
    count = len(task.prompts)
    done = iter(progress(range(count + 1), task.label, count, "reports"))
    next(done)
    settings = Settings(task.max_new_tokens, frozenset(task.end_ids or ()), task.stop)
    written = generate(
        *(lean, tokenizer, task.prompts, settings, task.batch_size),
        done=lambda: next(done),
        features=task.features,
        scores=scores,
    )
    written.pace.prefill_seconds += before
    return Work(
        written.outputs,
        written.seconds,
        written.batch_sizes[:-1],
        shared - stored_tokens(stored),
        written.pace,
        written.scored,
    )


def next_tokens(
    lean: LeanDecoder,
    rows: dict[int, Row],
    pace: Pace,
    prompts: Sequence[Prompt],
    features: Features | None,
    spare: int,
    references: References | None,
) -> None:
    """Write the next token of every row: those whose prompt is not read yet by themselves.

    spare: from this number on, all rows are empty. references: gets those of the prompts read.
    """
    new = {number: row for number, row in rows.items() if not row.written}
    going = {number: Read(row.written[-1:]) for number, row in rows.items() if row.written}
    scoring = 0.0 if references is None else references.wall_seconds
    started = time.perf_counter()
    if new:
        hidden = read_prompts(lean, new, prompts, features, spare, references)
        append(lean, hidden, list(new.values()), prompts)
    read = time.perf_counter()
    if going:
        append(lean, last_of(lean, going), [rows[number] for number in going], prompts)
    if references is not None:
        started += references.wall_seconds - scoring
    pace.prefill_seconds += read - started
    pace.decode_seconds += time.perf_counter() - read
    pace.decode_tokens += len(going)


def read_prompts(
    lean: LeanDecoder,
    rows: dict[int, Row],
    prompts: Sequence[Prompt],
    features: Features | None,
    spare: int,
    references: References | None,
) -> Tensor:
    """Let rows read their prompts; hidden states behind these, [rows, hidden]."""
    asked = {number: prompts[row.prompt] for number, row in rows.items()}
    if references is None:
        reads = {number: read_of(lean, prompt, features) for number, prompt in asked.items()}
        return last_of(lean, reads)
    hidden, nats = read_with_references(lean, asked, features, spare, references)
    places = [row.prompt for row in rows.values()]
    references.nats |= dict(zip(places, nats, strict=True))
    return hidden


def last_of(lean: LeanDecoder, reads: dict[int, Read]) -> Tensor:
    """Let rows go on by what each reads; hidden states behind it, [rows, hidden]."""
    return lean.run(reads, [end - 1 for end in accumulate(len(r.ids) for r in reads.values())])


def append(
    lean: LeanDecoder, hidden: Tensor, rows: Sequence[Row], prompts: Sequence[Prompt]
) -> None:
    """Write the next token of rows. hidden: behind what each has read, [rows, hidden]."""
    for row, token in zip(rows, lean.decoder.greedy(hidden).tolist(), strict=True):
        if token < 0:
            raise not_finite(prompts[row.prompt].id)
        row.written.append(token)


def finished(tokenizer: Any, rows: dict[int, Row], settings: Settings) -> list[int]:
    """Numbers of the rows that have ended, by an end token, a stop string or their length."""
    ended = {
        number
        for number, row in rows.items()
        if row.written[-1] in settings.end_ids or len(row.written) == settings.max_new_tokens
    }
    if settings.stop:
        going = [number for number in rows if number not in ended]
        written = [rows[number].written for number in going]
        with withheld_panics():
            texts = tokenizer.batch_decode(written, skip_special_tokens=True) if written else []
        for number, text in zip(going, texts, strict=True):
            if any(mark in text for mark in settings.stop):
                ended.add(number)
    return sorted(ended)


def restart(decoder: Any, rows: dict[int, Row], waiting: deque[int]) -> None:
    """Take back all rows; their prompts wait again, first of all."""
    waiting.extendleft(sorted((row.prompt for row in rows.values()), reverse=True))
    for number in rows:
        decoder.release(number)
    rows.clear()
