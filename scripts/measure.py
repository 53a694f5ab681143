"""Score the outputs of one system by a measure that needs data or a model of its own."""

import argparse
from typing import Any

from radquant import registry
from radquant.cli import done, new_parser, run
from radquant.files import write_table
from radquant.scoring.measures.tables import measured
from radquant.settings import stages
from radquant.settings.options import parse

EXAMPLE = r"""python scripts/measure.py --measure meteor --meteor-directory wordnet \
    --eval eval.csv --generations generated/awq.parquet \
    --output meteor.parquet"""


def arguments() -> tuple[argparse.Namespace, Any]:
    parser = new_parser(__doc__, EXAMPLE)
    parser.add_argument(
        "--measure", required=True, choices=list(registry.MEASURES), help="which measure"
    )
    parser.add_argument("--eval", required=True, help="eval.csv, the evaluation reports")
    parser.add_argument(
        "--generations", required=True, nargs="+", help="the system's outputs, all shards"
    )
    parser.add_argument("--output", required=True, help="table to write (.parquet or .csv)")
    return parse(parser, stages.MEASURE)


def main() -> None:
    options, settings = arguments()
    # This may run in an environment of its own, where only this measure can be loaded.
    kind = registry.load_kind(registry.MEASURES, options.measure)
    own = getattr(settings.scoring, options.measure).model_dump()
    loaded = kind.load(own, settings.compute.threads)
    table = measured(
        kind.ABOUT.columns,
        loaded,
        options.eval,
        settings.task.target,
        options.generations,
        settings.generation.reports,
    )
    write_table(options.output, table)
    means = table[[column.name for column in kind.ABOUT.columns]].mean()
    told = ", ".join(f"{name} {value:.4f}" for name, value in means.items())
    done(options.output, f"{len(table)} reports, {told} by {loaded.identity}")


if __name__ == "__main__":
    run(main)
