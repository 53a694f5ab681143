"""The stage that computes the teacher-forced negative log-likelihood of every reference."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from radquant.errors import UserError
from radquant.generation import batching
from radquant.generation.engines.kind import Opened, Wanted
from radquant.generation.opening import open_precision
from radquant.generation.prefix import may_share
from radquant.generation.prompting import prompts_of
from radquant.generation.stage import Reading
from radquant.generation.stage_records import common_record
from radquant.generation.tasks import Done, Task, batches_of
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
    task = with_features(opened, scoring_task(opened, made, precision, batch_size))
    return scored(precision, reading, opened, task, engine.score(opened, task))


def scoring_task(
    opened: Opened,
    made: Sequence[Prompt],
    precision: str,
    batch_size: int,
    shard: int = 1,
    shards: int = 1,
) -> Task:
    """What one shard is to score; batches and shared tokens are those of all shards together."""
    plan = batching.plan_batches(made, batch_size)
    return Task(
        label=f"likelihood {precision}",
        batches=batches_of(made, batching.batches_of_shard(plan, shard, shards)),
        shared=batching.shared_prefix(made) if may_share(opened.wanted.activations) else [],
        longest=max(len(prompt.ids) + len(prompt.answer_ids) for prompt in made),
        batch_size=batch_size,
    )


def scored(
    precision: str,
    reading: Reading,
    opened: Opened,
    task: Task,
    done: Done,
    with_writing: Sequence[str] = (),
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """What `likelihood` returns, of the task's prompts.

    with_writing: what the record does not count, as the job that wrote does.
    """
    nats = dict(zip((p.id for p in task.prompts), done.work.results, strict=True))
    tokens = {prompt.id: len(prompt.answer_ids) for prompt in task.prompts}
    ids = [name for row in reading.reports if (name := str(row["id"])) in nats]
    table = pd.DataFrame(
        {"id": ids, "nll": [nats[name] for name in ids], "tokens": [tokens[name] for name in ids]}
    ).astype({"id": "str", "nll": "float64", "tokens": "int64"})  # a shard may be empty
    check_finite(table)
    record = common_record(precision, reading, opened, task, done)
    more = {"tokens": int(table["tokens"].sum()), "counted_with_writing": list(with_writing)}
    return table, {**record, **more}


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
