"""What writing and scoring references have in common: options, reports, examples, the model."""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from radquant import prompts
from radquant.corpus.evaluation import written_reports
from radquant.errors import UserError
from radquant.families.images import check_takes_images
from radquant.files import read_table
from radquant.generation.engines.kind import Wanted
from radquant.generation.examples import examples_of, rows_of
from radquant.image_files import COLUMN, ImageFile, image_files
from radquant.image_roots import require_folder
from radquant.instructions import words_of
from radquant.meant import cleaned, model_folder, split
from radquant.settings.generation import DRAWN


@dataclass(frozen=True)
class Reading:
    """What a model reads: reports in the form of a template, behind examples."""

    template: str
    reports: list[dict[str, Any]]
    images: list[tuple[ImageFile, ...]]  # of each report
    examples: list[list[prompts.Row]]  # of each report, as many for each
    target: str  # the reference's column
    source: Path  # file of the reports, for messages
    examples_by: str = DRAWN

    def first(self, count: int) -> "Reading":
        """The same of the first `count` reports alone."""
        each = {name: getattr(self, name)[:count] for name in ("reports", "images", "examples")}
        return replace(self, **each)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what names the files of a stage; the settings have options of their own."""
    add_inputs(parser)
    add = parser.add_argument
    add("--precision", required=True, metavar="NAME", help="name to record")
    add("--output", type=Path, required=True, metavar="PARQUET", help="table to write")
    add("--metrics", type=Path, required=True, metavar="JSON", help="record of measures to write")


def add_features(parser: argparse.ArgumentParser) -> None:
    help_text = (
        "features of the reports' images, which encode_images.py made; without it they are encoded "
        "here"
    )
    parser.add_argument("--features", type=Path, metavar="DIR", help=help_text)


def add_engine_python(parser: argparse.ArgumentParser) -> None:
    help_text = "for an engine in an environment of its own: the Python of that (docs/engines.md)"
    parser.add_argument("--engine-python", type=Path, metavar="FILE", help=help_text)


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """Add what names the files that a stage reads."""
    help_text = "original model or checkpoint"
    parser.add_argument("--model", type=model_folder, required=True, metavar="DIR", help=help_text)
    add_reports(parser)


def add_reports(parser: argparse.ArgumentParser) -> None:
    """Add what names the reports and the prompt."""
    add = parser.add_argument
    add("--train", type=split, required=True, metavar="CSV", help="reports to draw examples from")
    add("--eval", type=split, required=True, metavar="CSV", help="reports to evaluate")
    prompt = parser.add_mutually_exclusive_group(required=True)
    prompt.add_argument("--prompt", type=Path, metavar="FILE", help="template with {column} fields")
    prompt.add_argument("--prompt-text", metavar="TEXT", help="the template itself")


def wanted_of(args: argparse.Namespace, settings: Any) -> Wanted:
    """What is asked to be opened. settings: as `options.parse` returns them.

    Without a precision among them, it is the model as it is.
    """
    precision = getattr(settings, "precision", None)
    return Wanted(
        model=args.model,
        device=settings.compute.device,
        dtype=settings.compute.dtype,
        activations=precision and precision.activations,
        kv_cache=precision and precision.kv_cache,
        lm_head=precision and precision.lm_head,
        images=settings.corpus.image_root is not None,
        features=getattr(args, "features", None),
        threads=settings.compute.threads,
        trust_remote_code=settings.model.trust_remote_code,
        date=settings.task.date,
        folder=args.output.parent,
    )


def read(args: argparse.Namespace, settings: Any, count: int | None = None) -> Reading:
    """Return what the options name, all checked. count: as in `read_reports`."""
    template, reports, examples = read_reports(args, settings, count)
    images = report_images(args, settings, reports)
    target, by = settings.task.target, settings.generation.examples_by
    return Reading(template, reports, images, examples, target, args.eval, by)


def read_reports(
    args: argparse.Namespace, settings: Any, count: int | None = None
) -> tuple[str, list[dict[str, Any]], list[list[prompts.Row]]]:
    """Return the template, the reports to evaluate and each one's few-shot examples, all checked.

    count: how many of the reports, the first by draw; all for None. Examples are the same.
    """
    template = prompts.read_template(args.prompt, args.prompt_text)
    target, wanted = settings.task.target, settings.generation
    evaluation = read_table(args.eval, ["id"], cleaned(args.eval))
    train = read_table(args.train, ["id"], cleaned(args.train))
    shown = settings.corpus.image_root is not None
    for table in (evaluation, train):
        columns = [name for name in table.columns if name != COLUMN]
        prompts.check_template(template, columns, target, images=shown)
    if shown and wanted.examples:
        raise UserError(
            f"{wanted.examples} few-shot examples were asked for, but examples show no images; ask "
            "for 0 examples"
        )
    double = evaluation["id"][evaluation["id"].duplicated()]
    if len(double):
        raise UserError(f"{args.eval}, column 'id': {double.iloc[0]!r} appears more than once")
    if evaluation.empty:
        raise UserError(f"{args.eval} holds no report; there is nothing to do")
    reports = rows_of(written_reports(evaluation, count, args.eval))
    examples = examples_of(rows_of(train), reports, template, target, wanted, settings.run.seed)
    both = set(evaluation["id"]) & {str(row["id"]) for each in examples for row in each}
    if both:
        raise UserError(
            f"report {min(both)} is both a few-shot example and a report to evaluate; "
            f"{args.train} and {args.eval} must not overlap"
        )
    return template, reports, examples


def with_same_input(reading: Reading) -> set[str]:
    """Ids of the reports whose own input, by its words, stands among their examples."""
    columns = prompts.columns_of(reading.template)

    def said(row: prompts.Row) -> list[str]:
        return [words_of(row[name]) for name in columns]

    return {
        str(report["id"])
        for report, examples in zip(reading.reports, reading.examples, strict=True)
        if any(said(report) == said(example) for example in examples)
    }


def report_images(
    args: argparse.Namespace, settings: Any, reports: list[dict[str, Any]]
) -> list[tuple[ImageFile, ...]]:
    """Return the images of each report, whose files are all there; none without --image-root."""
    if settings.corpus.image_root is None:
        return [() for _ in reports]
    root = Path(settings.corpus.image_root)
    check_takes_images(args.model)
    require_folder(root)
    if COLUMN not in reports[0]:
        raise UserError(f"{args.eval} has no column {COLUMN!r}, which --image-root needs")
    return [image_files(row, COLUMN, root) for row in reports]
