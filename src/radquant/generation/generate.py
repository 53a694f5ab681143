"""The stage that lets a model write the reports of one shard, and measures what that costs.

The same model is loaded, and as a rule has read the same prompts, to score the references. So both
can be done in one go.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from radquant.generation import batching
from radquant.generation.engines.kind import Opened, Wanted
from radquant.generation.likelihood import check_answers, scored, scoring_task
from radquant.generation.opening import open_precision
from radquant.generation.outputs import outputs_table
from radquant.generation.prefix import may_share
from radquant.generation.prompting import prompts_of
from radquant.generation.stage import Reading
from radquant.generation.stage_records import common_record, writing_record
from radquant.generation.tasks import Done, Task, Work, batches_of, check_ends
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
    return written(reading, opened, task, engine.write(opened, task), writing)


def generate_and_score(
    engine_name: str, wanted: Wanted, reading: Reading, writing: Writing
) -> tuple[tuple[pd.DataFrame, dict[str, Any]], tuple[pd.DataFrame, dict[str, Any]]]:
    """What `generate` returns, and what `likelihood.likelihood` does of a shard of the references.

    An engine scores what it writes if it can. Else the shard's references are those that stand in
    every `shards`-th batch of the likelihood stage, so that no batch is another.
    """
    engine, opened = open_precision(engine_name, wanted, scores=True)
    check_ends(writing.max_new_tokens, opened.end_ids)
    asked = prompts_of(opened, reading)
    check_answers(asked, reading.source, reading.target)
    made = without_answers(opened, reading, asked, writing.max_new_tokens)
    task = task_of(opened, made, writing)
    if all(one.ids == other.ids for one, other in zip(made, asked, strict=True)):
        answers = {prompt.id: prompt.answer_ids for prompt in asked}
        batches = [[replace(p, answer_ids=answers[p.id]) for p in each] for each in task.batches]
        task = replace(task, batches=batches, scores=True)
    task = with_features(opened, task)
    done = engine.write(opened, task)
    if done.work.scored is not None:
        done, found = apart(done)
        scoring, counted = task, ["loading", "prompts"]
    else:
        wanted_batches = (writing.batch_size, writing.shard, writing.shards)
        scoring = scoring_task(opened, asked, writing.precision, *wanted_batches)
        scoring, counted = with_features(opened, scoring), ["loading"]
        found = engine.score(opened, scoring)
    found = replace(found, computed=replace(found.computed, load_seconds=0.0))
    return (
        written(reading, opened, task, done, writing),
        scored(writing.precision, reading, opened, scoring, found, counted),
    )


def without_answers(
    opened: Opened, reading: Reading, asked: Sequence[Prompt], max_new_tokens: int
) -> list[Prompt]:
    """The prompts to be written, made of those to be scored unless one of them is to be cut."""
    room = opened.context
    if room is not None:
        room -= max_new_tokens + len(opened.stored)
    if any(p.truncated or (room is not None and p.length > room) for p in asked):
        return prompts_of(opened, reading, max_new_tokens)
    return [replace(prompt, answer_ids=[]) for prompt in asked]


def apart(done: Done) -> tuple[Done, Done]:
    """What writing took, and what scoring took on the way."""
    work, on_the_way = done.work, done.work.scored
    assert on_the_way is not None
    wall, cpu = on_the_way.wall_seconds, on_the_way.cpu_seconds
    scoring = replace(
        done,
        work=Work(on_the_way.nats, [], work.too_large, work.shared_tokens),
        wall_seconds=wall,
        cpu_seconds=cpu,
    )
    rest = replace(done, wall_seconds=done.wall_seconds - wall, cpu_seconds=done.cpu_seconds - cpu)
    return rest, scoring


def written(
    reading: Reading, opened: Opened, task: Task, done: Done, writing: Writing
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """What `generate` returns."""
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
