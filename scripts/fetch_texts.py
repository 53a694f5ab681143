"""Fetch one file of texts from a dataset repository on the Hugging Face hub, for calibration."""

import argparse
from pathlib import Path
from typing import Any

from radquant.calibration.texts import from_hub
from radquant.cli import done, new_parser, run, size_of
from radquant.files import write_json
from radquant.settings import stages
from radquant.settings.options import parse

EXAMPLE = r"""python scripts/fetch_texts.py --hub Salesforce/wikitext --revision main \
    --file wikitext-2-raw-v1/test-00000-of-00001.parquet \
    --output texts.parquet --record texts.json"""


def arguments() -> tuple[argparse.Namespace, Any]:
    parser = new_parser(__doc__, EXAMPLE)
    add = parser.add_argument
    add("--output", type=Path, required=True, metavar="FILE", help="where to write the file")
    add("--record", type=Path, required=True, metavar="JSON", help="its commit and sha256")
    return parse(parser, stages.FETCH_TEXTS)


def main() -> None:
    args, settings = arguments()
    texts = settings.texts
    write_json(args.record, from_hub(texts.id, texts.revision, texts.file, args.output))
    done(args.output, size_of(args.output))


if __name__ == "__main__":
    run(main)
