"""Say what differs between two finished runs, which outputs, likelihoods and scores moved, and why.

Reports are paired by their ids, and no report text is printed. Runs that differ are no error.
"""

import argparse
from pathlib import Path

from radquant.cli import new_parser, run

EXAMPLE = "python scripts/compare_runs.py results /mnt/other-machine/results"


def arguments() -> argparse.Namespace:
    parser = new_parser(__doc__, EXAMPLE)
    parser.add_argument("a", type=Path, metavar="A", help="results folder of a finished run")
    parser.add_argument("b", type=Path, metavar="B", help="results folder of the other")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    from radquant.reporting.comparison import render
    from radquant.reporting.sides import read_side

    print(render(read_side(args.a), read_side(args.b)))


if __name__ == "__main__":
    run(main)
