"""The stage that lets a model write the reports of one shard, and measures what that costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from radquant import prompts
from radquant.generation import batching
from radquant.generation.engines.kind import Opened, Wanted
from radquant.generation.opening import open_precision
from radquant.generation.outputs import outputs_table
from radquant.generation.prefix import behind_stored, may_share
from radquant.generation.records import common_record, writing_record
from radquant.generation.stage import Reading
from radquant.generation.tasks import Task, batches_of
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
    made = prompts_of(opened, reading, writing.max_new_tokens)
    task = task_of(opened, made, writing)
    done = engine.write(opened, task)
    order = {row["id"]: place for place, row in enumerate(reading.reports)}
    record = {
        **common_record(writing.precision, len(reading.examples), opened, task, done),
        **writing_record(task, done),
        "shard": writing.shard,
        "shards": writing.shards,
    }
    return outputs_table(task.prompts, done.work.results, order), record


def prompts_of(opened: Opened, reading: Reading, answer: int | None = None) -> list[Prompt]:
    """The prompts of all reports, behind the checkpoint's stored prefix, and no longer than fits.

    answer: tokens to leave for each answer; None: each prompt takes its reference along.
    """
    limit = opened.context
    if limit is not None:
        limit -= (answer or 0) + len(opened.stored)
    made = [
        prompts.chat_prompt(
            *(opened.tokenizer, reading.template, row, reading.examples, reading.target, limit),
            with_answer=answer is None,
            images=images,
            processor=opened.processor,
        )
        for row, images in zip(reading.reports, reading.images, strict=True)
    ]
    return behind_stored(made, opened.stored)


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
        stop=writing.stop,
    )
