"""Prompts that this package's own decoder reads once: to write, and to score their references.

What a prompt's tokens leave in the cache does not depend, to the bit, on what is read behind them.
So a prompt and its reference are read in one step, and then the row goes on to write from where the
prompt ends.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate

from torch import Tensor

from radquant.generation.lean_likelihood import nats_of, reads_of
from radquant.generation.lean_rows import LeanDecoder
from radquant.prompts import Prompt
from radquant.vision.features import Features


@dataclass
class References:
    """What is found of the references, and what it takes."""

    nats: dict[int, float] = field(default_factory=dict)  # by the prompt's place
    # A step's time is divided among prompts and references by their tokens.
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0


def read_with_references(
    lean: LeanDecoder,
    prompts: Mapping[int, Prompt],
    features: Features | None,
    spare: int,
    found: References,
) -> tuple[Tensor, list[float]]:
    """Hidden states behind the prompts, [rows, hidden], and −log p of the references.

    prompts: of empty rows, by their number. They hold their prompts afterwards. spare: from this
    number on, all rows are empty. found: gets what the references took.
    """
    apart = {number + spare: prompt for number, prompt in prompts.items()}
    reads, wanted = reads_of(lean, apart, features)
    started = time.perf_counter(), time.process_time()
    try:
        hidden = lean.run(reads, wanted)
        read = time.perf_counter(), time.process_time()
        for number, prompt in prompts.items():
            own = len(reads[number + spare].ids) - len(prompt.answer_ids[:-1])
            lean.decoder.begin_as(number, number + spare, own)
            lean.decoder.release(number + spare)  # at once: of the last page there are two
    finally:
        for number in apart:
            lean.decoder.release(number)
    begun = time.perf_counter(), time.process_time()
    nats = nats_of(lean, hidden, list(prompts.values()))
    scored = time.perf_counter(), time.process_time()
    answers = [len(prompt.answer_ids) for prompt in prompts.values()]
    share = sum(count - 1 for count in answers) / sum(len(each.ids) for each in reads.values())
    wall, cpu = (
        share * (middle - first) + last - then
        for first, middle, then, last in zip(started, read, begun, scored, strict=True)
    )
    found.wall_seconds += wall
    found.cpu_seconds += cpu
    behind = [end - count for end, count in zip(accumulate(answers), answers, strict=True)]
    return hidden[behind], nats
