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
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
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


@dataclass
class Asked:
    """One request, as its client saw it."""

    prompt: int
    text: str
    tokens: int
    first: float  # seconds to the first piece of text
    whole: float  # and to the last


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
    add("--tokens", type=int, default=64, help="of an answer, at most (%(default)s)")
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
    args: argparse.Namespace, threads: int, port: int, process: subprocess.Popen[str]
) -> list[dict[str, Any]]:
    """One row for each number of clients and way of asking; the first is one client alone."""
    count = max(args.clients) * args.requests
    prompts = prompts_of(count, args.words, args.shared_words)
    ask(port, prompts[0], 0, 4)  # what is made once
    alone: dict[int, str] = {}
    rows = []
    for clients in [1, *(number for number in args.clients if number != 1)]:
        for at_once in (False, True) if clients > 1 else (False,):
            requests = 1 if at_once else args.requests
            before, started = cpu_seconds(process), time.perf_counter()
            asked = together(port, prompts, clients, requests, args.tokens)
            wall, cpu = time.perf_counter() - started, cpu_seconds(process) - before
            for each in asked:
                if each.prompt not in alone:
                    alone[each.prompt] = (
                        each.text
                        if clients == 1
                        else text_alone(port, prompts, each.prompt, args.tokens)
                    )
                if each.text != alone[each.prompt]:
                    sys.exit(f"error: prompt {each.prompt} was answered otherwise than alone")
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
                    "whole_median": statistics.median(each.whole for each in asked),
                    "requests": [asdict(each) | {"text": ""} for each in asked],
                }
            )
            print(shown(rows[-1:]).splitlines()[-1], file=sys.stderr)
    return rows


def text_alone(port: int, prompts: Sequence[str], prompt: int, tokens: int) -> str:
    return ask(port, prompts[prompt], prompt, tokens).text


def prompts_of(count: int, words: int, shared: int) -> list[str]:
    """Random words: `shared` ones that all begin with, the prompt's number, and its own."""
    draw = random.Random(0)
    begin = " ".join(draw.choices(WORDS, k=shared))
    return [
        f"{begin} {number} {' '.join(draw.choices(WORDS, k=words - shared))}".strip()
        for number in range(count)
    ]


def together(
    port: int, prompts: Sequence[str], clients: int, requests: int, tokens: int
) -> list[Asked]:
    """What clients get that ask so many prompts each, one after another."""
    found: list[Asked] = []
    failed: list[BaseException] = []

    def client(number: int) -> None:
        try:
            for place in range(number, clients * requests, clients):
                found.append(ask(port, prompts[place], place, tokens))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return found


def ask(port: int, text: str, number: int, tokens: int) -> Asked:
    body = {"prompt": text, "max_tokens": tokens, "stream": True}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    started = time.perf_counter()
    connection.request(
        *("POST", "/v1/completions"),
        json.dumps({**body, "stream_options": {"include_usage": True}}),
        {"Content-Type": "application/json"},
    )
    answer = connection.getresponse()
    if answer.status != 200:
        sys.exit(f"error: {answer.status} {answer.read().decode()}")
    pieces: list[str] = []
    first, counted = 0.0, 0
    for chunk in chunks(answer):
        for choice in chunk["choices"]:
            if choice["text"]:
                first = first or time.perf_counter() - started
                pieces.append(choice["text"])
        counted = (chunk.get("usage") or {}).get("completion_tokens", counted)
    connection.close()
    return Asked(number, "".join(pieces), counted, first, time.perf_counter() - started)


def chunks(answer: http.client.HTTPResponse) -> Iterator[Any]:
    for line in answer:
        if line.startswith(b"data: {"):
            yield json.loads(line[6:])


@contextmanager
def server(
    checkpoint: Path, threads: int, options: Sequence[str]
) -> Iterator[tuple[int, subprocess.Popen[str]]]:
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


def cpu_seconds(process: subprocess.Popen[str]) -> float:
    """Of a process so far, by proc(5)."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def shown(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a table; ratios are to one client of as many threads."""
    heads = ["threads", "clients", "asked", "tokens/s", "tokens/CPU-s", "first, median", "most"]
    lines = [
        [
            str(row["threads"]),
            str(row["clients"]),
            row["asked"],
            f"{row['tokens_per_second']:.0f}",
            f"{row['tokens_per_cpu_second']:.0f}",
            f"{1000 * row['first_median']:.0f} ms",
            f"{1000 * row['first_most']:.0f} ms",
        ]
        for row in rows
    ]
    return table(heads, lines)


if __name__ == "__main__":
    main()
