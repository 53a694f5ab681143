"""The stage that computes the teacher-forced negative log-likelihood of every reference."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from radquant.errors import UserError
from radquant.generation import batching
from radquant.generation.engines.kind import Wanted
from radquant.generation.opening import open_precision
from radquant.generation.prefix import may_share
from radquant.generation.prompting import prompts_of
from radquant.generation.stage import Reading
from radquant.generation.stage_records import common_record
from radquant.generation.tasks import Task, batches_of
from radquant.generation.vision import with_features
from radquant.prompts import Prompt


def likelihood(
    engine_name: str, wanted: Wanted, reading: Reading, precision: str, batch_size: int
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Of each report id, nll (nats) and tokens of its reference, in the file's order; the record.

    precision: name to record.
    """
    engine, opened = open_precision(engine_name, wanted, scores=True)
    made = prompts_of(opened, reading)
    check_answers(made, reading.source, reading.target)
    plan = batching.plan_batches(made, batch_size)
    task = Task(
        label=f"likelihood {precision}",
        batches=batches_of(made, plan),
        shared=batching.shared_prefix(made) if may_share(wanted.activations) else [],
        longest=max(len(prompt.ids) + len(prompt.answer_ids) for prompt in made),
        batch_size=batch_size,
    )
    task = with_features(opened, task)
    done = engine.score(opened, task)
    places = [place for batch in plan for place in batch]
    nll = dict(zip(places, done.work.results, strict=True))
    table = pd.DataFrame(
        {
            "id": [prompt.id for prompt in made],
            "nll": [nll[place] for place in range(len(made))],
            "tokens": [len(prompt.answer_ids) for prompt in made],
        }
    )
    check_finite(table)
    record = common_record(precision, reading, opened, task, done)
    return table, {**record, "tokens": int(table["tokens"].sum())}


def check_answers(prompts: Sequence[Prompt], path: object, target: str) -> None:
    """Raise UserError when a reference is empty: it would have no likelihood."""
    empty = [prompt.id for prompt in prompts if not prompt.answer_ids]
    if empty:
        raise UserError(
            f"{path}, column {target!r}: the reference of report {empty[0]} is empty; leave such "
            "reports out"
        )


def check_finite(table: pd.DataFrame) -> None:
    """Raise UserError when a likelihood (column nll) is not a number."""
    bad = table["id"][~np.isfinite(table["nll"])]
    if len(bad):
        raise UserError(
            f"the model's scores are not finite for {len(bad)} reports, first {bad.iloc[0]}; "
            "use compute.dtype bfloat16 or float32, or a checkpoint whose values are finite"
        )
