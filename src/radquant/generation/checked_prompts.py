"""What the evaluation begins with, tried before any weights are quantized: engine and prompts."""

from collections.abc import Mapping
from typing import Any

from radquant.generation.engines.kind import Wanted
from radquant.generation.opening import open_precision
from radquant.generation.prompting import prompts_of
from radquant.generation.stage import Reading
from radquant.generation.tasks import Task
from radquant.prompts import Prompt
from radquant.verification.same_model import require_same


def check_prompts(
    engine_name: str, wanted: Wanted, reading: Reading, compared: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The record of the engine that scores the references, and of the prompts that it can be given.

    compared: what `verification.same_model.check_model` recorded; None if nothing is quantized.
    Raises UserError if the engine computes with another model, or if a prompt cannot be made.
    """
    engine, opened = open_precision(engine_name, wanted, scores=True)
    record: dict[str, Any] = {"engine": opened.engine, "dtype": opened.dtype}
    if compared is not None:
        sequences = compared["sequences"]
        known = [Prompt(str(n), "", ids[:1], 0, "", ids[1:]) for n, ids in enumerate(sequences)]
        longest = max(map(len, sequences))
        task = Task(label="", batches=[known], shared=[], longest=longest, batch_size=len(known))
        computed = engine.score(opened, task).work.results
        who = f"engine {opened.engine}"
        record |= require_same(wanted.model, who, computed, compared["nats"], opened.dtype)
    made = prompts_of(opened, reading)
    longest = max(len(prompt.ids) + len(prompt.answer_ids) for prompt in made)
    return {**record, "prompts": len(made), "longest_prompt": longest}
