"""Timing precisions against each other: the same prompts and as many tokens for all, in turn.

What generation takes is no measure of speed: precisions write outputs of different lengths, in jobs
of their own, hours apart. Here one process times all of them. In a round each is timed once, soon
after the other, so that a machine that grows slower does so for all. Each round begins with another
precision, so that none is always the first.
"""

import gc
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch

from radquant import memory_plan
from radquant.cli import progress
from radquant.code import processor
from radquant.errors import UserError
from radquant.generation.engines.kind import Engine, Opened, Wanted
from radquant.generation.generate import Writing, task_of
from radquant.generation.opening import open_precision
from radquant.generation.process_costs import waited_seconds
from radquant.generation.prompting import prompts_of
from radquant.generation.stage import Reading
from radquant.generation.tasks import Done, Task
from radquant.generation.vision import with_features
from radquant.kernels.cpu import BITS
from radquant.model_files import weight_files
from radquant.settings import engines
from radquant.settings.precision import INT, as_values
from radquant.settings.speed import Speed

# Models are held in memory together up to this size of their files. Larger ones are loaded anew for
# each timing.
HELD_BYTES = 2_000_000_000
SIMULATED = "simulated"
ON_DISK = "its weights do not fit into memory and are read from the disk"
OTHER_LENGTH = "its engine writes another number of tokens than it is asked for"
FIRST_TOKENS = 2

T = TypeVar("T")


@dataclass
class Ready:
    """A precision that is open, and what it is timed with."""

    engine: Engine
    opened: Opened
    task: Task
    done: Done  # of the first tokens that it wrote
    why_not: str | None  # it is not timed


def measure(
    engine_name: str,
    wanted: Mapping[str, Wanted],
    reading: Reading,
    speed: Speed,
    batch_size: int,
) -> dict[str, Any]:
    """The record of all timings of the precisions in `wanted`.

    Loading is part of none. A precision that is simulated is not timed, nor is one whose weights
    lie on the disk in any round, and the record says so.
    """
    first = next(iter(wanted.values()))
    for precision in wanted.values():
        check_engine(precision.engine or engine_name)
    count = min(speed.prompts, len(reading.reports))
    reading = reading.first(count)
    reasons: dict[str, str | None] = {
        name: SIMULATED if surely_simulated(each) else None for name, each in wanted.items()
    }
    names = [name for name in wanted if reasons[name] is None]
    size = sum(file_bytes(wanted[name]) for name in names)
    free = memory_plan.free_bytes(mapped=True)
    keep = size <= HELD_BYTES and memory_plan.weights_fit(size, free)
    held: dict[str, Ready] = {}
    known: dict[str, dict[str, Any]] = {}
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in wanted}

    def time_one(name: str, number: int, passes: int) -> None:
        if reasons[name] is not None:
            return
        if name not in held:
            if not keep:
                held.clear()
                release()
            again = replace(wanted[name])  # the model of the last time stays with its own
            held[name] = get_ready(engine_name, again, reading, speed.tokens, batch_size)
        if name not in known:
            known[name] = {"precision": name, **described(held[name])}
            check_same_prompts(known)
        reasons[name] = held[name].why_not
        if reasons[name] is not None:
            del held[name]
            rounds[name].clear()  # in an earlier round there may have been more memory
        else:
            rounds[name].append({"round": number, **timed(held[name], passes)})

    def play(numbers: Sequence[int], passes: int) -> None:
        turns = [(number, name) for number in numbers for name in rotated(names, number - 1)]
        for number, name in progress(turns, "measure speed", len(turns), "timings"):
            time_one(name, number, passes)

    play([1], 1)
    fastest = min((each[0]["wall_seconds"] for each in rounds.values() if each), default=math.inf)
    passes = math.ceil(max(1.0, speed.seconds / fastest))
    if passes > 1:  # the first round was too short to be one
        for each in rounds.values():
            each.clear()
    play(range(1 if passes > 1 else 2, speed.repeats + 1), passes)
    return {
        "reports": count,
        "tokens": speed.tokens,
        "batch_size": min(batch_size, count),
        "examples": len(reading.examples[0]),
        "repeats": speed.repeats,
        "passes": passes,
        "threads": first.threads,
        **processor(),
        "precisions": {
            name: {**known.get(name, {}), "why_not": reasons[name], "rounds": rounds[name]}
            for name in wanted
        },
    }


def told(record: Mapping[str, Any]) -> str:
    """The tokens a second of each precision that was timed, in words; all rounds together."""
    paces = {}
    for name, each in record["precisions"].items():
        seconds = sum(one["wall_seconds"] for one in each["rounds"])
        tokens = sum(one["output_tokens"] for one in each["rounds"])
        paces[name] = f"{tokens / seconds:.1f} tokens/s" if seconds else "not timed"
    return ", ".join(f"{name} {pace}" for name, pace in paces.items())


def check_engine(name: str) -> None:
    """Raise UserError for an engine that would load the model in another process, each time."""
    if not engines.timed(name):
        raise UserError(
            f"engine {name} runs in an environment of its own, in which no speed is measured; use "
            "engine auto, or set speed.repeats to 0"
        )


def surely_simulated(wanted: Wanted) -> bool:
    """Whether something is to be rounded that no kernel here rounds to, or only as integers of more
    bits: the model need not be loaded."""
    rounding, cache = wanted.activations, wanted.kv_cache if wanted.engine is None else None
    kept = rounding is not None and rounding.keep_from is not None
    others = [each for each in (rounding, cache) if each is not None]
    return kept or any((each.type, each.bits) != (INT, BITS) for each in others)


def file_bytes(wanted: Wanted) -> int:
    return sum(path.stat().st_size for path in weight_files(wanted.model))


def release() -> None:
    """Give back the memory of models that nothing refers to."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def rotated(names: Sequence[T], turn: int) -> list[T]:
    """`names` in their order, but beginning `turn` places later."""
    start = turn % max(1, len(names))
    return [*names[start:], *names[:start]]


def get_ready(
    engine_name: str, wanted: Wanted, reading: Reading, tokens: int, batch_size: int
) -> Ready:
    """Open a precision, and let it write the first tokens of one report."""
    engine, opened = open_precision(engine_name, wanted)
    made = prompts_of(opened, reading, tokens)
    written = task_of(opened, made, Writing("", batch_size, tokens))
    # Nothing ends an answer but its length.
    task = with_features(opened, replace(written, label="", end_ids=None, stop=()))
    done = engine.write(opened, first_tokens(task))
    why_not = SIMULATED if done.computed.simulated else None
    if opened.on_disk:  # how fast that is, says nothing of the precision
        why_not = ON_DISK
    if why_not is None and not of_length(done, FIRST_TOKENS):
        why_not = OTHER_LENGTH
    return Ready(engine, opened, task, done, why_not)


def first_tokens(task: Task) -> Task:
    return replace(task, batches=[task.prompts[:1]], max_new_tokens=FIRST_TOKENS)


def of_length(done: Done, tokens: int) -> bool:
    return all(output.tokens == tokens for output in done.work.results)


def timed(ready: Ready, passes: int) -> dict[str, Any]:
    """What it takes to write the task `passes` times: seconds, and the tokens that they were for.

    waited_seconds: how long its threads could have run and had no core. prompt_seconds: until each
    report's first token; None, as decode_seconds, where the engine does not tell them apart.
    """
    task, wanted = ready.task, ready.opened.wanted
    before = waited_seconds()
    done = [ready.engine.write(ready.opened, task) for _ in range(passes)]
    after = waited_seconds()
    for each in done:
        if not of_length(each, task.max_new_tokens):
            raise UserError(
                f"engine {ready.opened.engine} did not write {task.max_new_tokens} tokens for each "
                "report; set speed.repeats to 0"
            )
    wall, cpu = sum(d.wall_seconds for d in done), sum(d.cpu_seconds for d in done)
    waited = None if before is None or after is None else max(0.0, after - before)
    elsewhere = [each.waited_seconds for each in done if each.waited_seconds is not None]
    waited = sum(elsewhere) if elsewhere else waited
    if wanted.threads == 1 and done[0].computed.device == "cpu":
        waited = max(waited or 0.0, wall - cpu)
    paces = [each.work.pace for each in done if each.work.pace is not None]
    apart = len(paces) == len(done)
    return {
        "wall_seconds": wall,
        "cpu_seconds": cpu,
        "waited_seconds": waited,
        "prompt_seconds": sum(pace.prefill_seconds for pace in paces) if apart else None,
        "decode_seconds": sum(pace.decode_seconds for pace in paces) if apart else None,
        "reports": passes * len(task.prompts),
        "prompt_tokens": passes * read_tokens(task, done[0]),
        "output_tokens": sum(output.tokens for each in done for output in each.work.results),
        "decode_tokens": sum(pace.decode_tokens for pace in paces) if apart else None,
        "too_large_batches": sorted({size for each in done for size in each.work.too_large}),
    }


def read_tokens(task: Task, done: Done) -> int:
    """The tokens of all prompts that were computed: those that all share were, once."""
    shared, prompts = done.work.shared_tokens, task.prompts
    return shared + sum(prompt.length - shared for prompt in prompts)


def described(ready: Ready) -> dict[str, Any]:
    computed, prompts = ready.done.computed, ready.task.prompts
    wanted = ready.opened.wanted
    return {
        "engine": ready.opened.engine,
        "kernel": computed.kernel,
        "layers_quantized": computed.layers_quantized,
        "activation_layers": computed.activation_layers,
        **{key: as_values(getattr(wanted, key)) for key in ("activations", "kv_cache", "lm_head")},
        "stored_prefix_tokens": len(ready.opened.stored),
        "device": computed.device,
        "device_name": computed.device_name,
        "dtype": computed.dtype,
        "versions": computed.versions,
        "load_seconds": ready.opened.load_seconds,
        "prompt_hashes": [prompt.hash for prompt in prompts],
        "prompt_lengths": [prompt.length for prompt in prompts],
    }


def check_same_prompts(known: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise UserError unless all precisions read the same tokens of the same prompts."""
    names = list(known)
    for name in names[1:]:
        for key in ("prompt_hashes", "prompt_lengths"):
            if known[name][key] != known[names[0]][key]:
                raise UserError(
                    f"precision {name} reads other prompts than {names[0]}, so their speeds do not "
                    "compare; give its checkpoint the original's tokenizer"
                )
