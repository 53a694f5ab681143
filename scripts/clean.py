"""Clean, deduplicate and split a raw corpus; every dropped report is recorded with its reason."""

import argparse
import sys
from pathlib import Path

from radquant.cli import run
from radquant.corpus.pipeline import Settings, prepare_corpus, rejected_table, show_funnel
from radquant.corpus.reports import COLUMNS, RAW_COLUMNS, from_table, to_table
from radquant.files import read_table, write_json, write_table


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--raw", type=Path, required=True, help="the table of fetch_corpus.py")
    parser.add_argument(
        "--inputs",
        nargs="*",
        default=[],
        metavar="COLUMN",
        help="columns that the prompt will use; a report needs all of them",
    )
    parser.add_argument(
        "--image-root",
        type=Path,
        metavar="DIR",
        help="folder of image files, of which a report then needs one; the evaluation's are opened",
    )
    parser.add_argument("--target", required=True, help="the column that the model will write")
    parser.add_argument(
        "--eval-reports", type=int, required=True, help="how many reports to evaluate on"
    )
    parser.add_argument(
        "--eval-fraction",
        type=float,
        default=Settings.eval_fraction,
        help="share of patients set aside for evaluation, unless the corpus brings its own split "
        "(default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, required=True, help="decides the split and the draw")
    parser.add_argument(
        "--min-words",
        type=int,
        default=Settings.min_words,
        help="fewest words of the target (default: %(default)s)",
    )
    parser.add_argument(
        "--max-words",
        type=int,
        default=Settings.max_words,
        help="most words of the target (default: %(default)s)",
    )
    parser.add_argument("--train", type=Path, required=True, help="training reports (.csv)")
    parser.add_argument("--eval", type=Path, required=True, help="evaluation reports (.csv)")
    parser.add_argument(
        "--rejected", type=Path, required=True, help="dropped reports with their reasons (.csv)"
    )
    parser.add_argument("--funnel", type=Path, required=True, help="counts of each step (.json)")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    settings = Settings(
        inputs=arguments.inputs,
        target=arguments.target,
        eval_reports=arguments.eval_reports,
        eval_fraction=arguments.eval_fraction,
        min_words=arguments.min_words,
        max_words=arguments.max_words,
        seed=arguments.seed,
    )
    raw = from_table(read_table(arguments.raw, RAW_COLUMNS))
    cleaned = prepare_corpus(raw, settings, arguments.image_root)
    write_table(arguments.train, to_table(cleaned.train, COLUMNS))
    write_table(arguments.eval, to_table(cleaned.evaluation, COLUMNS))
    write_table(arguments.rejected, rejected_table(cleaned))
    write_json(arguments.funnel, cleaned.funnel)
    print(show_funnel(cleaned.funnel))
    if cleaned.funnel["unit"] == "report":
        print("the corpus names no patients: split by report", file=sys.stderr)


if __name__ == "__main__":
    run(main)
