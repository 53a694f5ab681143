"""Fetch one file of texts from a dataset repository on the Hugging Face hub, for calibration."""

import argparse
from pathlib import Path

from radquant.calibration.texts import from_hub
from radquant.cli import run
from radquant.files import write_json
from radquant.settings import stages
from radquant.settings.options import parse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--output", type=Path, required=True, metavar="FILE", help="where to write the file")
    add("--record", type=Path, required=True, metavar="JSON", help="its commit and sha256")
    args, settings = parse(parser, stages.FETCH_TEXTS)
    texts = settings.texts
    write_json(args.record, from_hub(texts.id, texts.revision, texts.file, args.output))


if __name__ == "__main__":
    run(main)
