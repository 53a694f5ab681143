"""Read the columns by which the evaluated reports are divided into subgroups (subgroups.csv)."""

import argparse
from pathlib import Path

from radquant.cli import run
from radquant.corpus.attributes import attributes
from radquant.corpus.fetching import source_of
from radquant.files import read_json, read_table, write_table
from radquant.settings.configuration import resolve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--config", type=Path, required=True, help="the run's resolved configuration (config.json)")
    add("--eval", type=Path, required=True, help="the evaluation reports (eval.csv)")
    add("--output", type=Path, required=True, help="the table to write (.csv)")
    args = parser.parse_args()
    settings = resolve(read_json(args.config))
    divisions = {
        name: division
        for name, division in settings.statistics.subgroups.items()
        if division.column
    }
    evaluation = read_table(args.eval, ["id", "study", "group"])
    table = attributes(evaluation, divisions, source_of(settings.corpus, None))
    write_table(args.output, table)


if __name__ == "__main__":
    run(main)
