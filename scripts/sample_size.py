"""How many reports a comparison needs, and what a given number of them can show.

The spread of the paired differences comes from a pilot run (--summary), from a published interval
(--interval and --reports), or is given (--sd).
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from radquant.bounds import between
from radquant.cli import run

EXAMPLE = "example: sample_size.py --interval -0.016 0.008 --reports 100 --difference 0.003"


def number(option: str, least: float, most: float) -> Callable[[str], float]:
    return between(option, float, least, most)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE)
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--sd", type=number("--sd", 0, 1e6), help="standard deviation of the paired differences"
    )
    source.add_argument(
        "--interval",
        type=number("--interval", -1e6, 1e6),
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="of the mean difference, at --confidence; needs --reports",
    )
    source.add_argument(
        "--summary", type=Path, metavar="JSON", help="summary.json of a finished run (a pilot)"
    )
    add("--precision", help="with --summary: which one; all of them without it")
    add(
        "--reports",
        type=between("--reports", int, 0, 1e12),
        metavar="N",
        help="reports compared; the pilot's own if left out",
    )
    add(
        "--difference",
        type=number("--difference", -1e6, 1e6),
        nargs="+",
        default=[0.01],
        metavar="X",
        help="true differences of interest (%(default)s)",
    )
    add(
        "--confidence",
        type=number("--confidence", 0, 1),
        default=0.95,
        help="1 - the test's level (%(default)s)",
    )
    add(
        "--power",
        type=number("--power", 0, 1),
        default=0.8,
        help="chance to find a true difference (%(default)s)",
    )
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    from radquant.reporting import sample_size

    sample_size.check_levels(args.confidence, args.power, args.difference)
    if args.summary:
        spreads = sample_size.spread_of_pilot(args.summary, args.precision, args.reports)
    else:
        spreads = sample_size.spread_of_numbers(
            args.sd, args.interval, args.reports, args.confidence
        )
    for line in sample_size.lines(spreads, args.difference, args.confidence, args.power):
        print(line)


if __name__ == "__main__":
    run(main)
