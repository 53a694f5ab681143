"""How a worker of benchmarks/engines.py is spoken to: lines of JSON on stdin, and on stdout.

A worker holds one model. It answers one request after the other, and ends when stdin does:

    {"do": "load", "model": PATH, "threads": 1, …}
    {"do": "write", "prompts": [[…]], "new": 32}: answers of exactly so many tokens, greedily
    {"do": "score", "prompts": [[…]], "answers": [[…]]}: −log p of each answer, in nats

Prompts are token ids. Every answer says what the request took. A worker that cannot go on ends
with a sentence as the last line on stderr. Only the standard library is imported here.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Prompts = list[list[int]]


class CannotScore(Exception):
    """The engine tells no probabilities of given tokens. args: why, in a sentence."""


@dataclass(frozen=True)
class Worker:
    """What one toolkit does. The first argument of all but `load` is what that returned."""

    load: Callable[[dict[str, Any]], Any]
    write: Callable[[Any, Prompts, int], Prompts]
    score: Callable[[Any, Prompts, Prompts], list[float]]
    versions: Callable[[], dict[str, str]]
    # What is no part of an answer's cost: room for so many prompts and new tokens.
    make_room: Callable[[Any, Prompts, int], object] = lambda model, prompts, new: None


def peak_bytes() -> int:
    """The largest resident size of this process so far (VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmHWM")


def answer(worker: Worker, model: Any, request: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Do what one line asks: the model, and what is answered."""
    prompts, said = request.get("prompts"), {}
    if request["do"] == "write":
        worker.make_room(model, prompts, request["new"])
    wall, cpu = time.perf_counter(), time.process_time()
    if request["do"] == "load":
        model, said = worker.load(request), {"versions": worker.versions()}
    elif request["do"] == "write":
        written = worker.write(model, prompts, request["new"])
    else:
        try:
            said = {"nats": worker.score(model, prompts, request["answers"])}
        except CannotScore as error:
            said = {"cannot": error.args[0]}
    said |= {"cpu_seconds": time.process_time() - cpu, "seconds": time.perf_counter() - wall}
    if request["do"] == "write":
        lengths = [len(ids) for ids in written]
        if lengths != [request["new"]] * len(prompts):
            sys.exit(f"{len(prompts)} answers of {request['new']} tokens were asked for: {lengths}")
    return model, {**said, "peak_bytes": peak_bytes()}


def serve(worker: Worker) -> None:
    """Answer requests until there are none."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    sys.stdout = sys.stderr  # nor may it come behind a worker's last sentence
    model = None
    for line in sys.stdin:
        model, said = answer(worker, model, json.loads(line))
        print(json.dumps(said), file=answers, flush=True)
