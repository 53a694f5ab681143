"""What few-shot examples are worth: how many, which, and how long an output may be.

Reads training reports alone, so that what is chosen by it was not chosen on the reports that a run
evaluates. Some of them, whole patients, are held out and written; the others are what examples are
taken from. As in a run, none of these shares its input with a report that is held out.

A choice is drawn-N or nearest-N (generation.examples_by and examples). For each it prints combined
F1 of the outputs and its difference from the best constant on the same reports. It also prints
perplexity of the references and the share of outputs that were cut off. CPU seconds a report are
those of writing and of the likelihood. A longer output is written anew only where the shorter one
was cut off. Its CPU seconds are those of the shortest, with the share of decoding in proportion to
the tokens.

What was measured is kept in --work and not measured again, so it may be stopped at any time.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from comparing import CONFIDENCE, RESAMPLES, perplexity, table

from radquant import prompts, statistics
from radquant.corpus.cleaning import normalise
from radquant.corpus.marks import same_id
from radquant.corpus.splitting import unit_hash
from radquant.errors import UserError
from radquant.files import read_json, read_table, write_json
from radquant.generation import batching
from radquant.generation.engines.kind import Engine, Opened, Wanted
from radquant.generation.examples import examples_of, rows_of
from radquant.generation.generate import Writing, task_of
from radquant.generation.opening import open_precision
from radquant.generation.prompting import prompts_of
from radquant.generation.stage import Reading, with_same_input
from radquant.generation.tasks import Done, Output, Task, batches_of
from radquant.scoring import lexicon, rewards
from radquant.scoring.baselines import best_constant
from radquant.settings.generation import NEAREST

CHOICES = [*(f"drawn-{n}" for n in (0, 1, 3, 6, 10)), *(f"nearest-{n}" for n in (1, 2, 3, 5))]
LENGTHS = [32, 48, 64]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--model", type=Path, required=True, help="the original model, a directory")
    add("--train", type=Path, required=True, help="training reports of a run (.csv)")
    add("--prompt", type=Path, default=Path("prompts/impression.txt"), help="%(default)s")
    add("--target", default="impression", help="column of the references (%(default)s)")
    add("--choices", nargs="+", default=CHOICES, metavar="HOW-N", help=" ".join(CHOICES))
    add("--lengths", nargs="+", type=int, default=LENGTHS, help="most tokens of an output")
    add("--max-words", type=int, default=40, help="most words of an example (%(default)s)")
    add("--reports", type=int, default=60, help="reports to write (%(default)s)")
    add("--dtype", default="auto", help="auto (float32), float32 or bfloat16 (%(default)s)")
    add("--batch-size", type=int, default=20, help="%(default)s")
    add("--seed", type=int, default=7, help="%(default)s")
    add("--work", type=Path, default=Path("benchmarks/examples"), help="default: %(default)s")
    return parser.parse_args()


Rows = list[dict[str, Any]]


def parted(rows: Rows, columns: Sequence[str], count: int, seed: int) -> tuple[Rows, Rows]:
    """Return (the pool, about `count` held-out reports), which share no patient and no input."""

    def patient(row: Mapping[str, Any]) -> str:
        return same_id(str(row.get("group", ""))) or f"id {same_id(str(row['id']))}"

    def said(row: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(normalise(str(row[name])) for name in columns)

    def place(row: Mapping[str, Any]) -> tuple[float, str]:
        return unit_hash(seed, "held out", patient(row)), str(row["id"])

    ordered = sorted(rows, key=place)
    patients = {patient(row) for row in ordered[:count]}
    held = [row for row in ordered if patient(row) in patients]
    known = {said(row) for row in held}
    pool = [r for r in ordered if patient(r) not in patients and said(r) not in known]
    return pool, held


def measure(args: argparse.Namespace, choice: str, model: tuple[Engine, Opened]) -> dict[str, Any]:
    """What one choice gives: of each held-out report F1 by length, nats and tokens; the costs."""
    how, _, number = choice.partition("-")
    template = prompts.read_template(args.prompt, None)
    columns = prompts.columns_of(template)
    pool, held = parted(rows_of(read_table(args.train, ["id"])), columns, args.reports, args.seed)
    wanted = SimpleNamespace(
        examples_by=how, examples=int(number), examples_max_words=args.max_words
    )
    examples = examples_of(pool, held, template, args.target, wanted, args.seed)
    images: list[Any] = [() for _ in held]
    reading = Reading(template, held, images, examples, args.target, args.train, how)
    annotated = [lexicon.annotate(row[args.target]) for row in held]
    constant = best_constant(
        [row["id"] for row in pool], [row[args.target] for row in pool], args.seed
    )
    copied = [shown[-1][args.target] for shown in examples if shown]
    found: dict[str, Any] = {
        "reports": len(held),
        "same_input_reports": len(with_same_input(reading)),
        "constant": scores([constant] * len(held), annotated),
        "copied": scores(copied, annotated) if how == NEAREST and copied else None,
        "likelihood": likelihood(args, reading, model),
        "lengths": {},
    }
    outputs: dict[str, Output] = {}
    first: tuple[Done, int] | None = None
    for length in sorted(args.lengths):
        cut = [place for place, row in enumerate(held) if ends_open(outputs.get(str(row["id"])))]
        done, written = write(args, reading, cut, length, model)
        outputs |= written
        each = [outputs[str(row["id"])] for row in held]
        tokens = sum(output.tokens for output in each)
        first = first or (done, tokens)
        found["lengths"][str(length)] = {
            "f1": scores([output.text for output in each], annotated),
            "cut": sum(output.finish == "length" for output in each),
            "different": len({output.text for output in each}),
            "tokens": tokens,
            "cpu_seconds": in_proportion(*first, tokens),
        }
    return found


def scores(texts: Sequence[str], annotated: Sequence[Any]) -> list[float]:
    """Combined F1 of each text against the annotation of its reference."""
    pairs = zip(texts, annotated, strict=True)
    return [rewards.f1(lexicon.annotate(text), reference)[2] for text, reference in pairs]


def ends_open(output: Output | None) -> bool:
    return output is None or output.finish == "length"


def in_proportion(done: Done, tokens: int, wanted: int) -> float:
    """CPU seconds of writing `wanted` tokens, where `done` is the writing of `tokens`."""
    pace = done.work.pace
    assert pace is not None
    decoding = pace.decode_seconds / (pace.prefill_seconds + pace.decode_seconds)
    return done.cpu_seconds * (1 + decoding * (wanted / tokens - 1))


def write(
    args: argparse.Namespace,
    reading: Reading,
    places: Sequence[int],
    length: int,
    model: tuple[Engine, Opened],
) -> tuple[Done, dict[str, Output]]:
    """The outputs of the reports at `places`, by id."""
    engine, opened = model
    made = prompts_of(opened, reading, length)
    some = [made[place] for place in places]
    task = task_of(opened, some, Writing("", args.batch_size, length))
    done = engine.write(opened, task)
    ids = [prompt.id for prompt in task.prompts]
    return done, dict(zip(ids, done.work.results, strict=True))


def likelihood(
    args: argparse.Namespace, reading: Reading, model: tuple[Engine, Opened]
) -> dict[str, Any]:
    engine, opened = model
    made = prompts_of(opened, reading)
    plan = batching.plan_batches(made, args.batch_size)
    task = Task(
        label="",
        batches=batches_of(made, plan),
        shared=batching.shared_prefix(made),
        longest=max(len(prompt.ids) + len(prompt.answer_ids) for prompt in made),
        batch_size=args.batch_size,
    )
    done = engine.score(opened, task)
    return {
        "nll": done.work.results,
        "tokens": [len(prompt.answer_ids) for prompt in task.prompts],
        "prompt_tokens": sum(prompt.length for prompt in made),
        "cpu_seconds": done.cpu_seconds,
    }


def rows_of_table(choice: str, found: Mapping[str, Any]) -> list[list[str]]:
    count, constant = found["reports"], np.array(found["constant"])
    said = found["likelihood"]
    cells = []
    for length, of_length in found["lengths"].items():
        f1 = np.array(of_length["f1"])
        apart = statistics.bootstrap_interval(f1 - constant, RESAMPLES, CONFIDENCE, seed=0)
        cells.append(
            [
                choice,
                length,
                f"{f1.mean():.3f}",
                f"{(f1 - constant).mean():+.3f} ({apart.low:+.3f} to {apart.high:+.3f})",
                f"{perplexity(np.array(said['nll']), np.array(said['tokens'])):.2f}",
                f"{of_length['cut'] / count:.0%}",
                f"{of_length['different']}",
                f"{of_length['cpu_seconds'] / count:.2f}",
                f"{said['cpu_seconds'] / count:.2f}",
            ]
        )
    return cells


HEAD = [
    *("examples", "tokens", "F1", "above the constant (95 %)", "perplexity", "cut off"),
    *("different outputs", "writing, s", "likelihood, s"),
]


def main() -> None:
    args = parse_arguments()
    for choice in args.choices:
        how, _, number = choice.partition("-")
        if how not in ("drawn", "nearest") or not number.isdecimal():
            raise UserError(f"--choices {choice} is not of the form drawn-N or nearest-N")
    asked = {name: str(value) for name, value in vars(args).items() if name not in ("choices",)}
    model: tuple[Engine, Opened] | None = None
    cells: list[list[str]] = []
    copied: list[float] = []
    for choice in args.choices:
        path = args.work / f"{choice}.json"
        if not (path.is_file() and read_json(path)["asked"] == asked):
            original = Wanted(args.model, device="cpu", dtype=args.dtype)
            model = model or open_precision("lean", original, scores=True)
            write_json(path, {"asked": asked, **measure(args, choice, model)})
        found = read_json(path)
        copied = found["copied"] or copied
        cells += rows_of_table(choice, found)
        print(f"{choice}: measured", file=sys.stderr, flush=True)
    print(table(HEAD, cells))
    constant = np.mean(found["constant"])
    print(f"\n{found['reports']} reports; the best constant has F1 {constant:.3f} on them.")
    if copied:
        print(f"The reference of the nearest training report has {np.mean(copied):.3f}.")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
