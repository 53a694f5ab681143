"""Fetch one file of texts from a dataset repository on the Hugging Face hub, for calibration."""

import argparse
from pathlib import Path

from radquant.calibration.texts import from_hub
from radquant.cli import run
from radquant.files import write_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--hub", required=True, metavar="ID", help="the dataset, e.g. Salesforce/wikitext")
    add("--revision", required=True, help="its commit (a tag or a branch may change)")
    add("--file", required=True, metavar="PATH", help="path of the file in the dataset repository")
    add("--output", type=Path, required=True, metavar="FILE", help="where to write the file")
    add("--record", type=Path, required=True, metavar="JSON", help="its commit and sha256")
    args = parser.parse_args()
    write_json(args.record, from_hub(args.hub, args.revision, args.file, args.output))


if __name__ == "__main__":
    run(main)
