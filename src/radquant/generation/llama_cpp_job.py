"""Writing and scoring with llama.cpp, in its own environment: prompts go there as token ids.

The prompts, what ends an output, and how a text is made from tokens are the code that the other
engines use. `llama_cpp_decoding.py` decodes, in a process that holds the model for all tasks.
"""

import json
import os
import subprocess
import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import radquant
from radquant import prompts
from radquant.checkpoints.loading import load_tokenizer
from radquant.checkpoints.writing import verify
from radquant.cli import progress
from radquant.errors import UserError
from radquant.failures import how_it_ended, withheld_panics
from radquant.generation import llama_cpp_decoding, measures
from radquant.generation.engines.kind import Opened, Wanted
from radquant.generation.outputs import read_output
from radquant.generation.running import Row
from radquant.generation.tasks import Computed, Done, Pace, Task, Work, not_finite
from radquant.generation.vllm_job import model_config
from radquant.gguf.reading import FLOAT_TYPES, GGUFModel, read_model
from radquant.model_checks import check_model
from radquant.model_files import gguf_file, is_gguf, quantization_of, read_config
from radquant.tokenizer_files import read_chat_template

F16 = "f16"  # what llama.cpp keeps keys and values in where nothing else is asked for
INSTEAD = "use engine auto, which computes with the exact values of its weights"


@dataclass
class Held:
    """The process that holds the model, and what it said of it."""

    process: subprocess.Popen[str]
    said: dict[str, Any]
    kernel: str
    layers_quantized: int


def opened_there(wanted: Wanted) -> Opened:
    """The model in the hands of a new llama.cpp process.

    Raises UserError unless it is a GGUF file that llama.cpp can run as the original's.
    """
    check_model(wanted.model)
    verify(wanted.model)
    quantization = quantization_of(read_config(wanted.model), wanted.model)
    if quantization is None or not is_gguf(quantization):
        raise UserError(
            f"{wanted.model} holds no GGUF file, and engine llama.cpp runs no other; use engine "
            "auto, or a checkpoint of format gguf"
        )
    file = read_model(gguf_file(wanted.model, quantization))
    tokenizer = load_tokenizer(wanted.model, wanted.trust_remote_code)
    if wanted.chat_template:
        tokenizer.chat_template = read_chat_template(wanted.chat_template)
    config, stated = model_config(wanted.model, wanted.trust_remote_code)
    text = config.get_text_config()
    ends, stop = prompts.endings(tokenizer, stated, text.vocab_size, wanted.date)
    held = start(wanted, file)
    return Opened(
        wanted=wanted,
        dtype="float32",
        tokenizer=tokenizer,
        processor=None,
        end_ids=ends,
        context=getattr(text, "max_position_embeddings", None),
        stored=(),
        vocabulary=held.said["vocabulary"],
        stop=stop,
        kernel=held.kernel,
        held=held,
    )


def start(wanted: Wanted, file: GGUFModel) -> Held:
    """A process that has loaded the file."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(wanted.threads),
        "PYTHONPATH": str(Path(radquant.__file__).parents[1]),
        "PYTHONSAFEPATH": "1",  # no module of the working directory is meant
    }
    process = subprocess.Popen(
        [str(wanted.python), "-m", llama_cpp_decoding.__name__],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    cache = F16 if wanted.kv_cache is None else wanted.kv_cache.type
    kernel, packed = kernel_of(file)
    held = Held(process, {}, kernel, packed)
    weakref.finalize(held, end, process)
    held.said = ask(held, {"model": str(file.path), "threads": wanted.threads, "cache": cache})
    return held


def end(process: subprocess.Popen[str]) -> None:
    """Let the process end: it does when it is asked nothing more."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
    process.wait()


def kernel_of(file: GGUFModel) -> tuple[str, int]:
    """Words for what multiplies by packed weights, and the number of packed linear layers."""
    types = Counter(
        tensor.type
        for tensor in file.tensors.values()
        if tensor.name.startswith(("blk.", "output."))
        and len(tensor.shape) == 2
        and tensor.type not in FLOAT_TYPES
    )
    if not types:
        return "none", 0
    return f"llama.cpp {', '.join(sorted(types))}", sum(types.values())


def ask(
    held: Held, task: Mapping[str, Any], told: Callable[[dict[str, Any]], Any] = lambda _: None
) -> dict[str, Any]:
    """Give the process a task; its result. told: is given what it says on the way, and answers.

    Raises UserError if it cannot do it, or ends.
    """
    process = held.process
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        print(json.dumps(task), file=process.stdin, flush=True)
        while line := process.stdout.readline():
            said = json.loads(line)
            if "result" in said:
                result: dict[str, Any] = said["result"]
                if "error" in result:
                    raise UserError(result["error"])
                return result
            answer = told(said)
            if answer is not None:
                print(json.dumps(answer), file=process.stdin, flush=True)
    except BrokenPipeError:
        pass  # it has ended, as below
    raise UserError(f"llama.cpp {how_it_ended(process.wait())}")


def write(opened: Opened, task: Task) -> Done:
    """Write the answers of a task as one queue: as many at once as its batches have rows."""
    if task.max_new_tokens < 1:
        raise UserError(f"max_new_tokens is {task.max_new_tokens}; it must be at least 1")
    ends = set(task.end_ids or ())
    steps = Steps(opened.tokenizer, task)
    result = ask(
        opened.held,
        {
            **asked(task),
            "do": "write",
            "max_new_tokens": task.max_new_tokens,
            "end_ids": sorted(ends),
            "asks": bool(task.stop),
        },
        steps.told,
    )
    if "not_finite" in result:
        raise not_finite(task.prompts[result["not_finite"]].id)
    outputs = [read_output(opened.tokenizer, ids, ends, task.stop) for ids in result["tokens"]]
    return done(opened, task, outputs, result)


def score(opened: Opened, task: Task) -> Done:
    """For each prompt −log p(answer | prompt), in nats."""
    answers = [prompt.answer_ids for prompt in task.prompts]
    result = ask(
        opened.held,
        {**asked(task), "do": "score", "answers": answers},
        Steps(opened.tokenizer, task).told,
    )
    return done(opened, task, result["nats"], result)


def asked(task: Task) -> dict[str, Any]:
    return {
        "prompts": [prompt.ids for prompt in task.prompts],
        "shared": len(task.shared),
        "longest": task.longest,
        "batch_size": task.batch_size,
    }


def write_row(opened: Opened, row: Row, go_on: Callable[[Row], bool]) -> None:
    """Write one answer whole, as `transformers_writing.write_row` does."""

    def told(said: dict[str, Any]) -> dict[str, Any] | None:
        if "step" not in said:
            return None
        row.written += map(int, said["step"].values())
        return {"ended": [] if go_on(row) else [0]}

    task = {"prompts": [row.ids], "shared": 0, "longest": len(row.ids) + row.count, "batch_size": 1}
    wanted = {"max_new_tokens": row.count, "end_ids": list(opened.end_ids), "asks": True}
    if "not_finite" in ask(opened.held, {"do": "write", **task, **wanted}, told):
        raise not_finite("request")


class Steps:
    """What is told on the way: how many are done, and which answers hold a text that ends them."""

    def __init__(self, tokenizer: Any, task: Task) -> None:
        count = len(task.prompts)
        self.tokenizer, self.stop = tokenizer, task.stop
        self.written: dict[int, list[int]] = {}
        self.progress = iter(progress(range(count + 1), task.label, count, "reports"))
        next(self.progress)

    def told(self, said: dict[str, Any]) -> dict[str, Any] | None:
        if "done" in said:
            next(self.progress)
            return None
        places = [int(place) for place in said["step"]]
        for place, token in zip(places, said["step"].values(), strict=True):
            self.written.setdefault(place, []).append(token)
        with withheld_panics():
            texts: Sequence[str] = self.tokenizer.batch_decode(
                [self.written[place] for place in places], skip_special_tokens=True
            )
        found = zip(places, texts, strict=True)
        return {
            "ended": [place for place, text in found if any(mark in text for mark in self.stop)]
        }


def done(opened: Opened, task: Task, results: list[Any], result: Mapping[str, Any]) -> Done:
    held: Held = opened.held
    pace = result.get("pace")
    return Done(
        work=Work(
            results=results,
            seconds=result["seconds"],
            too_large=result["too_large"],
            shared_tokens=len(task.shared),
            pace=None if pace is None else Pace(**pace),
        ),
        batches=len(task.batches),
        wall_seconds=result["wall_seconds"],
        cpu_seconds=result["cpu_seconds"],
        waited_seconds=result["waited_seconds"],
        computed=Computed(
            device="cpu",
            device_name=measures.cpu_name(),
            dtype=opened.dtype,
            versions=held.said["versions"],
            kernel=held.kernel,
            layers_quantized=held.layers_quantized,
            activation_layers=0,
            simulated=False,
            weight_bytes=held.said["weight_bytes"],
            load_seconds=opened.load_seconds,
            peak_process_bytes=result["peak_process_bytes"],
            peak_device_bytes=None,
        ),
    )
