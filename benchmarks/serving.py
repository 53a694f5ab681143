"""Speed of our endpoint: clients at once, tokens a second and the time to the first token.

    python benchmarks/serving.py results/checkpoints/awq-w4 --output serving.json \\
        --activations '{"bits": 8}' --lm-head '{"bits": 8}'

Options that are not its own are given to scripts/serve.py, which is one process of one thread and
then of two. Clients stream completions of random English words, and no two prompts share a
beginning. Each client asks one prompt after another ("in turn"); then all ask their first prompts
at one moment ("at once"). Every answer must have the very text that the prompt gets alone, or the
program fails.
"""

import argparse
import http.client
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

from comparing import table
from measuring import script

from radquant.files import write_json

WORDS = [
    *("heart", "lung", "chest", "left", "right", "upper", "lower", "lobe", "normal", "size"),
    *("clear", "small", "large", "no", "new", "old", "line", "tube", "seen", "since", "prior"),
    *("study", "view", "change", "stable", "mild", "acute", "focal", "bone", "spine", "air"),
]


FIRST = ("first_median", "first_most", "first_cpu_median", "first_cpu_most")
Server = subprocess.Popen[str]


@dataclass
class Asked:
    """One request, as its client saw it."""

    text: str
    tokens: int
    first: float  # seconds to the first piece of text
    first_cpu: float  # of which the server computed: what it would take on an idle machine
    whole: float  # seconds to the last piece


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("checkpoint", type=Path)
    add("--clients", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    add("--threads", type=int, nargs="+", default=[1, 2])
    add("--words", type=int, default=110, help="of a prompt (%(default)s)")
    add("--shared-words", type=int, default=0, help="with which all prompts begin (%(default)s)")
    add("--tokens", type=int, default=64, help="of an answer, on average (%(default)s)")
    add("--requests", type=int, default=4, help="of each client (%(default)s)")
    add("--output", type=Path, required=True)
    args, options = parser.parse_known_args()
    rows: list[dict[str, Any]] = []
    for threads in args.threads:
        with server(args.checkpoint, threads, options) as (port, process):
            rows += measure(args, threads, port, process)
    write_json(args.output, {"arguments": sys.argv[1:], "rows": rows})
    print(shown(rows))


def measure(
    args: argparse.Namespace, threads: int, port: int, process: Server
) -> list[dict[str, Any]]:
    """One row for each number of clients and way of asking; the first is one client alone."""
    numbers = count(1)  # of prompts: none is asked in two rows, as its beginning would be known
    ask(port, process, prompt(args, next(numbers)), 4)  # what is made once
    rows = []
    for clients in [1, *(number for number in args.clients if number != 1)]:
        for at_once in (False, True) if clients > 1 else (False,):
            each = 1 if at_once else args.requests
            prompts = [prompt(args, next(numbers)) for _ in range(clients * each)]
            before, started = cpu_seconds(process), time.perf_counter()
            asked = together(port, process, prompts, clients, args.tokens)
            wall, cpu = time.perf_counter() - started, cpu_seconds(process) - before
            for text, found in zip(prompts, asked, strict=True):
                if ask(port, process, text, length(text, args.tokens)).text != found.text:
                    sys.exit("error: a prompt was answered otherwise than alone")
            tokens = sum(each.tokens for each in asked)
            rows.append(
                {
                    "threads": threads,
                    "clients": clients,
                    "asked": "at once" if at_once else "in turn",
                    "tokens_per_second": tokens / wall,
                    "tokens_per_cpu_second": tokens / cpu,
                    "first_median": statistics.median(each.first for each in asked),
                    "first_most": max(each.first for each in asked),
                    "first_cpu_median": statistics.median(each.first_cpu for each in asked),
                    "first_cpu_most": max(each.first_cpu for each in asked),
                    "whole_median": statistics.median(each.whole for each in asked),
                    "requests": [asdict(each) | {"text": ""} for each in asked],
                }
            )
            print(shown(rows[-1:]).splitlines()[-1], file=sys.stderr)
    return rows


def prompt(args: argparse.Namespace, number: int) -> str:
    """Random words: those that all begin with, the prompt's number, and its own."""
    shared = random.Random(0).choices(WORDS, k=args.shared_words)
    own = random.Random(number).choices(WORDS, k=args.words - args.shared_words)
    return " ".join([*shared, str(number), *own])


def length(text: str, tokens: int) -> int:
    """Of a prompt's answer: between half and one and a half of `tokens`, as answers differ."""
    return random.Random(text).randint(tokens // 2, tokens * 3 // 2)


def together(
    port: int, process: Server, prompts: Sequence[str], clients: int, tokens: int
) -> list[Asked]:
    """What clients get that share prompts out among themselves, each asking one after another."""

    def client(number: int) -> list[Asked]:
        own = prompts[number::clients]
        return [ask(port, process, text, length(text, tokens)) for text in own]

    with ThreadPoolExecutor(clients) as pool:
        found = list(pool.map(client, range(clients)))
    return [found[place % clients][place // clients] for place in range(len(prompts))]


def ask(port: int, process: Server, text: str, tokens: int) -> Asked:
    body = {"prompt": text, "max_tokens": tokens, "stream": True}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    started, before = time.perf_counter(), cpu_seconds(process)
    connection.request(
        *("POST", "/v1/completions"),
        json.dumps({**body, "stream_options": {"include_usage": True}}),
        {"Content-Type": "application/json"},
    )
    answer = connection.getresponse()
    if answer.status != 200:
        sys.exit(f"error: {answer.status} {answer.read().decode()}")
    pieces: list[str] = []
    first, first_cpu, counted = 0.0, 0.0, 0
    for chunk in chunks(answer):
        for choice in chunk["choices"]:
            if choice["text"]:
                if not pieces:
                    first, first_cpu = time.perf_counter() - started, cpu_seconds(process) - before
                pieces.append(choice["text"])
        counted = (chunk.get("usage") or {}).get("completion_tokens", counted)
    connection.close()
    whole = time.perf_counter() - started
    return Asked("".join(pieces), counted, first, first_cpu, whole)


def chunks(answer: http.client.HTTPResponse) -> Iterator[Any]:
    for line in answer:
        if line.startswith(b"data: {"):
            yield json.loads(line[6:])


@contextmanager
def server(checkpoint: Path, threads: int, options: Sequence[str]) -> Iterator[tuple[int, Server]]:
    """A server on a free port, and its process."""
    command = script("serve.py", checkpoint, "--engine", "auto", "--device", "cpu", "--port", 0)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    command += ["--threads", str(threads), *options]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r":(\d+); Ctrl-C ends", line)
        if not found:
            process.wait()
            log.seek(0)
            sys.exit(f"error: the server did not start: {log.read()}")
        print(line.strip(), file=sys.stderr)
        try:
            yield int(found[1]), process
        finally:
            process.terminate()
            process.wait()


def cpu_seconds(process: Server) -> float:
    """Of all threads of a process so far; Documentation/scheduler/sched-stats.rst of Linux."""
    files = Path(f"/proc/{process.pid}/task").glob("*/schedstat")
    return sum(int(file.read_text().split()[0]) for file in files) / 1e9


def shown(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a table; times to the first token are medians, and the longest."""
    heads = ["threads", "clients", "asked", "tokens/s", "tokens/CPU-s", "first token", "slowest"]
    heads += ["first, CPU", "slowest, CPU"]
    lines = [
        [
            str(row["threads"]),
            str(row["clients"]),
            row["asked"],
            f"{row['tokens_per_second']:.0f}",
            f"{row['tokens_per_cpu_second']:.0f}",
            *(f"{1000 * row[name]:.0f} ms" for name in FIRST),
        ]
        for row in rows
    ]
    return table(heads, lines)


if __name__ == "__main__":
    main()
