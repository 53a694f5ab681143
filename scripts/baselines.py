"""Write the outputs of the systems without a model: copied input, best constant, nearest text."""

import argparse
from pathlib import Path

from radquant.cli import run
from radquant.corpus.evaluation import written_reports
from radquant.corpus.marks import same_id
from radquant.errors import UserError
from radquant.files import read_table, write_table
from radquant.scoring.baselines import constant, copy_input, nearest
from radquant.settings import stages
from radquant.settings.options import parse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=Path, required=True, help="training reports (.csv)")
    parser.add_argument("--eval", type=Path, required=True, help="evaluation reports (.csv)")
    parser.add_argument("--copy-output", type=Path, required=True, help="copied input (.parquet)")
    parser.add_argument("--constant-output", type=Path, required=True, help="constant (.parquet)")
    parser.add_argument(
        "--nearest-output", type=Path, required=True, help="nearest training texts (.parquet)"
    )
    arguments, settings = parse(parser, stages.BASELINES)
    inputs, target = settings.task.inputs, settings.task.target

    train = read_table(arguments.train, ["id", *inputs, target])
    held_out = read_table(arguments.eval, ["id", *inputs])
    # Else the constant or the nearest text could be the reference of a report to evaluate.
    if both := set(map(same_id, train["id"])) & set(map(same_id, held_out["id"])):
        raise UserError(
            f"report {min(both)} is both a training report and one to evaluate; "
            f"{arguments.train} and {arguments.eval} must not overlap"
        )
    evaluation = written_reports(held_out, settings.generation.reports, arguments.eval)
    write_table(arguments.copy_output, copy_input(evaluation, inputs))
    seed = settings.run.seed
    write_table(arguments.constant_output, constant(evaluation, train, target, seed))
    write_table(arguments.nearest_output, nearest(evaluation, train, inputs, target, seed))


if __name__ == "__main__":
    run(main)
