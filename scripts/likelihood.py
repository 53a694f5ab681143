"""Compute the teacher-forced negative log-likelihood of every reference."""

import argparse
import os
from dataclasses import replace
from typing import Any

from radquant.cli import done, new_parser, run
from radquant.generation import stage
from radquant.settings import stages
from radquant.settings.options import parse

EXAMPLE = r"""python scripts/likelihood.py --model models/SmolLM2-awq --precision awq \
    --train train.csv --eval eval.csv --prompt prompts/impression.txt \
    --output nll/awq.parquet --metrics nll/awq.json"""


def arguments() -> tuple[argparse.Namespace, Any]:
    parser = new_parser(__doc__, EXAMPLE)
    stage.add_arguments(parser)
    stage.add_features(parser)
    stage.add_engine_python(parser)
    return parse(parser, stages.LIKELIHOOD)


def main() -> None:
    args, settings = arguments()
    os.environ["HF_HUB_OFFLINE"] = "1"
    reading = stage.read(args, settings)
    wanted = replace(stage.wanted_of(args, settings), python=args.engine_python)

    from radquant.files import write_json, write_table
    from radquant.generation.joined_likelihood import told
    from radquant.generation.likelihood import likelihood

    engine, batch_size = settings.compute.engine, settings.generation.batch_size
    table, record = likelihood(engine, wanted, reading, args.precision, batch_size)
    write_table(args.output, table)
    write_json(args.metrics, record)
    done(args.output, told(table["nll"].tolist(), table["tokens"].tolist()))


if __name__ == "__main__":
    run(main)
