"""Format table: one table of reports, or one for training and one for evaluation."""

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from radquant.corpus.files.header import need_column, shown_names
from radquant.corpus.formats.kind import Source
from radquant.corpus.formats.reading import (
    checked,
    id_cell,
    sections_of,
    split_of,
    text_cell,
    with_progress,
)
from radquant.corpus.reports import SECTIONS, Report, compose
from radquant.corpus.tables import cell, open_table
from radquant.errors import UserError
from radquant.image_files import SEPARATOR, image_names

DESCRIPTION = (
    "One CSV, JSONL, Parquet or `.xlsx` file (`path`), or two (`train`, `eval`), with a `text` "
    "column or with `findings` and `impression`. Columns `group` and `split`, where there are any, "
    "name patient and split."
)
SOURCES = ("path", "train and eval")
COLUMNS = True
SPLIT_FILE = False
HEADINGS = True
IMAGES = "reports"

IDS = ("id", "group", "study")
FIELDS = (*IDS, "text", *SECTIONS, "split")
# Which columns of a table are taken for a field that the user did not name.
_USUAL = {
    "id": ("id", "study_id", "study"),
    "group": ("group", "patient", "patient_id", "subject_id"),
    "study": ("study", "study_id"),
    "text": ("text", "report"),
}


def read(source: Source) -> list[Report]:
    """Of two tables the file is the split.

    A field that `source.columns` does not name is taken from a column of that name, but images
    never. Other usual names count, too: study_id or study for id, and patient, patient_id or
    subject_id for group. For text it is report. Case, spaces and underscores do not count. Sections
    without a column are found in the text. Text without a column is put together from the sections.
    Without an id, "row-N" numbers the records.
    """
    if source.path is not None:
        return checked(_table(source.path, source, ""), source.path)
    assert source.train is not None
    assert source.eval is not None
    first = _table(source.train, source, "train")
    second = _table(source.eval, source, "eval")
    for name, found in ((source.train, first), (source.eval, second)):
        if not found:
            raise UserError(f"{name} holds no report; check the file")
    return checked(first + second, source.train)


def look(source: Source) -> None:
    for path in (source.path, source.train, source.eval):
        if path is not None and os.path.exists(path):
            table = open_table(path, source.separator, source.encoding, whole=False)
            if table.certain:
                _choose_columns(table.columns, source, path)


def _table(path: Path, source: Source, split: str) -> list[Report]:
    table = open_table(path, source.separator, source.encoding, source.notes)
    columns = _choose_columns(table.columns, source, path)
    from_text = [name for name in SECTIONS if name not in columns]
    reports = []
    for number, (place, row) in enumerate(with_progress(table.rows([*set(columns.values())])), 1):
        fields = {
            field: _field(field, column, row, place, source) for field, column in columns.items()
        }
        fields.setdefault("id", numbered(split, number))
        fields["split"] = split or split_of(fields.get("split", ""), place)
        fields["images"] = SEPARATOR.join(image_names(fields.get("images", "")))
        report = Report(**fields, where=place)
        if "text" in columns and from_text:
            found = sections_of(report.text, from_text, source.headings, source.notes)
            for name, section in found.items():
                setattr(report, name, section)
        elif "text" not in columns:
            report.text = compose(report)
        reports.append(report)
    return reports


def numbered(split: str, number: int) -> str:
    """The id of a record, counted from 1, of a table without ids."""
    return f"{split or 'row'}-{number}"


def _field(field: str, column: str, row: Mapping[str, str], place: str, source: Source) -> str:
    if field in IDS:
        return id_cell(row, column, place, source)
    if field in ("text", *SECTIONS):
        return text_cell(row, column, place, source, says_none=field == "comparison")
    return cell(row, column, place, source.notes)


def _choose_columns(available: list[str], source: Source, path: Path) -> dict[str, str]:
    columns = columns_of(available, source, path, (*FIELDS, "images"))
    if not {"text", "findings", "impression"} & set(columns):
        if not available:
            raise UserError(f"{path} is empty; check the file")
        raise UserError(
            f"{path} has no column 'text', 'findings' or 'impression'; its columns are "
            f"{shown_names(available)}; name the one that holds the report"
            + (" (or what separates them, as corpus.separator)" if len(available) == 1 else "")
        )
    if any(source.headings.values()) and ("text" not in columns or columns.keys() >= {*SECTIONS}):
        raise UserError(
            f"{path} has its sections in columns, so corpus.headings is of no use; remove it, or "
            "name the column that holds the report (corpus.columns.text)"
        )
    return columns


def columns_of(
    available: list[str], source: Source, path: Path, wanted: Sequence[str]
) -> dict[str, str]:
    """The column of each field that is `wanted`: as `source` names it, else one of its usual names.

    A field without a column is left out.
    """
    asked = dict(source.columns)
    if source.image_column:
        asked["images"] = source.image_column
    columns = {
        field: need_column(name, available, path)
        for field, name in asked.items()
        if field in wanted
    }
    known = set(available)
    alike: dict[str, list[str]] = {}
    for name in available:
        alike.setdefault(_plain(name), []).append(name)
    for field in FIELDS:
        if field in columns or field not in wanted:
            continue
        usual = _usual(_USUAL.get(field, (field,)), alike, known, path)
        if usual:
            columns[field] = usual
    return columns


def _usual(
    names: Sequence[str], alike: Mapping[str, list[str]], available: Collection[str], path: Path
) -> str | None:
    """The first of `names` that is a column, as it is written there, None if there is none.

    alike: the columns by what `_plain` leaves of their names.
    """
    for name in names:
        if name in available:
            return name
    for name in names:
        found = alike.get(_plain(name), [])
        if len(found) > 1:
            raise UserError(
                f"{path} has the columns {shown_names(found)}, which are nearly {name!r}; name "
                "the one that is meant"
            )
        if found:
            return found[0]
    return None


def _plain(name: str) -> str:
    return name.casefold().replace(" ", "").replace("_", "").replace("-", "")
