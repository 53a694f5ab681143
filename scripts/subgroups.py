"""Read the columns by which the evaluated reports are divided into subgroups (subgroups.csv)."""

import argparse
from pathlib import Path

from radquant.cli import done, new_parser, run
from radquant.corpus.attributes import attributes
from radquant.corpus.fetching import source_of
from radquant.files import read_json, read_table, write_table
from radquant.settings.configuration import resolve

EXAMPLE = r"""python scripts/subgroups.py --config results/config.json \
    --eval results/data/eval.csv --output subgroups.csv"""


def arguments() -> argparse.Namespace:
    parser = new_parser(__doc__, EXAMPLE)
    add = parser.add_argument
    add("--config", type=Path, required=True, help="the run's resolved configuration (config.json)")
    add("--eval", type=Path, required=True, help="the evaluation reports (eval.csv)")
    add("--output", type=Path, required=True, help="the table to write (.csv)")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    settings = resolve(read_json(args.config))
    divisions = {
        name: division
        for name, division in settings.statistics.subgroups.items()
        if division.column
    }
    evaluation = read_table(args.eval, ["id", "study", "group"])
    table = attributes(evaluation, divisions, source_of(settings.corpus, None))
    write_table(args.output, table)
    done(args.output, f"{len(divisions)} divisions of {len(table)} reports")


if __name__ == "__main__":
    run(main)
