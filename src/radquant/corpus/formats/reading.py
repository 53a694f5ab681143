"""What several formats do with what they read."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from radquant.cli import progress
from radquant.corpus.files.encoding import UTF8, decode
from radquant.corpus.files.markup import check_text
from radquant.corpus.files.rows import Row
from radquant.corpus.formats.kind import Source
from radquant.corpus.heading_names import Declared
from radquant.corpus.marks import Notes, meant, missing_mark, same_id
from radquant.corpus.reports import SECTIONS, Report, check_ids
from radquant.corpus.sections import find_sections
from radquant.corpus.tables import cell
from radquant.errors import UserError

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    # A validation split is for choosing a model, which a comparison of precisions never does.
    **dict.fromkeys(("validate", "validation", "valid", "val", "dev"), "train"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "eval"),
    "": "",
}
FILES = "text files"
_SHORTENED = re.compile(r"\d(?:[.,]\d+)?[eE]\+\d+")


def report_from_text(identifier: str, text: str, where: str, source: Source) -> Report:
    """source: whose declared headings count, and whose notes are written."""
    sections = sections_of(text, SECTIONS, source.headings, source.notes)
    return Report(id=identifier, text=text, where=where, **sections)


def sections_of(
    text: str,
    names: Sequence[str],
    headings: Declared | None = None,
    notes: Notes | None = None,
) -> dict[str, str]:
    """Return sections of a text by name; one that is a mark for no value ("FINDINGS: nan", which a
    program put together) is ''."""
    found = find_sections(text, headings)
    sections = {name: getattr(found, name) for name in names}
    for name, section in sections.items():
        mark = missing_mark(section, says_none=name in ("indication", "comparison"))
        if mark is not None:
            sections[name] = ""
            if notes is not None:
                notes["missing", name, mark] += 1
    return sections


def id_cell(row: Mapping[str, str], column: str, place: str, source: Source) -> str:
    """Return the id in a cell in the form in which ids are compared."""
    value = same_id(cell(row, column, place, source.notes))
    if any(ord(character) < 32 for character in value):
        raise UserError(f"{place}: column {column!r} holds a control character; take it out")
    if _SHORTENED.fullmatch(value):
        raise UserError(
            f"{place}: column {column!r} is a number that a spreadsheet shortened; export the ids "
            "as text"
        )
    # "-" and "?" stand for a missing id.
    return value if any(map(str.isalnum, value)) else ""


def text_cell(
    row: Mapping[str, str], column: str, place: str, source: Source, says_none: bool = False
) -> str:
    """Return the text in a cell, with line breaks where exporters' marks for them stand."""
    value = cell(row, column, place, source.notes, says_none)
    text = meant(value, source.notes, column)
    check_text(text, place, column)
    return text


def text_file(data: bytes, place: str, source: Source) -> str:
    """Return the text of a file that is one report; see `text_cell`."""
    text, encoding = decode(data, place, source.encoding)
    if encoding != UTF8:
        source.notes["read as", FILES, encoding] += 1
    check_text(text, place)
    return meant(text, source.notes, FILES)


def refuse_separator(source: Source, name: str) -> None:
    if source.separator:
        raise UserError(f"the format {name} has no cells to separate; remove corpus.separator")


def split_of(value: str, place: str) -> str:
    """Return 'train', 'eval' or '' for what a corpus calls a split."""
    name = value.strip().lower()
    if name not in SPLITS:
        shown = ", ".join(filter(None, SPLITS))
        raise UserError(f"{place}: the split is none of {shown}")
    return SPLITS[name]


def with_progress(rows: Iterator[Row]) -> Iterator[Row]:
    """Yield the rows, with progress; they are counted first, so they are all held in memory."""
    held = list(rows)
    return progress(held, "reading", len(held), "reports")


def checked(reports: list[Report], name: str | Path) -> list[Report]:
    """Return `reports`; raises UserError if there is none, or two have one id."""
    if not reports:
        raise UserError(f"{name} holds no report; check the path and the corpus's format")
    check_ids(reports)
    return reports
