"""An engine that writes one sentence and finds all words equally likely: one file and a line."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from radquant.errors import UserError
from radquant.generation.engines.kind import Address, Command, Opened, Wanted
from radquant.generation.running import Row, RunningBatch
from radquant.generation.tasks import Computed, Done, Output, Task, Work

SCORES = True
SAMPLES = False
TIMED = True
SENTENCE = "the lungs are clear ."


def check_configuration(config: Mapping[str, Any]) -> None:
    if config["compute"]["device"] == "cuda":
        raise UserError("compute.engine toy runs on CPUs; set compute.device to cpu")


def environment(device: str) -> str | None:
    return None


def why_not(wanted: Wanted) -> str | None:
    return "engine toy rounds no cache; use engine auto" if wanted.kv_cache else None


def load(wanted: Wanted) -> Opened:
    from radquant.checkpoints.loading import load_tokenizer

    tokenizer = load_tokenizer(wanted.model)
    return Opened(
        wanted=wanted,
        dtype="float32",
        tokenizer=tokenizer,
        processor=None,
        end_ids=(tokenizer.eos_token_id,),
        context=128,
        stored=(),
        kernel="none",
    )


def write(opened: Opened, task: Task) -> Done:
    output = Output(SENTENCE, len(SENTENCE.split()), "stop")
    return done(opened, task, [output for _ in task.prompts])


def score(opened: Opened, task: Task) -> Done:
    nats = math.log(len(opened.tokenizer))
    return done(opened, task, [nats * len(prompt.answer_ids) for prompt in task.prompts])


def done(opened: Opened, task: Task, results: list[Any]) -> Done:
    computed = Computed(
        device="cpu",
        device_name="a toy",
        dtype=opened.dtype,
        versions={"toy": "1"},
        kernel="none",
        layers_quantized=0,
        activation_layers=0,
        simulated=False,
        weight_bytes=0,
        load_seconds=opened.load_seconds,
        peak_process_bytes=1,
        peak_device_bytes=None,
    )
    work = Work(results, [0.5] * len(results), [], 0)
    return Done(work, len(task.batches), 0.5 * len(results), 0.1, computed)


def write_row(opened: Opened, row: Row, go_on: Callable[[Row], bool]) -> None:
    for token in (*opened.tokenizer(SENTENCE)["input_ids"], opened.end_ids[0]):
        row.written.append(token)
        if not go_on(row):
            return


def running(opened: Opened, cache: int) -> RunningBatch | None:
    return None


def server(wanted: Wanted, address: Address) -> Command | None:
    return None
