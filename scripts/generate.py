"""Let a model write the reports of one shard, greedily, and measure what that costs."""

import argparse
import os
from dataclasses import replace
from typing import Any

from radquant.bounds import between
from radquant.cli import run
from radquant.generation import stage
from radquant.settings import stages
from radquant.settings.options import parse


def arguments() -> tuple[argparse.Namespace, Any]:
    parser = argparse.ArgumentParser(description=__doc__)
    stage.add_arguments(parser)
    parser.add_argument(
        "--shard",
        type=between("--shard", int, 1, 1e6),
        default=1,
        metavar="I",
        help="from 1 (%(default)s)",
    )
    stage.add_features(parser)
    stage.add_engine_python(parser)
    return parse(parser, stages.GENERATE)


def main() -> None:
    args, settings = arguments()
    os.environ["HF_HUB_OFFLINE"] = "1"
    reading = stage.read(args, settings, settings.generation.reports)
    wanted = replace(stage.wanted_of(args, settings), python=args.engine_python)

    from radquant.files import write_json, write_table
    from radquant.generation.generate import Writing, generate

    writing = Writing(
        precision=args.precision,
        batch_size=settings.generation.batch_size,
        max_new_tokens=settings.generation.max_new_tokens,
        stop=settings.generation.stop,
        shard=args.shard,
        shards=settings.generation.shards,
    )
    table, record = generate(settings.compute.engine, wanted, reading, writing)
    write_table(args.output, table)
    write_json(args.metrics, record)


if __name__ == "__main__":
    run(main)
