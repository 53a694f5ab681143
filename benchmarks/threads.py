"""Two threads beside one, and AMX tiles beside AVX-512, in this package's own decoder.

    python benchmarks/threads.py --model results/checkpoints/awq-w4

after the README's first command. Each variant has a process of its own; they take turns in each
round, with new random tokens. Tokens a second by the clock, the median of the rounds; a batch's
decoding behind prompts of 32 tokens, and prompts alone. Two threads need two idle cores.

Two processes at once, which wait for nothing of each other, tell what the machine gives two cores.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

from measuring import REPOSITORY

WORKERS = REPOSITORY / "benchmarks" / "engine_workers"
ASLEEP = {"OMP_WAIT_POLICY": "PASSIVE"}
AS_THE_WORKFLOW = {**ASLEEP, "GOMP_SPINCOUNT": "100000"}
VARIANTS = {
    "1 thread, no AMX": (1, {**AS_THE_WORKFLOW, "RADQUANT_CPU_LEVEL": "avx512-vnni-bf16"}),
    "1 thread": (1, AS_THE_WORKFLOW),
    "2 threads, asleep at once": (2, ASLEEP),
    "2 threads, as the workflow": (2, AS_THE_WORKFLOW),
}
TOGETHER = "2 processes at once, 1 thread each"
BATCHES, PROMPTS, NEW = (1, 8, 32), (128, 1024), 48


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="a checkpoint of 4-bit weights")
    parser.add_argument("--activations", type=int, default=8, help="bits (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def work(arguments: argparse.Namespace) -> None:
    """Answer each line on stdin with the tokens a second of one round."""
    sys.path.insert(0, str(WORKERS))
    import with_radquant as ours

    asked = {"threads": arguments.worker, "model": str(arguments.model)}
    lean = ours.load_model({**asked, "activations": arguments.activations})

    def prompts(seed: int, count: int, length: int) -> list[list[int]]:
        made = random.Random(f"{seed} {count} {length}")
        return [[made.randrange(10, 40000) for _ in range(length)] for _ in range(count)]

    def seconds(function: Callable[[], object]) -> float:
        start = time.perf_counter()
        function()
        return time.perf_counter() - start

    for line in sys.stdin:
        seed, speeds = int(line), {}
        for batch in BATCHES:
            read = prompts(seed, batch, 32)
            ours.make_room(lean, read, NEW + 2)
            alone = seconds(lambda read=read: ours.write(lean, read, 1))  # type: ignore[misc]
            whole = seconds(lambda read=read: ours.write(lean, read, NEW + 1))  # type: ignore[misc]
            speeds[f"decode {batch}"] = NEW * batch / (whole - alone)
        for length in PROMPTS:
            read = prompts(seed, 1, length)
            ours.make_room(lean, read, 2)
            took = seconds(lambda read=read: ours.write(lean, read, 1))  # type: ignore[misc]
            speeds[f"prompt {length}"] = length / took
        print(json.dumps(speeds), flush=True)


def start(
    arguments: argparse.Namespace, threads: int, variables: dict[str, str]
) -> subprocess.Popen[str]:
    words = [sys.executable, __file__, "--model", str(arguments.model)]
    words += ["--activations", str(arguments.activations), "--worker", str(threads)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), **variables}
    pipe = subprocess.PIPE
    return subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, env=environment)


def ask(processes: Sequence[subprocess.Popen[str]], seed: int) -> dict[str, float]:
    """What the processes do together, all at once."""
    for process in processes:
        print(seed, file=process.stdin, flush=True)
    answers = [process.stdout.readline() for process in processes if process.stdout]
    if not all(answers):
        sys.exit("error: a worker ended before it answered; its message is above")
    speeds = list(map(json.loads, answers))
    return {column: sum(each[column] for each in speeds) for column in speeds[0]}


def main() -> None:
    arguments = parse_arguments()
    if arguments.worker:
        work(arguments)
        return
    running = {name: [start(arguments, *variant)] for name, variant in VARIANTS.items()}
    running[TOGETHER] = [start(arguments, *VARIANTS["1 thread"]) for _ in range(2)]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in running}
    for turn in range(arguments.rounds + 1):  # the first warms up
        for name, processes in running.items():
            speeds = ask(processes, turn)
            found[name] += [speeds] if turn else []
    columns = list(speeds)
    print(f"| variant | {' | '.join(columns)} |")
    print("| --- |" + " ---: |" * len(columns))
    for name, rounds in found.items():
        medians = [statistics.median(each[column] for each in rounds) for column in columns]
        print(f"| {name} | {' | '.join(f'{value:,.0f}' for value in medians)} |")
    for process in chain(*running.values()):
        process.communicate()


if __name__ == "__main__":
    main()
