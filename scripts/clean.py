"""Clean, deduplicate and split a raw corpus; every dropped report is recorded with its reason."""

import argparse
import contextlib
import sys
from pathlib import Path
from typing import Any

from radquant.cli import done, new_parser, run
from radquant.corpus.pipeline import (
    Cleaned,
    Settings,
    TooFewError,
    prepare_corpus,
    rejected_table,
    show_funnel,
)
from radquant.corpus.reports import COLUMNS, RAW_COLUMNS, READING, from_table, to_table
from radquant.errors import UserError
from radquant.files import hash_path, read_table, write_json, write_table
from radquant.meant import old_input, raw_reports
from radquant.settings import stages
from radquant.settings.options import parse

EXAMPLE = r"""python scripts/clean.py --raw raw.parquet --train train.csv \
    --eval eval.csv --rejected rejected.csv --funnel cleaning.json"""


def arguments() -> tuple[argparse.Namespace, Any]:
    parser = new_parser(__doc__, EXAMPLE)
    parser.add_argument("--input", type=old_input, help=argparse.SUPPRESS)
    parser.add_argument(
        "--raw", type=raw_reports, required=True, help="the table of fetch_corpus.py"
    )
    parser.add_argument("--train", type=Path, required=True, help="training reports (.csv)")
    parser.add_argument("--eval", type=Path, required=True, help="evaluation reports (.csv)")
    parser.add_argument(
        "--rejected", type=Path, required=True, help="dropped reports with their reasons (.csv)"
    )
    parser.add_argument("--funnel", type=Path, required=True, help="counts of each step (.json)")
    return parse(parser, stages.CLEAN)


# Where rejected.csv and the funnel stay if too few are left: Snakemake removes the outputs of a job
# that fails.
REFUSED = "refused"


def write_dropped(cleaned: Cleaned, reading: Any, rejected: Path, funnel: Path) -> None:
    """Write the dropped reports with their reasons, and the funnel with what reading recognised."""
    write_table(rejected, rejected_table(cleaned))
    write_json(funnel, {**cleaned.funnel, READING: reading})


def main() -> None:
    files, settings = arguments()
    keep = Settings(
        inputs=settings.task.inputs,
        target=settings.task.target,
        eval_reports=settings.evaluation.reports,
        eval_fraction=settings.cleaning.eval_fraction,
        min_words=settings.cleaning.min_words,
        max_words=settings.cleaning.max_words,
        min_input_words=settings.cleaning.min_input_words,
        seed=settings.run.seed,
    )
    images = None if settings.corpus.image_root is None else Path(settings.corpus.image_root)
    table = read_table(files.raw, RAW_COLUMNS)
    reading = table.attrs.get(READING, {})
    refused = [path.parent / REFUSED / path.name for path in (files.rejected, files.funnel)]
    try:
        cleaned = prepare_corpus(from_table(table), keep, images)
    except TooFewError as error:
        write_dropped(error.cleaned, reading, files.rejected, files.funnel)
        write_dropped(error.cleaned, reading, *refused)
        where = f"; {refused[0]} has every report's reason" if error.cleaned.rejected else ""
        raise UserError(f"{error}{where}") from None
    write_table(files.train, to_table(cleaned.train, COLUMNS))
    write_table(files.eval, to_table(cleaned.evaluation, COLUMNS))
    write_dropped(cleaned, reading, files.rejected, files.funnel)
    for path in refused:
        path.unlink(missing_ok=True)
        hash_path(path).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not there, or with something else in it
        refused[0].parent.rmdir()
    print(show_funnel(cleaned.funnel))
    if cleaned.funnel["unit"] == "report":
        print("the corpus names no patients: split by report", file=sys.stderr)
    counts = f"{len(cleaned.evaluation)} reports, and {len(cleaned.train)} in {files.train}"
    done(files.eval, counts)


if __name__ == "__main__":
    run(main)
