"""Greedy generation and likelihood by this package's own decoder, on a CPU.

Rows have no padding and leave when they are done; the next prompt takes their place. A row's result
does not depend, to the bit, on the rows beside it, so neither the size of a batch nor the order of
the prompts changes an output.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from radquant.cli import progress
from radquant.errors import UserError
from radquant.generation.engines import Pace, Task, Work
from radquant.generation.lean_decoder import LeanDecoder
from radquant.generation.memory import is_out_of_memory
from radquant.generation.prefix import check_window
from radquant.generation.transformers_engine import Output, read_output
from radquant.prompts import Prompt
from radquant.quantization.runtime import StoredPrefix


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
    ids: list[int]  # what the next step reads
    started: float
    written: list[int] = field(default_factory=list)


def begin(
    lean: LeanDecoder, shared: Sequence[int], longest: int, stored: StoredPrefix | None = None
) -> int:
    """Let all sequences begin with the stored prefix and the tokens that they share; their number.

    shared: as `batching.shared_prefix` finds it, the stored prefix's own tokens included. longest:
    of all sequences in tokens, new ones included. Raises UserError as `prefix.begin` does.
    """
    decoder = lean.decoder
    decoder.clear()
    lean.reach(longest)
    known = 0
    if stored is not None:
        check_window(lean.config, longest)
        known = len(stored.ids)
        keys, values = (
            [states[0].float().contiguous() for states in kind]
            for kind in (stored.keys, stored.values)
        )
        decoder.load(0, keys, values)
    rest = list(shared[known:])
    if rest:
        decoder.run(int64(rest), int64([0] * len(rest)), int64([]))
    if stored is not None or rest:
        decoder.share(0)
    length: int = decoder.shared_length()
    return length


@torch.inference_mode()
def generate(
    lean: LeanDecoder,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    settings: Settings,
    batch_size: int,
    done: Callable[[], object] = lambda: None,
) -> Written:
    """Write the answers of prompts that begin as `begin` was told.

    batch_size: the most rows at once; halved when memory runs out. done: called for each answer.
    """
    if settings.max_new_tokens < 1:
        raise UserError(f"max_new_tokens is {settings.max_new_tokens}; it must be at least 1")
    if batch_size < 1:
        raise UserError(f"the batch size is {batch_size}; it must be at least 1")
    skipped = lean.decoder.shared_length()
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
                rows[number] = Row(place, prompts[place].ids[skipped:], time.perf_counter())
        try:
            next_tokens(lean.decoder, rows, pace)
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
    settings = Settings(task.max_new_tokens, frozenset(task.end_ids), task.stop)
    written = generate(lean, tokenizer, task.prompts, settings, task.batch_size, lambda: next(done))
    written.pace.prefill_seconds += before
    return Work(
        written.outputs,
        written.seconds,
        written.batch_sizes[:-1],
        shared - stored_tokens(stored),
        written.pace,
    )


def score(lean: LeanDecoder, task: Task, stored: StoredPrefix | None) -> Work:
    """The nats of every answer of a task."""
    shared = begin(lean, task.shared, task.longest, stored)
    found: list[float] = []
    seconds: list[float] = []
    sizes = [task.batch_size]
    for batch in progress(task.batches, task.label, len(task.batches), "batches"):
        started = time.perf_counter()
        nats, tried = answer_nll(lean, batch, sizes[-1])
        found += nats
        sizes += tried[1:]
        seconds.append(time.perf_counter() - started)
    return Work(found, seconds, sizes[:-1], shared - stored_tokens(stored))


def stored_tokens(stored: StoredPrefix | None) -> int:
    return 0 if stored is None else len(stored.ids)


def int64(values: Sequence[int]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.long)


def next_tokens(decoder: Any, rows: dict[int, Row], pace: Pace) -> None:
    """Write the next token of every row: those whose prompt is not read yet by themselves."""
    new = {number: row for number, row in rows.items() if not row.written}
    going = {number: row for number, row in rows.items() if row.written}
    started = time.perf_counter()
    if new:
        step(decoder, new)
    read = time.perf_counter()
    if going:
        step(decoder, going)
    pace.prefill_seconds += read - started
    pace.decode_seconds += time.perf_counter() - read
    pace.decode_tokens += len(going)


def step(decoder: Any, rows: dict[int, Row]) -> None:
    """Let the decoder read what rows have not shown it, and write the next token of each."""
    ids, numbers, last = [], [], []
    for number, row in rows.items():
        ids += row.ids
        numbers += [number] * len(row.ids)
        last.append(len(ids) - 1)
    hidden = decoder.run(*map(int64, (ids, numbers, last)))
    for row, token in zip(rows.values(), decoder.greedy(hidden).tolist(), strict=True):
        if token < 0:
            raise UserError(
                "the model's scores are not finite; use dtype float32, or a checkpoint whose "
                "values are finite"
            )
        row.written.append(token)
        row.ids = [token]


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
        texts = tokenizer.batch_decode(written, skip_special_tokens=True) if written else []
        for number, text in zip(going, texts, strict=True):
            if any(mark in text for mark in settings.stop):
                ended.add(number)
    return sorted(ended)


def halved(size: int, error: Exception) -> int:
    """Half of the rows at once if `error` says that memory ran out; else it is raised again."""
    if not is_out_of_memory(error):
        raise error
    if size == 1:
        raise UserError(
            "there is not enough memory for one report; use a smaller model or a machine with more"
        ) from None
    return size // 2


def restart(decoder: Any, rows: dict[int, Row], waiting: deque[int]) -> None:
    """Take back all rows; their prompts wait again, first of all."""
    waiting.extendleft(sorted((row.prompt for row in rows.values()), reverse=True))
    for number in rows:
        decoder.release(number)
    rows.clear()


@torch.inference_mode()
def answer_nll(
    lean: LeanDecoder, prompts: Sequence[Prompt], batch_size: int
) -> tuple[list[float], list[int]]:
    """For each prompt −log p(answer | prompt), as `likelihood.answer_nll`, and the batch sizes.

    batch_size: the most rows at once; halved when memory runs out. All sizes that were in use are
    returned.
    """
    lean.reach(max((len(p.ids) + len(p.answer_ids) for p in prompts), default=0))
    found: list[float] = []
    sizes = [batch_size]
    while len(found) < len(prompts):
        batch = prompts[len(found) : len(found) + sizes[-1]]
        try:
            found += batch_nll(lean.decoder, batch)
        except (RuntimeError, MemoryError) as error:
            sizes.append(halved(sizes[-1], error))
        finally:
            for number in range(len(batch)):
                lean.decoder.release(number)
    return found, sizes


def batch_nll(decoder: Any, prompts: Sequence[Prompt]) -> list[float]:
    skipped = decoder.shared_length()
    ids: list[int] = []
    numbers: list[int] = []
    wanted: list[int] = []
    for number, prompt in enumerate(prompts):
        read = (prompt.ids + prompt.answer_ids)[skipped:-1]  # nothing follows the last token
        ids += read
        numbers += [number] * len(read)
        wanted += range(len(ids) - len(prompt.answer_ids), len(ids))
    hidden = decoder.run(*map(int64, (ids, numbers, wanted)))
    found, begin = [], 0
    for prompt in prompts:
        end = begin + len(prompt.answer_ids)
        scores = decoder.logits(hidden[begin:end]).log_softmax(-1)
        chosen = scores.gather(-1, int64(prompt.answer_ids)[:, None])
        found.append(-float(chosen.double().sum()))
        begin = end
    return found
