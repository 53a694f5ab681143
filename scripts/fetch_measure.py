"""Fetch a measure's weights from the Hugging Face hub into a folder that needs no network."""

import argparse
import re
from pathlib import Path

from radquant.cli import run
from radquant.errors import UserError
from radquant.scoring.measure_fetching import WITH_FOLDERS, fetch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
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
    args = parser.parse_args()
    revisions = {}
    for given in args.revision:
        part, is_given, commit = given.rpartition("=")
        if not is_given or not re.fullmatch("[0-9a-f]{40}", commit):
            raise UserError(f"--revision {given} is not PART=COMMIT, with a commit of 40 digits")
        revisions[part] = commit
    for line in fetch(args.measure, revisions, args.output):
        print(line)


if __name__ == "__main__":
    run(main)
