"""Writing and scoring tokens with llama.cpp: the part that runs in its own environment.

It holds one model and does one task after the other. Each task is a line of JSON on stdin, and its
answers are lines of JSON on stdout. It ends when stdin does. Prompts, and how outputs are read, are
the caller's (`llama_cpp_job.py`): nothing is tokenized here, and no text comes here. python -m
radquant.generation.llama_cpp_decoding
"""

import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ctypes import POINTER, c_int8, c_int32
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from radquant import llama_cpp
from radquant.cli import run
from radquant.errors import UserError
from radquant.generation.process_costs import peak_process_bytes, waited_seconds

PASS = 512  # most tokens that are read in one call
SCORED = 256  # most tokens whose scores are held at once
ROUND_TO = 256  # llama.cpp's caches hold multiples of so many tokens
CUT_OFF = "llama.cpp {build} cannot run this: {why}; change that, or use engine auto"


@dataclass
class Model:
    """A model that llama.cpp holds, and the context in which it works: sequences from 0."""

    library: llama_cpp.Library
    address: int
    threads: int
    cache: str  # type of keys and values
    vocabulary: int
    context: int | None = None
    shape: tuple[int, int] = (0, 0)  # of the context: sequences, tokens of each


@dataclass
class Row:
    """A prompt that is being answered."""

    place: int  # among the prompts
    ids: list[int]  # what the next step reads
    position: int  # of the first of these
    started: float
    written: list[int] = field(default_factory=list)


@dataclass
class Pace:
    """As `generation.tasks.Pace`, which is not in reach here."""

    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    decode_tokens: int = 0


class NotFinite(Exception):
    """Scores are no numbers. args: the prompt's place."""


def load(model: Path, threads: int, cache: str) -> Model:
    """Load a GGUF file. cache: one of `llama_cpp.CACHE_TYPES`."""
    library = llama_cpp.open_library()
    address = llama_cpp.load_model(library, model)
    functions = library.functions
    vocabulary = functions.llama_vocab_n_tokens(functions.llama_model_get_vocab(address))
    return Model(library, address, threads, cache, vocabulary)


def make_context(model: Model, sequences: int, longest: int) -> list[int]:
    """Have room for as many sequences, each of up to `longest` tokens; none is kept.

    Where there is no memory for it, half as many; and never more than llama.cpp can hold. Returns
    the numbers of sequences for which there was no memory. Raises UserError if there is not enough
    for one.
    """
    functions = model.library.functions
    sequences = min(sequences, int(functions.llama_max_parallel_sequences()))
    too_many: list[int] = []
    length = -(-longest // ROUND_TO) * ROUND_TO
    if model.context is not None and model.shape == (sequences, length):
        functions.llama_memory_clear(functions.llama_get_memory(model.context), False)
        return []
    if model.context is not None:
        functions.llama_free(model.context)
        model.context = None
    while True:
        params = functions.llama_context_default_params()
        params.n_ctx, params.n_seq_max = sequences * length, sequences
        params.n_batch = params.n_ubatch = PASS
        params.n_threads = params.n_threads_batch = model.threads
        params.type_k = params.type_v = llama_cpp.CACHE_TYPES[model.cache]
        # Without it llama.cpp has no rounded values in its cache.
        params.flash_attn_type = llama_cpp.FLASH_ATTENTION_ON
        model.library.errors.clear()
        model.context = functions.llama_init_from_model(model.address, params)
        if model.context:
            model.shape = (sequences, length)
            return too_many
        if sequences == 1:
            raise cannot(model)
        too_many.append(sequences)
        sequences //= 2


def cannot(model: Model) -> UserError:
    return UserError(CUT_OFF.format(build=llama_cpp.BUILD, why=model.library.error()))


def decode(
    model: Model, ids: Sequence[int], positions: Sequence[int], rows: Sequence[int], wanted: Any
) -> np.ndarray:
    """Let the model read tokens, at most PASS of them.

    ids, positions, rows: of each token; rows are numbers of sequences. wanted: of each token,
    whether its scores are; they are returned, [wanted, vocabulary] float32, until the next call.
    """
    functions, count = model.library.functions, len(ids)
    token, pos, seq = (np.asarray(each, dtype=np.int32) for each in (ids, positions, rows))
    lengths, flags = np.ones(count, np.int32), np.asarray(wanted, dtype=np.int8)
    addresses = seq.ctypes.data + seq.itemsize * np.arange(count, dtype=np.uint64)
    batch = llama_cpp.Batch(
        n_tokens=count,
        token=token.ctypes.data_as(POINTER(c_int32)),
        pos=pos.ctypes.data_as(POINTER(c_int32)),
        n_seq_id=lengths.ctypes.data_as(POINTER(c_int32)),
        seq_id=addresses.ctypes.data,
        logits=flags.ctypes.data_as(POINTER(c_int8)),
    )
    model.library.errors.clear()
    if code := functions.llama_decode(model.context, batch):
        why = model.library.error() if code < 0 else "its cache has no room"
        raise UserError(CUT_OFF.format(build=llama_cpp.BUILD, why=why))
    outputs = int(flags.sum())
    if not outputs:
        return np.empty((0, model.vocabulary), np.float32)
    scores = functions.llama_get_logits(model.context)
    return np.ctypeslib.as_array(scores, shape=(outputs, model.vocabulary))


def share(model: Model, ids: Sequence[int]) -> None:
    """Read tokens with which all sequences begin once, for all of them."""
    for start in range(0, len(ids), PASS):
        part = ids[start : start + PASS]
        decode(model, part, range(start, start + len(part)), [0] * len(part), [False] * len(part))
    functions = model.library.functions
    memory = functions.llama_get_memory(model.context)
    for number in range(1, model.shape[0]) if ids else ():
        functions.llama_memory_seq_cp(memory, 0, number, -1, -1)


def forget(model: Model, number: int, kept: int) -> None:
    """Drop all of a sequence but its first `kept` tokens."""
    functions = model.library.functions
    memory = functions.llama_get_memory(model.context)
    if not functions.llama_memory_seq_rm(memory, number, kept, -1):
        raise UserError(CUT_OFF.format(build=llama_cpp.BUILD, why="it cannot drop tokens"))


def step(model: Model, rows: dict[int, Row]) -> None:
    """Read what rows have not shown, in passes, and write the next token of each."""
    tokens = [
        (token, row.position + place, number, place == len(row.ids) - 1)
        for number, row in rows.items()
        for place, token in enumerate(row.ids)
    ]
    for start in range(0, len(tokens), PASS):
        ids, positions, numbers, last = zip(*tokens[start : start + PASS], strict=True)
        scores = decode(model, ids, positions, numbers, last)
        ended = [number for number, ends in zip(numbers, last, strict=True) if ends]
        for number, found in zip(ended, scores, strict=True):
            row = rows[number]
            best = int(found.argmax())
            if not np.isfinite(found[best]):
                raise NotFinite(row.place)
            row.written.append(best)
            row.position += len(row.ids)
            row.ids = [best]


def write(model: Model, task: dict[str, Any], tell: Callable[..., Any]) -> dict[str, Any]:
    """Write the answers of `prompts`, greedily. tell: is told of each step, and answers."""
    ends, skipped = set(task["end_ids"]), task["shared"]
    waiting = deque(enumerate(task["prompts"]))
    answers: list[list[int]] = [[] for _ in waiting]
    seconds = [0.0] * len(answers)
    started = time.perf_counter()
    sequences = min(task["batch_size"], max(1, len(answers)))
    too_large = make_context(model, sequences, task["longest"])
    if answers:
        share(model, task["prompts"][0][:skipped])
    rows: dict[int, Row] = {}
    pace = Pace(prefill_seconds=time.perf_counter() - started)
    while waiting or rows:
        for number in range(model.shape[0]):
            if waiting and number not in rows:
                place, ids = waiting.popleft()
                rows[number] = Row(place, ids[skipped:], skipped, time.perf_counter())
        next_tokens(model, rows, pace)
        stopped = ()
        if task["asks"]:
            new = {row.place: row.written[-1] for row in rows.values()}
            stopped = tell(step=new)["ended"]
        for number, row in list(rows.items()):
            if (
                row.written[-1] in ends
                or len(row.written) == task["max_new_tokens"]
                or row.place in stopped
            ):
                del rows[number]
                forget(model, number, skipped)
                answers[row.place] = row.written
                seconds[row.place] = time.perf_counter() - row.started
                tell(done=1)
    return {"tokens": answers, "seconds": seconds, "pace": asdict(pace), "too_large": too_large}


def next_tokens(model: Model, rows: dict[int, Row], pace: Pace) -> None:
    """Write the next token of every row: those whose prompt is not read yet by themselves."""
    new = {number: row for number, row in rows.items() if not row.written}
    going = {number: row for number, row in rows.items() if row.written}
    started = time.perf_counter()
    if new:
        step(model, new)
    read = time.perf_counter()
    if going:
        step(model, going)
    pace.prefill_seconds += read - started
    pace.decode_seconds += time.perf_counter() - read
    pace.decode_tokens += len(going)


def score(model: Model, task: dict[str, Any], tell: Callable[..., Any]) -> dict[str, Any]:
    """For each of `prompts` −log p of its answer, in nats."""
    skipped, nats, seconds = task["shared"], [], []
    too_large = make_context(model, 1, task["longest"])
    if task["prompts"]:
        share(model, task["prompts"][0][:skipped])
    for ids, answer in zip(task["prompts"], task["answers"], strict=True):
        started = time.perf_counter()
        nats.append(answer_nll(model, ids, answer, skipped))
        forget(model, 0, skipped)
        seconds.append(time.perf_counter() - started)
        tell(done=1)
    return {"nats": nats, "seconds": seconds, "too_large": too_large}


def answer_nll(model: Model, ids: list[int], answer: list[int], skipped: int) -> float:
    """−log p(answer | ids) in nats, in double precision from llama.cpp's float32 scores."""
    read = [*ids, *answer][:-1]  # nothing follows the last token
    first, total = len(ids) - 1, 0.0
    for start in range(skipped, len(read), SCORED):
        places = range(start, min(start + SCORED, len(read)))
        wanted = [place >= first for place in places]
        scores = decode(model, [read[p] for p in places], places, [0] * len(wanted), wanted)
        chosen = answer[max(0, start - first) :][: len(scores)]
        for row, token in zip(scores, chosen, strict=True):
            total += negative_log(row, token)
    return total


def negative_log(scores: np.ndarray, token: int) -> float:
    """−log softmax(scores)[token]. scores: [vocabulary] float32."""
    exact = scores.astype(np.float64)
    largest = exact.max()
    return float(largest + np.log(np.exp(exact - largest).sum()) - exact[token])


@contextmanager
def measured(result: dict[str, Any]) -> Iterator[None]:
    """Add to `result` what the block took."""
    waited, wall, cpu = waited_seconds(), time.perf_counter(), time.process_time()
    yield
    result["wall_seconds"] = time.perf_counter() - wall
    result["cpu_seconds"] = time.process_time() - cpu
    after = waited_seconds()
    known = waited is not None and after is not None
    result["waited_seconds"] = max(0.0, (after or 0.0) - (waited or 0.0)) if known else None
    result["peak_process_bytes"] = peak_process_bytes()


def serve() -> None:
    """Do what lines on stdin ask, until there are none."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer

    def tell(**told: Any) -> Any:
        print(json.dumps(told), file=answers, flush=True)
        return json.loads(sys.stdin.readline()) if "step" in told else None

    model: Model | None = None
    while line := sys.stdin.readline():
        task = json.loads(line)
        result: dict[str, Any] = {}
        try:
            with measured(result):
                if model is None:
                    model = load(Path(task["model"]), task["threads"], task["cache"])
                    result |= described(model)
                else:
                    result |= {"write": write, "score": score}[task["do"]](model, task, tell)
        except UserError as error:
            result = {"error": str(error)}
        except NotFinite as error:
            result = {"not_finite": error.args[0]}
        tell(result=result)


def described(model: Model) -> dict[str, Any]:
    return {
        "system": model.library.system,
        "vocabulary": model.vocabulary,
        "weight_bytes": int(model.library.functions.llama_model_size(model.address)),
        "versions": {"llama.cpp": llama_cpp.BUILD, llama_cpp.PACKAGE: llama_cpp.PACKAGE_VERSION},
    }


if __name__ == "__main__":
    run(serve)
