"""Clean, deduplicate and split a raw corpus; every dropped report is recorded with its reason."""

import argparse
import sys
from pathlib import Path
from typing import Any

from radquant.cli import run
from radquant.corpus.pipeline import Settings, prepare_corpus, rejected_table, show_funnel
from radquant.corpus.reports import COLUMNS, RAW_COLUMNS, from_table, to_table
from radquant.files import read_table, write_json, write_table
from radquant.settings import stages
from radquant.settings.options import parse


def arguments() -> tuple[argparse.Namespace, Any]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--raw", type=Path, required=True, help="the table of fetch_corpus.py")
    parser.add_argument("--train", type=Path, required=True, help="training reports (.csv)")
    parser.add_argument("--eval", type=Path, required=True, help="evaluation reports (.csv)")
    parser.add_argument(
        "--rejected", type=Path, required=True, help="dropped reports with their reasons (.csv)"
    )
    parser.add_argument("--funnel", type=Path, required=True, help="counts of each step (.json)")
    return parse(parser, stages.CLEAN)


def main() -> None:
    files, settings = arguments()
    keep = Settings(
        inputs=settings.task.inputs,
        target=settings.task.target,
        eval_reports=settings.evaluation.reports,
        eval_fraction=settings.cleaning.eval_fraction,
        min_words=settings.cleaning.min_words,
        max_words=settings.cleaning.max_words,
        seed=settings.run.seed,
    )
    images = None if settings.corpus.image_root is None else Path(settings.corpus.image_root)
    raw = from_table(read_table(files.raw, RAW_COLUMNS))
    cleaned = prepare_corpus(raw, keep, images)
    write_table(files.train, to_table(cleaned.train, COLUMNS))
    write_table(files.eval, to_table(cleaned.evaluation, COLUMNS))
    write_table(files.rejected, rejected_table(cleaned))
    write_json(files.funnel, cleaned.funnel)
    print(show_funnel(cleaned.funnel))
    if cleaned.funnel["unit"] == "report":
        print("the corpus names no patients: split by report", file=sys.stderr)


if __name__ == "__main__":
    run(main)
