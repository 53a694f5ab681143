"""What writing and scoring references have in common: options, reports, examples, the model."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from radquant import prompts
from radquant.corpus.evaluation import written_reports
from radquant.errors import UserError
from radquant.families.images import check_takes_images
from radquant.files import read_table
from radquant.generation.engines.kind import Wanted
from radquant.image_files import COLUMN, ImageFile, image_files
from radquant.settings import engines
from radquant.settings.precision import options_of


@dataclass(frozen=True)
class Reading:
    """What a model reads: reports in the form of a template, behind examples."""

    template: str
    reports: list[dict[str, Any]]
    images: list[tuple[ImageFile, ...]]  # of each report
    examples: list[prompts.Row]
    target: str  # the reference's column
    source: Path  # file of the reports, for messages


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which model reads which prompts."""
    add = parser.add_argument
    add("--model", type=Path, required=True, metavar="DIR", help="original model or checkpoint")
    add("--precision", required=True, metavar="NAME", help="name to record")
    add("--train", type=Path, required=True, metavar="CSV", help="reports to draw examples from")
    add("--eval", type=Path, required=True, metavar="CSV", help="reports to evaluate")
    prompt = parser.add_mutually_exclusive_group(required=True)
    prompt.add_argument("--prompt", type=Path, metavar="FILE", help="template with {column} fields")
    prompt.add_argument("--prompt-text", metavar="TEXT", help="the template itself")
    add("--target", default="impression", metavar="COLUMN", help="the reference (%(default)s)")
    add(
        "--image-root",
        type=Path,
        metavar="DIR",
        help="show the model each report's images: files in this folder (PNG, JPEG, DICOM), which "
        "column 'images' of --eval names, separated by ';'",
    )
    add("--examples", type=int, default=0, metavar="N", help="few-shot examples (%(default)s)")
    add(
        "--examples-max-words",
        type=int,
        default=40,
        metavar="W",
        help="most words of an example, prompt columns and reference together (%(default)s)",
    )
    add("--seed", type=int, default=0, help="seed of the draw of examples (%(default)s)")
    add(
        "--activations",
        metavar="JSON",
        help='round the input of the packed linear layers, such as {"bits": 8, "granularity": '
        '"token"} (docs/quantization.md)',
    )
    add("--kv-cache", metavar="JSON", help='round keys and values, such as {"bits": 4}')
    add(
        "--lm-head",
        metavar="JSON",
        help='round the table of the vocabulary, such as {"bits": 8}: the head, and the embedding '
        "where the model ties them",
    )
    add(
        "--engine",
        choices=engines.names(),
        default=engines.AUTO,
        help="what computes: auto is lean, this package's own decoder for CPUs, where that can run "
        "the model, and transformers elsewhere (default: %(default)s)",
    )
    add("--batch-size", type=int, default=16, metavar="B", help="reports at once (%(default)s)")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto", help="default: %(default)s")
    add(
        "--dtype",
        choices=["auto", "float32", "bfloat16", "float16"],
        default="auto",
        help="number format of the computation; auto is float32 on a CPU",
    )
    add("--threads", type=int, default=1, metavar="N", help="CPU threads (%(default)s)")
    add("--trust-remote-code", action="store_true", help="run Python code that the model brings")


def wanted_of(args: argparse.Namespace) -> Wanted:
    """What the options ask to be opened."""
    rounding, kv_cache, lm_head = options_of(args.activations, args.kv_cache, args.lm_head)
    return Wanted(
        model=args.model,
        device=args.device,
        dtype=args.dtype,
        activations=rounding,
        kv_cache=kv_cache,
        lm_head=lm_head,
        images=args.image_root is not None,
        threads=args.threads,
        trust_remote_code=args.trust_remote_code,
        folder=args.output.parent,
    )


def read(args: argparse.Namespace, count: int | None = None) -> Reading:
    """Return what the options name, all checked. count: as in `read_reports`."""
    template, reports, examples = read_reports(args, count)
    images = report_images(args, reports)
    return Reading(template, reports, images, examples, args.target, args.eval)


def read_reports(
    args: argparse.Namespace, count: int | None = None
) -> tuple[str, list[dict[str, Any]], list[prompts.Row]]:
    """Return the template, the reports to evaluate and the few-shot examples, all checked.

    count: how many of the reports, the first by draw; all for None. Examples are the same.
    """
    template = prompts.read_template(args.prompt, args.prompt_text)
    evaluation = read_table(args.eval, require=["id"])
    train = read_table(args.train, require=["id"])
    shown = args.image_root is not None
    for table in (evaluation, train):
        columns = [name for name in table.columns if name != COLUMN]
        prompts.check_template(template, columns, args.target, images=shown)
    if shown and args.examples:
        raise UserError(
            f"{args.examples} few-shot examples were asked for, but examples show no images; ask "
            "for 0 examples"
        )
    double = evaluation["id"][evaluation["id"].duplicated()]
    if len(double):
        raise UserError(f"{args.eval}, column 'id': {double.iloc[0]!r} appears more than once")
    if evaluation.empty:
        raise UserError(f"{args.eval} holds no report; there is nothing to do")
    if args.examples < 0:
        raise UserError(f"{args.examples} examples were asked for; give 0 or more")
    examples = prompts.draw_examples(
        rows_of(train),
        prompts.columns_of(template),
        args.target,
        args.examples,
        args.examples_max_words,
        args.seed,
    )
    both = set(evaluation["id"]) & {str(row["id"]) for row in examples}
    if both:
        raise UserError(
            f"report {min(both)} is both a few-shot example and a report to evaluate; "
            f"{args.train} and {args.eval} must not overlap"
        )
    return template, rows_of(written_reports(evaluation, count, args.eval)), examples


def report_images(
    args: argparse.Namespace, reports: list[dict[str, Any]]
) -> list[tuple[ImageFile, ...]]:
    """Return the images of each report, whose files are all there; none without --image-root."""
    if args.image_root is None:
        return [() for _ in reports]
    check_takes_images(args.model)
    if not args.image_root.is_dir():
        raise UserError(f"the image folder {args.image_root} does not exist or is not a folder")
    if COLUMN not in reports[0]:
        raise UserError(f"{args.eval} has no column {COLUMN!r}, which --image-root needs")
    return [image_files(row, COLUMN, args.image_root) for row in reports]


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one {column: value} per row."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
