"""Write the outputs of the two systems without a model: the copied input and the best constant."""

import argparse
from pathlib import Path

from radquant.cli import run
from radquant.corpus.evaluation import written_reports
from radquant.files import read_table, write_table
from radquant.scoring.baselines import constant, copy_input


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=Path, required=True, help="training reports (.csv)")
    parser.add_argument("--eval", type=Path, required=True, help="evaluation reports (.csv)")
    parser.add_argument(
        "--input",
        nargs="*",
        default=[],
        metavar="COLUMN",
        help="columns to copy as the output (default: none, which leaves it empty)",
    )
    parser.add_argument("--target", required=True, help="the column that the constant stands for")
    parser.add_argument("--seed", type=int, required=True, help="draws the constant's test sample")
    parser.add_argument(
        "--reports",
        type=int,
        metavar="N",
        help="write the first N reports of --eval only (default: all)",
    )
    parser.add_argument("--copy-output", type=Path, required=True, help="copied input (.parquet)")
    parser.add_argument("--constant-output", type=Path, required=True, help="constant (.parquet)")
    arguments = parser.parse_args()

    train = read_table(arguments.train, ["id", arguments.target])
    evaluation = written_reports(
        read_table(arguments.eval, ["id", *arguments.input]), arguments.reports, arguments.eval
    )
    write_table(arguments.copy_output, copy_input(evaluation, arguments.input))
    write_table(
        arguments.constant_output, constant(evaluation, train, arguments.target, arguments.seed)
    )


if __name__ == "__main__":
    run(main)
