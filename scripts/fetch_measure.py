"""Fetch a measure's weights from the Hugging Face hub into a folder that needs no network."""

import argparse
import re
from pathlib import Path

from radquant.cli import done, new_parser, run, size_of
from radquant.errors import UserError
from radquant.scoring.measure_fetching import WITH_FOLDERS, fetch

EXAMPLE = r"""python scripts/fetch_measure.py chexbert \
    --revision weights=0123456789abcdef0123456789abcdef01234567 \
    --output chexbert"""


def arguments() -> argparse.Namespace:
    parser = new_parser(__doc__, EXAMPLE)
    add = parser.add_argument
    add("measure", choices=sorted(WITH_FOLDERS), help="which measure")
    add(
        "--revision",
        action="append",
        default=[],
        metavar="PART=COMMIT",
        help="the commit of a part's repository; one for each part that comes from the hub",
    )
    add("--output", type=Path, required=True, metavar="DIR", help="folder to write into")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    revisions = {}
    for given in args.revision:
        part, is_given, commit = given.rpartition("=")
        if not is_given or not re.fullmatch("[0-9a-f]{40}", commit):
            raise UserError(f"--revision {given} is not PART=COMMIT, with a commit of 40 digits")
        revisions[part] = commit
    for line in fetch(args.measure, revisions, args.output):
        print(line)
    done(args.output, size_of(args.output))


if __name__ == "__main__":
    run(main)
