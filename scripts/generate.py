"""Let a model write the reports of one shard, greedily, and measure what that costs.

On request it also scores the references, by the same model and, where it can, the same reading.
"""

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from radquant.bounds import between
from radquant.cli import done, new_parser, run
from radquant.errors import UserError
from radquant.generation import stage
from radquant.settings import stages
from radquant.settings.options import parse

EXAMPLE = r"""python scripts/generate.py --model models/SmolLM2-awq --precision awq \
    --train train.csv --eval eval.csv --prompt prompts/impression.txt \
    --output generated/awq.parquet --metrics generated/awq.json"""


def arguments() -> tuple[argparse.Namespace, Any]:
    parser = new_parser(__doc__, EXAMPLE)
    stage.add_arguments(parser)
    parser.add_argument(
        "--shard",
        type=between("--shard", int, 1, 1e6),
        default=1,
        metavar="I",
        help="which shard, from 1",
    )
    add_likelihood(parser)
    stage.add_features(parser)
    stage.add_engine_python(parser)
    return parse(parser, stages.GENERATE)


def add_likelihood(parser: argparse.ArgumentParser) -> None:
    help_text = "table to write of how likely this shard's references are, if they are to be scored"
    parser.add_argument("--likelihood", type=Path, metavar="PARQUET", help=help_text)
    help_text = "record to write of what scoring took beside writing"
    parser.add_argument("--likelihood-metrics", type=Path, metavar="JSON", help=help_text)


def main() -> None:
    args, settings = arguments()
    if (args.likelihood is None) != (args.likelihood_metrics is None):
        raise UserError("--likelihood and --likelihood-metrics go together; give both or neither")
    os.environ["HF_HUB_OFFLINE"] = "1"
    reading = stage.read(args, settings, settings.generation.reports)
    wanted = replace(stage.wanted_of(args, settings), python=args.engine_python)

    from radquant.files import write_json, write_table
    from radquant.generation.generate import Writing, generate, generate_and_score

    writing = Writing(
        precision=args.precision,
        batch_size=settings.generation.batch_size,
        max_new_tokens=settings.generation.max_new_tokens,
        stop=settings.generation.stop,
        shard=args.shard,
        shards=settings.generation.shards,
    )
    engine = settings.compute.engine
    if args.likelihood is None:
        table, record = generate(engine, wanted, reading, writing)
    else:
        both = generate_and_score(engine, wanted, reading, writing)
        (table, record), (likelihoods, scoring) = both
        write_table(args.likelihood, likelihoods)
        write_json(args.likelihood_metrics, scoring)
    write_table(args.output, table)
    write_json(args.metrics, record)
    cut = (table["finish_reason"] == "length").sum()
    done(args.output, f"{len(table)} reports, {cut} of them cut off at the token limit")


if __name__ == "__main__":
    run(main)
