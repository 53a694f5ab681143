"""This package's own decoder, for benchmarks/engines.py."""

from importlib.metadata import version
from typing import Any

import torch
from protocol import Prompts, Worker, serve

import radquant
from radquant.checkpoints.loading import load
from radquant.generation import lean_likelihood, lean_steps, lean_writing
from radquant.generation.lean_decoder import LeanDecoder, take_over
from radquant.generation.lean_rows import Read
from radquant.prompts import Prompt
from radquant.settings.precision import Activations, LMHead

BATCH = 8  # references that are scored together


def load_model(request: dict[str, Any]) -> LeanDecoder:
    torch.set_num_threads(request["threads"])
    bits, head = request.get("activations"), request.get("head")
    lm_head = None if head is None else LMHead(bits=head, group_size=64)
    loaded = load(request["model"], "cpu", torch.bfloat16, lm_head=lm_head)
    return take_over(loaded, None if bits is None else Activations(bits=bits))


def make_room(lean: LeanDecoder, prompts: Prompts, new: int) -> None:
    lean_steps.begin(lean, [], max(map(len, prompts)) + new)


@torch.inference_mode()
def write(lean: LeanDecoder, prompts: Prompts, new: int) -> Prompts:
    made = [Prompt(str(n), "", ids, 0, "", []) for n, ids in enumerate(prompts)]
    rows = {number: lean_writing.Row(number, 0.0) for number in range(len(prompts))}
    reads = {number: Read(ids) for number, ids in enumerate(prompts)}
    for _ in range(new):
        hidden = lean_writing.last_of(lean, reads)
        lean_writing.append(lean, hidden, list(rows.values()), made)
        reads = {number: Read(row.written[-1:]) for number, row in rows.items()}
    for number in rows:
        lean.decoder.release(number)
    return [row.written for row in rows.values()]


def score(lean: LeanDecoder, prompts: Prompts, answers: Prompts) -> list[float]:
    asked = list(zip(prompts, answers, strict=True))
    lean_steps.begin(lean, [], max(len(ids) + len(answer) for ids, answer in asked))
    made = [Prompt(str(n), "", ids, 0, "", answer) for n, (ids, answer) in enumerate(asked)]
    return lean_likelihood.answer_nll(lean, made, BATCH)[0]


def versions() -> dict[str, str]:
    return {"radquant": radquant.__version__, "torch": version("torch")}


if __name__ == "__main__":
    serve(Worker(load_model, write, score, versions, make_room))
