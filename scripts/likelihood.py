"""Compute the teacher-forced negative log-likelihood of every reference."""

import argparse
import os
from pathlib import Path

from radquant.cli import run
from radquant.generation import stage


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    stage.add_arguments(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="PARQUET", help="likelihoods")
    parser.add_argument("--metrics", type=Path, required=True, metavar="JSON", help="measures")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    os.environ["HF_HUB_OFFLINE"] = "1"
    reading = stage.read(args)
    wanted = stage.wanted_of(args)

    from radquant.files import write_json, write_table
    from radquant.generation.likelihood import likelihood

    table, record = likelihood(args.engine, wanted, reading, args.precision, args.batch_size)
    write_table(args.output, table)
    write_json(args.metrics, record)


if __name__ == "__main__":
    run(main)
