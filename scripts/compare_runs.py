"""Say what differs between two finished runs, which outputs, likelihoods and scores moved, and why.

Reports are paired by their ids, and no report text is printed. Runs that differ are no error.
"""

import argparse
from pathlib import Path

from radquant.cli import run


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="example: compare_runs.py results /mnt/other-machine/results"
    )
    parser.add_argument("a", type=Path, metavar="A", help="results folder of a finished run")
    parser.add_argument("b", type=Path, metavar="B", help="results folder of the other")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    from radquant.reporting.comparison import render
    from radquant.reporting.sides import read_side

    print(render(read_side(arguments.a), read_side(arguments.b)))


if __name__ == "__main__":
    run(main)
