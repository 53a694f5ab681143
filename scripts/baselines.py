"""Write the outputs of the systems without a model: copied input, best constant, nearest text."""

import argparse
from pathlib import Path
from typing import Any

from radquant.cli import done, new_parser, run
from radquant.corpus.evaluation import written_reports
from radquant.corpus.marks import same_id
from radquant.errors import UserError
from radquant.files import read_table, write_table
from radquant.meant import split
from radquant.scoring.baselines import constant, copy_input, nearest
from radquant.settings import stages
from radquant.settings.options import parse

EXAMPLE = r"""python scripts/baselines.py --train results/data/train.csv \
    --eval results/data/eval.csv --copy-output copy.parquet \
    --constant-output constant.parquet --nearest-output nearest.parquet"""


def arguments() -> tuple[argparse.Namespace, Any]:
    parser = new_parser(__doc__, EXAMPLE)
    parser.add_argument("--train", type=split, required=True, help="training reports (.csv)")
    parser.add_argument("--eval", type=split, required=True, help="evaluation reports (.csv)")
    parser.add_argument("--copy-output", type=Path, required=True, help="copied input (.parquet)")
    parser.add_argument("--constant-output", type=Path, required=True, help="constant (.parquet)")
    parser.add_argument(
        "--nearest-output", type=Path, required=True, help="nearest training texts (.parquet)"
    )
    return parse(parser, stages.BASELINES)


def main() -> None:
    args, settings = arguments()
    inputs, target, seed = settings.task.inputs, settings.task.target, settings.run.seed

    train = read_table(args.train, ["id", *inputs, target])
    held_out = read_table(args.eval, ["id", *inputs])
    # Without this check, the constant or the nearest text could be the reference of a report to
    # evaluate.
    if both := set(map(same_id, train["id"])) & set(map(same_id, held_out["id"])):
        raise UserError(
            f"report {min(both)} is both a training report and one to evaluate; "
            f"{args.train} and {args.eval} must not overlap"
        )
    evaluation = written_reports(held_out, settings.generation.reports, args.eval)
    write_table(args.copy_output, copy_input(evaluation, inputs))
    write_table(args.constant_output, constant(evaluation, train, target, seed))
    write_table(args.nearest_output, nearest(evaluation, train, inputs, target, seed))
    for path in (args.copy_output, args.constant_output, args.nearest_output):
        done(path, f"{len(evaluation)} reports")


if __name__ == "__main__":
    run(main)
