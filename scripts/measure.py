"""Score the outputs of one system by a measure that needs data or a model of its own."""

import argparse

from radquant import registry
from radquant.cli import run
from radquant.files import write_table
from radquant.scoring.measures.tables import measured
from radquant.settings import stages
from radquant.settings.options import parse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--measure", required=True, choices=list(registry.MEASURES), help="which measure"
    )
    parser.add_argument("--eval", required=True, help="eval.csv, the evaluation reports")
    parser.add_argument(
        "--generations", required=True, nargs="+", help="the system's outputs, all shards"
    )
    parser.add_argument("--output", required=True, help="table to write (.parquet or .csv)")
    options, settings = parse(parser, stages.MEASURE)
    # Perhaps in an environment of its own, where only this measure can be loaded.
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
    print(", ".join(f"{name} {value:.4f}" for name, value in means.items()), "by", loaded.identity)


if __name__ == "__main__":
    run(main)
