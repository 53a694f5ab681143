"""Greedy generation by this package's own decoder, on a CPU.

Rows have no padding and leave when they are done; the next prompt takes their place. A row's result
does not depend, to the bit, on the rows beside it, so neither the size of a batch nor the order of
the prompts changes an output.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch

from radquant.cli import progress
from radquant.errors import UserError
from radquant.failures import withheld_panics
from radquant.generation.lean_rows import LeanDecoder, Read
from radquant.generation.lean_steps import begin, halved, read_of, stored_tokens
from radquant.generation.outputs import read_output
from radquant.generation.tasks import Output, Pace, Task, Work, not_finite
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
) -> Written:
    """Write the answers of prompts that begin as `begin` was told.

    batch_size: the most rows at once; halved when memory runs out. done: called for each answer.
    features: of the prompts' images.
    """
    if settings.max_new_tokens < 1:
        raise UserError(f"max_new_tokens is {settings.max_new_tokens}; it must be at least 1")
    if batch_size < 1:
        raise UserError(f"the batch size is {batch_size}; it must be at least 1")
    lean.reach(max((len(p.ids) for p in prompts), default=0) + settings.max_new_tokens)
    waiting = deque(range(len(prompts)))
    rows: dict[int, Row] = {}  # by number in the decoder
    sizes = [batch_size]
    pace = Pace()
    outputs: dict[int, Output] = {}
    seconds = [0.0] * len(prompts)
    while waiting or rows:
        for number in range(sizes[-1]):
            if waiting and number not in rows:
                place = waiting.popleft()
                rows[number] = Row(place, time.perf_counter())
        try:
            next_tokens(lean, rows, pace, prompts, features)
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
            seconds[row.prompt] = time.perf_counter() - row.started
            done()
    return Written([outputs[place] for place in range(len(prompts))], seconds, sizes, pace)


def write(lean: LeanDecoder, tokenizer: Any, task: Task, stored: StoredPrefix | None) -> Work:
    """Write the answers of all prompts of a task, which are sorted by length, as one queue."""
    started = time.perf_counter()
    shared = begin(lean, task.shared, task.longest, stored)
    before = time.perf_counter() - started
    count = len(task.prompts)
    done = iter(progress(range(count + 1), task.label, count, "reports"))
    next(done)
    settings = Settings(task.max_new_tokens, frozenset(task.end_ids or ()), task.stop)
    written = generate(
        *(lean, tokenizer, task.prompts, settings, task.batch_size),
        done=lambda: next(done),
        features=task.features,
    )
    written.pace.prefill_seconds += before
    return Work(
        written.outputs,
        written.seconds,
        written.batch_sizes[:-1],
        shared - stored_tokens(stored),
        written.pace,
    )


def next_tokens(
    lean: LeanDecoder,
    rows: dict[int, Row],
    pace: Pace,
    prompts: Sequence[Prompt],
    features: Features | None,
) -> None:
    """Write the next token of every row: those whose prompt is not read yet by themselves."""
    new = {
        number: read_of(lean, prompts[row.prompt], features)
        for number, row in rows.items()
        if not row.written
    }
    going = {number: Read(row.written[-1:]) for number, row in rows.items() if row.written}
    started = time.perf_counter()
    if new:
        step(lean, new, rows, prompts)
    read = time.perf_counter()
    if going:
        step(lean, going, rows, prompts)
    pace.prefill_seconds += read - started
    pace.decode_seconds += time.perf_counter() - read
    pace.decode_tokens += len(going)


def step(
    lean: LeanDecoder, reads: dict[int, Read], rows: dict[int, Row], prompts: Sequence[Prompt]
) -> None:
    """Let the decoder read what rows have not shown it, and write the next token of each."""
    last = [end - 1 for end in accumulate(len(read.ids) for read in reads.values())]
    hidden = lean.run(reads, last)
    for number, token in zip(reads, lean.decoder.greedy(hidden).tolist(), strict=True):
        if token < 0:
            raise not_finite(prompts[rows[number].prompt].id)
        rows[number].written.append(token)


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
