"""Put together the likelihoods of the references that the jobs of a precision's shards left."""

import argparse
from pathlib import Path

from radquant.cli import done, new_parser, run

EXAMPLE = r"""python scripts/join_likelihood.py --eval eval.csv \
    --shards nll-1.parquet nll-2.parquet --output nll.parquet \
    --metrics nll.json"""


def arguments() -> argparse.Namespace:
    parser = new_parser(__doc__, EXAMPLE)
    add = parser.add_argument
    add("--eval", type=Path, required=True, metavar="CSV", help="reports to evaluate")
    help_text = "tables that generate.py wrote with --likelihood, with their records beside them"
    add("--shards", type=Path, required=True, nargs="+", metavar="PARQUET", help=help_text)
    add("--output", type=Path, required=True, metavar="PARQUET", help="table to write")
    add("--metrics", type=Path, required=True, metavar="JSON", help="record of measures to write")
    return parser.parse_args()


def main() -> None:
    args = arguments()

    from radquant.files import write_json
    from radquant.generation.joined_likelihood import join, joined, likelihoods, told

    record = joined([path.with_suffix(".json") for path in args.shards])
    join(args.shards, args.eval, args.output)
    write_json(args.metrics, record)
    done(args.output, told(*likelihoods(args.output)))


if __name__ == "__main__":
    run(main)
