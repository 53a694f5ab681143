"""A report as every part of the corpus code sees it, and the table that holds many."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from radquant.corpus.marks import same_id
from radquant.errors import UserError

SECTIONS = ("findings", "impression", "indication", "comparison")
COLUMNS = ("id", "group", "study", *SECTIONS, "text", "images")
RAW_COLUMNS = (*COLUMNS, "split", "missing")
# The table's attribute, which Parquet keeps, that says what reading recognised and took back.
READING = "reading"
MAX_ID_LENGTH = 200
SHOWN = 5


@dataclass(slots=True)
class Report:
    """One report. Every field is text, '' where absent.

    `group` is the patient, and `split` is '', 'train' or 'eval'. `where` is the file and row that
    the report came from, for error messages. It is not stored. `images` are files, separated by ;
    (image_files.SEPARATOR), and `missing` those that the source names and that are not there.
    """

    id: str
    group: str = ""
    study: str = ""
    findings: str = ""
    impression: str = ""
    indication: str = ""
    comparison: str = ""
    text: str = ""
    images: str = ""
    split: str = ""
    missing: str = ""
    where: str = ""


def to_table(reports: Iterable[Report], columns: Sequence[str] = RAW_COLUMNS) -> pd.DataFrame:
    """Return one row per report, all columns text."""
    rows = [[getattr(report, name) for name in columns] for report in reports]
    return pd.DataFrame(rows, columns=list(columns), dtype="str")


def from_table(table: pd.DataFrame) -> list[Report]:
    columns = [table[name].tolist() for name in RAW_COLUMNS]
    return [Report(*values) for values in zip(*columns, strict=True)]


def compose(report: Report) -> str:
    """Return the sections that are there under their headings, one a line, for a corpus that has
    sections and no full text."""
    names = ("indication", "comparison", "findings", "impression")
    parts = [(name.upper(), getattr(report, name).strip()) for name in names]
    return "\n".join(f"{heading}: {text}" for heading, text in parts if text)


def check_ids(reports: Sequence[Report]) -> None:
    """Raise UserError on an empty, overlong or repeated id; the message says where.

    An id that could be a report's text (the wrong column was named) is not repeated in it.
    """
    places: dict[str, list[str]] = {}
    for number, report in enumerate(reports, 1):
        where = report.where or f"record {number}"
        if not report.id.strip():
            raise UserError(f"{where}: the id is empty; give every report an id")
        if len(report.id) > MAX_ID_LENGTH:
            raise UserError(
                f"{where}: the id is longer than {MAX_ID_LENGTH} characters; "
                "name the column that holds the ids, or shorten them"
            )
        places.setdefault(same_id(report.id), []).append(where)
    repeated = {name: found for name, found in places.items() if len(found) > 1}
    if not repeated:
        return
    shown = "; ".join(
        f"{shown_id(name)} at {', '.join(found[:SHOWN])}"
        for name, found in list(repeated.items())[:SHOWN]
    )
    more = f"; {len(repeated) - SHOWN} more" if len(repeated) > SHOWN else ""
    raise UserError(f"{len(repeated)} duplicate ids ({shown}{more}); give every report its own id")


def shown_id(name: str) -> str:
    return repr(name) if len(name) <= 64 and not any(map(str.isspace, name)) else "one id"
