"""The stage that lets a model write the reports of one shard, and measures what that costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from radquant.generation import batching
from radquant.generation.engines.kind import Opened, Wanted
from radquant.generation.opening import open_precision
from radquant.generation.outputs import outputs_table
from radquant.generation.prefix import may_share
from radquant.generation.prompting import prompts_of
from radquant.generation.stage import Reading
from radquant.generation.stage_records import common_record, writing_record
from radquant.generation.tasks import Task, batches_of, check_ends
from radquant.generation.vision import with_features
from radquant.prompts import Prompt


@dataclass(frozen=True)
class Writing:
    """Which of the reports are written, and how far."""

    precision: str  # name to record
    batch_size: int
    max_new_tokens: int
    stop: tuple[str, ...] = ()  # strings that end an output
    shard: int = 1  # of `shards`, from 1
    shards: int = 1


def generate(
    engine_name: str, wanted: Wanted, reading: Reading, writing: Writing
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The outputs of a shard (`outputs.OUTPUT_COLUMNS`), and its record."""
    engine, opened = open_precision(engine_name, wanted)
    check_ends(writing.max_new_tokens, opened.end_ids)
    made = prompts_of(opened, reading, writing.max_new_tokens)
    task = with_features(opened, task_of(opened, made, writing))
    done = engine.write(opened, task)
    order = {row["id"]: place for place, row in enumerate(reading.reports)}
    record = {
        **common_record(writing.precision, reading, opened, task, done),
        **writing_record(task, done),
        "shard": writing.shard,
        "shards": writing.shards,
    }
    return outputs_table(task.prompts, done.work.results, order), record


def task_of(opened: Opened, made: Sequence[Prompt], writing: Writing) -> Task:
    """What one shard is to write; batches and shared tokens are those of all shards together."""
    plan = batching.plan_batches(made, writing.batch_size)
    mine = batching.batches_of_shard(plan, writing.shard, writing.shards)
    return Task(
        label=f"generate {writing.precision}",
        batches=batches_of(made, mine),
        shared=batching.shared_prefix(made) if may_share(opened.wanted.activations) else [],
        longest=max(len(prompt.ids) for prompt in made) + writing.max_new_tokens,
        batch_size=writing.batch_size,
        max_new_tokens=writing.max_new_tokens,
        end_ids=opened.end_ids,
        stop=(*writing.stop, *opened.stop),
    )
