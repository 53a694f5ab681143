"""How many reports a comparison needs, and what a given number of them can show.

The spread of the paired differences comes from a pilot run (--summary), from a published interval
(--interval and --reports), or is given (--sd).
"""

import argparse
from pathlib import Path

from radquant.cli import run
from radquant.errors import UserError
from radquant.files import read_json

EXAMPLE = "example: sample_size.py --interval -0.016 0.008 --reports 100 --difference 0.003"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE)
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--sd", type=float, help="standard deviation of the paired differences")
    source.add_argument(
        "--interval",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="of the mean difference, at --confidence; needs --reports",
    )
    source.add_argument(
        "--summary", type=Path, metavar="JSON", help="summary.json of a finished run (a pilot)"
    )
    add("--precision", help="with --summary: which one; all of them without it")
    add("--reports", type=int, metavar="N", help="reports compared; the pilot's own if left out")
    add(
        "--difference",
        type=float,
        nargs="+",
        default=[0.01],
        metavar="X",
        help="true differences of interest (%(default)s)",
    )
    add("--confidence", type=float, default=0.95, help="1 - the test's level (%(default)s)")
    add("--power", type=float, default=0.8, help="chance to find a true difference (%(default)s)")
    return parser.parse_args()


def spreads(args: argparse.Namespace) -> dict[str, tuple[float, int]]:
    """Standard deviation of the differences and number of reports, by name."""
    from radquant import statistics

    if args.summary is None:
        if args.reports is None or args.reports < 2:
            raise UserError("--reports is missing or below 2: how many reports were compared?")
        if args.sd is not None:
            sd = args.sd
        else:
            sd = statistics.implied_sd(*args.interval, args.reports, args.confidence)
        return {"": (sd, args.reports)}
    quality = read_json(args.summary)["quality"]
    rows = quality["differences"][quality["settings"]["primary"]]
    if args.precision is not None and args.precision not in rows:
        raise UserError(
            f"{args.summary} has no precision {args.precision!r}; it has {', '.join(rows)}"
        )
    names = rows if args.precision is None else [args.precision]
    return {name: (rows[name]["sd"], args.reports or rows[name]["n"]) for name in names}


def main() -> None:
    args = parse()
    from radquant import statistics

    alpha = 1 - args.confidence
    for value, name in ((args.confidence, "--confidence"), (args.power, "--power")):
        if not 0 < value < 1:
            raise UserError(f"{name} {value} does not lie between 0 and 1")
    if min(args.difference) <= 0:
        raise UserError("--difference must be above 0: the test is two-sided")
    for name, (sd, reports) in spreads(args).items():
        if name:
            print(f"{name}:")
        if sd <= 0:
            print("  all differences are equal: nothing to estimate a spread from")
            continue
        detectable = statistics.detectable_difference(reports, sd, alpha, args.power)
        print(f"  standard deviation of the differences: {sd:.4f}")
        print(f"  {reports:,} reports find a true difference of {detectable:.4f} or more")
        for difference in args.difference:
            needed = statistics.pairs_needed(difference, sd, alpha, args.power)
            chance = statistics.chance_difference(difference, sd, reports)
            print(
                f"  {difference:g}: takes {needed:,} reports; two equal models differ as much in "
                f"{100 * chance:.0f} % of comparisons of {reports:,} reports"
            )


if __name__ == "__main__":
    run(main)
