"""How many reports a comparison needs, and what a given number of them can show.

The spread of the paired differences comes from a pilot run (--summary), from a published interval
(--interval and --reports), or is given (--sd).
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from radquant.bounds import between
from radquant.cli import new_parser, run

EXAMPLE = r"""python scripts/sample_size.py --interval -0.016 0.008 --reports 100 \
    --difference 0.003"""


def number(option: str, least: float, most: float) -> Callable[[str], float]:
    return between(option, float, least, most)


def arguments() -> argparse.Namespace:
    parser = new_parser(__doc__, EXAMPLE)
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
        help="true differences of interest",
    )
    add(
        "--confidence",
        type=number("--confidence", 0, 1),
        default=0.95,
        help="1 - the test's level",
    )
    add(
        "--power",
        type=number("--power", 0, 1),
        default=0.8,
        help="chance to find a true difference",
    )
    add(
        "--precisions",
        type=between("--precisions", int, 1, 1000),
        metavar="N",
        help="compared with the original at once; the pilot's own if left out, else 1",
    )
    add(
        "--reports-per-patient",
        type=number("--reports-per-patient", 1, 1e6),
        metavar="K",
        help="of the study that is planned; the pilot's own if left out, else 1",
    )
    add(
        "--icc",
        type=number("--icc", 0, 1),
        metavar="R",
        help="how alike a patient's differences are (intraclass correlation); with "
        "--reports-per-patient, and only if the spread is one of single reports",
    )
    add(
        "--largest-loss",
        type=number("--largest-loss", 1e-6, 1e6),
        default=1.0,
        metavar="X",
        help="that a report can have (the range of F1)",
    )
    return parser.parse_args()


def main() -> None:
    args = arguments()
    from radquant.reporting import sample_size

    sample_size.check_levels(args.confidence, args.power, args.difference)
    known = 1
    if args.summary:
        spreads, known = sample_size.spread_of_pilot(args.summary, args.precision, args.reports)
    else:
        spreads = sample_size.spread_of_numbers(
            args.sd, args.interval, args.reports, args.confidence
        )
    spreads, per_patient = sample_size.planned(spreads, args.reports_per_patient, args.icc)
    plan = sample_size.Plan(
        args.difference,
        args.confidence,
        args.power,
        args.precisions or known,
        per_patient,
        args.largest_loss,
    )
    for line in sample_size.lines(spreads, plan):
        print(line)


if __name__ == "__main__":
    run(main)
