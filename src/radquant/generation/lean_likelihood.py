"""Likelihood of the reference answers by this package's own decoder, on a CPU."""

import time
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from radquant.cli import progress
from radquant.generation.lean_rows import LeanDecoder, Read, int64
from radquant.generation.lean_steps import begin, halved, read_of, stored_tokens
from radquant.generation.tasks import Task, Work
from radquant.prompts import Prompt
from radquant.runtime.runtime_file import StoredPrefix
from radquant.vision.features import Features


def score(lean: LeanDecoder, task: Task, stored: StoredPrefix | None) -> Work:
    """The nats of every answer of a task."""
    shared = begin(lean, task.shared, task.longest, stored)
    found: list[float] = []
    seconds: list[float] = []
    sizes = [task.batch_size]
    for batch in progress(task.batches, task.label, len(task.batches), "batches"):
        started = time.perf_counter()
        nats, tried = answer_nll(lean, batch, sizes[-1], task.features)
        found += nats
        sizes += tried[1:]
        seconds.append(time.perf_counter() - started)
    return Work(found, seconds, sizes[:-1], shared - stored_tokens(stored))


@torch.inference_mode()
def answer_nll(
    lean: LeanDecoder, prompts: Sequence[Prompt], batch_size: int, features: Features | None = None
) -> tuple[list[float], list[int]]:
    """For each prompt −log p(answer | prompt), and the batch sizes.

    The first is as `transformers_likelihood.answer_nll` has it. batch_size: the most rows at once;
    halved when memory runs out. All sizes that were in use are returned.
    """
    lean.reach(max((len(p.ids) + len(p.answer_ids) for p in prompts), default=0))
    found: list[float] = []
    sizes = [batch_size]
    while len(found) < len(prompts):
        batch = prompts[len(found) : len(found) + sizes[-1]]
        try:
            found += batch_nll(lean, batch, features)
        except (RuntimeError, MemoryError) as error:
            sizes.append(halved(sizes[-1], error))
        finally:
            for number in range(len(batch)):
                lean.decoder.release(number)
    return found, sizes


def batch_nll(
    lean: LeanDecoder, prompts: Sequence[Prompt], features: Features | None
) -> list[float]:
    rows, wanted = reads_of(lean, dict(enumerate(prompts)), features)
    return nats_of(lean, lean.run(rows, wanted), prompts)


def reads_of(
    lean: LeanDecoder, prompts: Mapping[int, Prompt], features: Features | None
) -> tuple[dict[int, Read], list[int]]:
    """What rows read of prompts and their answers, and behind which of these tokens scores are."""
    rows: dict[int, Read] = {}
    wanted: list[int] = []
    read = 0
    for number, prompt in prompts.items():
        # Nothing follows the last token. It is read only where one scale is taken of the whole
        # text.
        last = 1 if lean.whole and prompt.answer_ids else 0
        answer = prompt.answer_ids if last else prompt.answer_ids[:-1]
        rows[number] = read_of(lean, prompt, features, answer)
        read += len(rows[number].ids)
        wanted += range(read - last - len(prompt.answer_ids), read - last)
    return rows, wanted


def nats_of(lean: LeanDecoder, hidden: Tensor, prompts: Sequence[Prompt]) -> list[float]:
    """−log p of each answer. hidden: behind what stands before each token of the answers."""
    found, begin = [], 0
    for prompt in prompts:
        end = begin + len(prompt.answer_ids)
        scores = lean.decoder.logits(hidden[begin:end]).log_softmax(-1)
        chosen = scores.gather(-1, int64(prompt.answer_ids)[:, None])
        found.append(-float(chosen.double().sum()))
        begin = end
    return found
