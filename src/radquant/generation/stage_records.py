"""The records that stages leave beside their tables: what both say, and what writing adds."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from radquant.code import processor
from radquant.generation import measures
from radquant.generation.engines.kind import Opened
from radquant.generation.stage import Reading, with_same_input
from radquant.generation.tasks import Done, Output, Pace, Task
from radquant.settings.precision import as_values


def common_record(
    precision: str, reading: Reading, opened: Opened, task: Task, done: Done
) -> dict[str, Any]:
    """What writing and scoring say alike: of the precision, the machine, the prompts, the cost."""
    wanted, prompts, same = opened.wanted, task.prompts, with_same_input(reading)
    computed = asdict(done.computed)
    del computed["weight_bytes"]  # which only writing tells
    return {
        **computed,
        **processor(),
        "threads": wanted.threads,
        "precision": precision,
        "engine": opened.engine,
        "activations": as_values(wanted.activations),
        "kv_cache": as_values(wanted.kv_cache),
        "lm_head": as_values(wanted.lm_head),
        "stored_prefix_tokens": len(opened.stored),
        "shared_prefix_tokens": done.work.shared_tokens,
        "batch_size": task.batch_size,
        "too_large_batches": done.work.too_large,
        "examples": len(reading.examples[0]),
        "examples_by": reading.examples_by,
        "same_input_reports": sum(prompt.id in same for prompt in prompts),
        "date": wanted.date,
        "reports": len(prompts),
        "images": sum(len(prompt.images) for prompt in prompts),
        "prompt_tokens": sum(prompt.length for prompt in prompts),
        "truncated_prompts": sum(prompt.truncated > 0 for prompt in prompts),
        "wall_seconds": done.wall_seconds,
        "cpu_seconds": done.cpu_seconds,
    }


def writing_record(task: Task, done: Done) -> dict[str, Any]:
    """What writing adds; tokens per second are None when nothing was written."""
    outputs: Sequence[Output] = done.work.results
    tokens = sum(output.tokens for output in outputs)
    pace = done.work.pace
    return {
        "weight_bytes": done.computed.weight_bytes,
        "batches": done.batches,
        "max_new_tokens": task.max_new_tokens,
        "output_tokens": tokens,
        "tokens_per_second": tokens / done.wall_seconds if tokens else None,
        "latency_seconds": measures.latency_summary(done.work.seconds),
        **(dict.fromkeys(asdict(Pace())) if pace is None else asdict(pace)),
    }
