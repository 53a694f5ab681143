"""Fetch a RadGraph model and its text encoder on a connected machine, for one that is not.

The folder is what `scoring: radgraph: directory:` of a configuration, or annotate.py's
--radgraph-directory, names. Downloads go through the user's own Hugging Face cache.
"""

import argparse
from pathlib import Path

from radquant.cli import done, new_parser, run, size_of
from radquant.files import read_json
from radquant.scoring.radgraph_fetching import fetch
from radquant.settings.scoring import RADGRAPH_MODELS, RadGraph

EXAMPLE = "python scripts/fetch_radgraph.py --model radgraph-xl --output radgraph"


def arguments() -> argparse.Namespace:
    parser = new_parser(__doc__, EXAMPLE)
    parser.add_argument(
        "--model",
        choices=RADGRAPH_MODELS,
        default=RadGraph().model,
        help="which published model",
    )
    parser.add_argument(
        "--revision",
        default="main",
        help="commit of the archive's repository; of a branch, the commit is found and recorded",
    )
    parser.add_argument(
        "--encoder-revision",
        default="main",
        help="commit of the text encoder's repository, in the same way",
    )
    parser.add_argument(
        "--sha256", metavar="HEX", help="sha256 that the archive must have, from a source.json"
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="folder to write into"
    )
    return parser.parse_args()


def main() -> None:
    options = arguments()
    fetch(options.model, options.revision, options.encoder_revision, options.sha256, options.output)
    record = read_json(options.output / "source.json")[options.model]
    for part in ("model", "encoder"):
        print(f"{part}: {record[part]['repository']} at {record[part]['revision']}")
    print(f"sha256 of {record['model']['archive']}: {record['model']['sha256']}")
    done(options.output / options.model, size_of(options.output / options.model))


if __name__ == "__main__":
    run(main)
