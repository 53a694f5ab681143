"""This package beside other engines on a CPU: speed, memory and perplexity of the same model.

    python benchmarks/engines.py --work engines

after the README's first command. Every engine has an environment of its own, and files of its own
made from the same weights by its own tools. Both are made once, in --work (--prepare does no more
than that). Each runs in a process of its own (benchmarks/engine_workers), on as many cores as it
has threads. Engines take turns in each round, and a process is stopped while others are measured.
Prompts are random tokens, the same for all engines in a round, and never the same twice.

--table prints the tables again. --engines measures some again; the others' figures are kept.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from engines_files import (
    ENGINES,
    WORKERS,
    Engine,
    last_line,
    prepare,
    python_of,
    random_prompts,
)
from engines_table import cost, perplexity, tables
from measuring import REPOSITORY

from radquant.cli import run
from radquant.errors import UserError
from radquant.files import read_json, write_json

STATUS = "/proc/cpuinfo"
LEFT = 1.5e9  # bytes of memory that must be free when a further engine is started
WARM_UP = ((1, 128), (8, 32))  # prompts, and tokens of each


@dataclass(frozen=True)
class Settings:
    threads: list[int]
    rounds: int
    batch_sizes: list[int]
    prompt_tokens: list[int]  # of the prompts whose reading is measured
    decode_prompt: int  # tokens of the prompts behind which decoding is measured
    new_tokens: int
    references: int


FULL = Settings([1, 2], 3, [1, 8, 32], [128, 1024], 32, 32, 40)
QUICK = Settings([1], 2, [1, 8, 32], [128, 1024], 32, 4, 2)


@dataclass
class Process:
    """A worker that runs, or is stopped while it is not asked."""

    name: str
    popen: subprocess.Popen[str]
    answers: IO[str]
    log: Path


class Ended(Exception):
    """A worker ended before it answered. args: why."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--results", type=Path, default=Path("results"), help="of a finished run (%(default)s)")
    add("--work", type=Path, default=Path("benchmarks/engines"), help="default: %(default)s")
    add("--engines", nargs="+", choices=ENGINES, default=list(ENGINES), metavar="NAME")
    add("--rounds", type=int, help=f"default: {FULL.rounds}")
    add("--threads", type=int, nargs="+", choices=FULL.threads, help="default: 1, then 2")
    add("--quick", action="store_true", help="a trial with few tokens, to a file of its own")
    add("--prepare", action="store_true", help="make environments and models, and measure nothing")
    add("--table", action="store_true", help="print what was measured, and measure nothing")
    return parser.parse_args()


def start(work: Path, name: str, cores: Sequence[int]) -> Process:
    engine = ENGINES[name]
    threads = str(len(cores))
    variables = {
        **os.environ,
        **engine.variables,
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": "1",
        # As rules/common.smk: spinning threads count as work, and sleeping ones wake up late.
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "100000",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": str(REPOSITORY / "src"),
    }
    log = work / "logs" / f"{name}-{threads}.log"
    command = [str(python_of(work, engine)), str(WORKERS / f"{engine.worker}.py")]
    with open(log, "w", encoding="utf-8") as file:
        popen = subprocess.Popen(
            ["taskset", "--cpu-list", ",".join(map(str, cores)), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
            env=variables,
        )
    assert popen.stdout is not None
    return Process(name, popen, popen.stdout, log)


def ask(process: Process, **request: Any) -> dict[str, Any]:
    """What a worker answers. Raises Ended if it ends instead."""
    popen = process.popen
    assert popen.stdin is not None
    popen.send_signal(signal.SIGCONT)
    try:
        print(json.dumps(request), file=popen.stdin, flush=True)
        line = process.answers.readline()
    except BrokenPipeError:
        line = ""
    if not line:
        popen.wait()
        raise Ended(last_line(process.log))
    popen.send_signal(signal.SIGSTOP)
    answer: dict[str, Any] = json.loads(line)
    return answer


def end(process: Process) -> None:
    popen = process.popen
    assert popen.stdin is not None
    if popen.poll() is None:
        popen.send_signal(signal.SIGCONT)
        popen.kill()  # an engine that tears itself down may take long, and nothing is left to keep
    popen.wait()
    popen.stdin.close()
    process.answers.close()


def load(process: Process, work: Path, engine: Engine, threads: int) -> dict[str, Any]:
    model = str(work.resolve() / "models" / engine.model)
    said = ask(process, do="load", model=model, threads=threads, **engine.options)
    for count, length in WARM_UP:
        ask(
            process,
            do="write",
            prompts=random_prompts(random.Random(0), work, count, length),
            new=2,
        )
    return said


def measure_round(process: Process, work: Path, settings: Settings, number: int) -> dict[str, Any]:
    """What each task takes of tokens, CPU and wall seconds, and the peak memory so far."""
    drawn = random.Random(number)
    found, new = {}, settings.new_tokens

    def write(count: int, length: int, new: int) -> dict[str, Any]:
        return ask(process, do="write", prompts=random_prompts(drawn, work, count, length), new=new)

    for size in settings.batch_sizes:
        first, whole = (write(size, settings.decode_prompt, tokens) for tokens in (1, new))
        found[f"decode-{size}"] = cost(size * (new - 1), whole, first)
    for length in settings.prompt_tokens:
        whole = write(1, length, 1)
        found[f"prompt-{length}"] = cost(length, whole)
    return {"costs": found, "peak_bytes": whole["peak_bytes"]}


def scored(process: Process, references: Mapping[str, Any]) -> dict[str, Any]:
    """The perplexity of the references, or why there is none."""
    try:
        said = ask(process, do="score", **references)
    except Ended as error:
        return {"no_perplexity": error.args[0]}
    if "cannot" in said:
        return {"no_perplexity": said["cannot"]}
    return {"perplexity": perplexity(said["nats"], sum(map(len, references["answers"])))}


def available() -> int:
    """Bytes of memory that can be had."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) * 1024


def measure(
    work: Path, names: Sequence[str], settings: Settings, threads: int, found: dict[str, Any]
) -> None:
    """Let engines take turns with so many threads; adds to `found`, by their names."""
    cores = sorted(os.sched_getaffinity(0))[-threads:]
    if len(cores) < threads:
        raise UserError(f"{threads} threads need as many cores, and there are {len(cores)}")
    references = read_json(work / f"references-{settings.references}.json")
    running: dict[str, Process] = {}

    def attempt(name: str, task: Callable[[Process], dict[str, Any]]) -> dict[str, Any] | None:
        try:
            return task(running[name])
        except Ended as error:
            end(running.pop(name))
            found[name] = {**named(name), "not_run": error.args[0]}
            print(f"{name}: {error.args[0]}", file=sys.stderr, flush=True)
            return None

    try:
        for name in names:
            if available() < LEFT:
                found[name] = {**named(name), "not_run": "too little memory beside the others"}
                continue
            tell(threads, f"loading {name}")
            running[name] = start(work, name, cores)
            said = attempt(name, lambda one: load(one, work, ENGINES[one.name], threads))
            if said is not None:
                found[name]["versions"] = said["versions"]
                found[name]["threads"][str(threads)] = {"rounds": []}
        for number in range(settings.rounds):
            once_more = partial(measure_round, work=work, settings=settings, number=number)
            for name in list(running):
                tell(threads, f"round {number + 1}: {name}")
                done = attempt(name, once_more)
                if done is not None:
                    kept = found[name]["threads"][str(threads)]
                    kept["rounds"].append(done["costs"])
                    kept["peak_bytes"] = done["peak_bytes"]
        if threads == settings.threads[-1]:
            for name in list(running):
                tell(threads, f"perplexity: {name}")
                found[name] |= scored(running[name], references)
    finally:
        for process in running.values():
            end(process)


def tell(threads: int, what: str) -> None:
    print(f"threads {threads}, {what}", file=sys.stderr, flush=True)


def named(name: str) -> dict[str, Any]:
    return {"label": ENGINES[name].label, "weights": ENGINES[name].weights}


def machine() -> str:
    lines = Path(STATUS).read_text().splitlines()
    model = next((line for line in lines if line.startswith("model name")), "model name: unknown")
    return f"{model.split(':')[1].strip()}, {os.cpu_count()} cores"


def earlier(output: Path, said: Mapping[str, Any]) -> dict[str, Any]:
    """Figures that are kept; raises UserError if they cannot stand beside new ones."""
    if not output.is_file():
        return {}
    kept = read_json(output)
    if {name: kept[name] for name in said} != said:
        raise UserError(
            f"{output} was measured with other settings or on another machine; move it away"
        )
    engines: dict[str, Any] = kept["engines"]
    return engines


def printed(output: Path) -> str:
    """The tables of what was measured, engines in the order of `ENGINES`."""
    if not output.is_file():
        raise UserError(f"{output} is not there; measure first, without --table")
    found = read_json(output)
    engines = {name: found["engines"][name] for name in ENGINES if name in found["engines"]}
    return tables({**found, "engines": engines})


def main() -> None:
    args = parse_arguments()
    settings = QUICK if args.quick else FULL
    chosen = {key: vars(args)[key] for key in ("rounds", "threads") if vars(args)[key]}
    asked = {**vars(settings), **chosen}
    settings = Settings(**asked)
    output = args.work / ("engines-quick.json" if args.quick else "engines.json")
    if args.table:
        print(printed(output))
        return
    missing = prepare(args.work, args.results, args.engines, settings.references)
    for name, reason in missing.items():
        print(f"{name}: {reason}", file=sys.stderr)
    if args.prepare:
        return
    said = {"machine": machine(), "settings": asked}
    found = earlier(output, said)
    for name in args.engines:
        own = {"not_run": missing[name]} if name in missing else {"threads": {}}
        found[name] = {**named(name), **own}
    for threads in settings.threads:
        names = [name for name in args.engines if "not_run" not in found[name]]
        measure(args.work, names, settings, threads, found)
        write_json(output, {**said, "engines": found})
    print(printed(output))


if __name__ == "__main__":
    run(main)
