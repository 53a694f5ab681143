"""Let a model write the reports of one shard, greedily, and measure what that costs."""

import argparse
import os
from dataclasses import replace
from pathlib import Path

from radquant.cli import run
from radquant.generation import stage


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    stage.add_arguments(parser)
    parser.add_argument(
        "--reports",
        type=int,
        metavar="N",
        help="write the first N reports of --eval only (default: all)",
    )
    parser.add_argument("--shard", type=int, default=1, metavar="I", help="from 1 (%(default)s)")
    parser.add_argument("--shards", type=int, default=1, metavar="N", help="of N (%(default)s)")
    parser.add_argument(
        "--max-new-tokens",
        type=int,
        default=128,
        metavar="M",
        help="most tokens of an output (%(default)s)",
    )
    parser.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="STRING",
        help="string that ends an output and is not part of it; may be given again",
    )
    parser.add_argument(
        "--vllm-python",
        type=Path,
        metavar="FILE",
        help="for engine vllm: the Python of the environment that has it (docs/serving.md)",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="PARQUET", help="outputs")
    parser.add_argument("--metrics", type=Path, required=True, metavar="JSON", help="measures")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    os.environ["HF_HUB_OFFLINE"] = "1"
    reading = stage.read(args, args.reports)
    wanted = replace(stage.wanted_of(args), python=args.vllm_python)

    from radquant.files import write_json, write_table
    from radquant.generation.generate import Writing, generate

    writing = Writing(
        precision=args.precision,
        batch_size=args.batch_size,
        max_new_tokens=args.max_new_tokens,
        stop=tuple(args.stop),
        shard=args.shard,
        shards=args.shards,
    )
    table, record = generate(args.engine, wanted, reading, writing)
    write_table(args.output, table)
    write_json(args.metrics, record)


if __name__ == "__main__":
    run(main)
