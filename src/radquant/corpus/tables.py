"""Rows of tables as text, with errors that name the file and the row: CSV and its kin, JSONL,
Parquet and .xlsx."""

import ast
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path

from radquant.corpus.files import columnar, delimited, jsonl, spreadsheet
from radquant.corpus.files.rows import FORMULA, NOT_TEXT, ROUNDED, Table
from radquant.corpus.marks import Notes, missing_mark
from radquant.errors import UserError
from radquant.files import require_file

_DELIMITED = (".csv", ".tsv", ".txt", ".tab")
_LINES = (".jsonl", ".ndjson")
_SHEETS = (".xlsx", ".xlsm")
ENDINGS = (".csv", ".tsv", ".txt", ".jsonl", ".parquet", ".xlsx")
# What to do with a table of a kind that is not read.
_REMEDIES = {
    ".json": "make lines of it with jq -c '.[]' and call it .jsonl",
    **dict.fromkeys((".xls", ".xlsb", ".ods", ".numbers"), "save it as .xlsx or .csv"),
    **dict.fromkeys((".zip", ".7z", ".rar", ".tar", ".tgz"), "unpack the table in it"),
    **dict.fromkeys((".xz", ".bz2", ".zst"), "unpack it, or pack it as .gz"),
    **dict.fromkeys((".sas7bdat", ".xpt", ".sav", ".dta", ".rds"), "export it as .csv"),
    **dict.fromkeys((".db", ".sqlite", ".mdb", ".accdb"), "export its table as .csv"),
    **dict.fromkeys((".feather", ".arrow", ".orc", ".avro"), "save it as .parquet"),
}
_REFUSED = {
    NOT_TEXT: "is not text; store it as a string",
    ROUNDED: "is a number that lost its last digits; store it as text",
    FORMULA: "is a formula that was never computed; save it as values",
}


def open_table(
    path: str | Path,
    separator: str | None = None,
    encoding: str | None = None,
    notes: Notes | None = None,
    whole: bool = True,
) -> Table:
    """Open a table; its rows give (place, {column: text}) of the columns that are asked for.

    `place` is the file and the row. CSV and .xlsx are counted as a spreadsheet does (the header is
    row 1), JSONL by line, and Parquet by record from 1. Absent values are ''. JSONL columns are the
    keys of all its records. Separator and encoding are recognised unless given, and told in
    `notes`. Without `whole` a look at the beginning must do, and there are no rows. Raises
    UserError for a missing, unreadable or malformed file.
    """
    require_file(path)
    path = Path(path)
    name = path.name.lower()
    if (encoding or separator) and name.endswith((".parquet", *_SHEETS)):
        raise UserError(f"{path} is no text; remove corpus.separator and corpus.encoding")
    if separator and name.removesuffix(".gz").endswith(_LINES):
        raise UserError(f"{path} has no cells to separate; remove corpus.separator")
    plain = name.removesuffix(".gz")
    if plain.endswith(_DELIMITED):
        table = delimited.read(path, separator, encoding, whole)
    elif plain.endswith(_LINES):
        table = jsonl.read(path, encoding, whole)
    elif name.endswith(".parquet"):
        table = columnar.read(path)
    elif name.endswith(_SHEETS):
        table = spreadsheet.read(path, whole)
    else:
        ending = next((end for end in _REMEDIES if plain.endswith(end)), "")
        remedy = _REMEDIES.get(ending, f"use one of {', '.join(ENDINGS)}")
        raise UserError(f"{path} has an ending that is not known; {remedy}")
    if notes is not None and table.read_as:
        notes["read as", path.name, table.read_as] += 1
    return table


def cell(
    row: Mapping[str, str],
    column: str,
    place: str,
    notes: Notes | None = None,
    says_none: bool = False,
) -> str:
    """Return the text of one cell, '' where the row lacks the column or says that it has no value.

    Such marks ("NaN", "NULL") are counted in `notes`; says_none: "None" is an answer there. Raises
    UserError where the cell is a list, an object or bytes, or cannot be stored as UTF-8.
    """
    value = row.get(column, "")
    if value in _REFUSED:
        raise UserError(f"{place}: column {column!r} {_REFUSED[value]}")
    if value.startswith(("b'", 'b"')) and value.endswith(value[1]) and len(value) > 2:
        value = _decoded(value, f"{place}: column {column!r}")
    mark = missing_mark(value, says_none)
    if mark is not None:
        if notes is not None:
            notes["missing", column, mark] += 1
        return ""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"{place}: column {column!r} holds a broken character; mend it") from None
    return value


def _decoded(written: str, place: str) -> str:
    """The text of bytes that Python wrote as b'...', as pandas does in a CSV."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they quote the text
            value = ast.literal_eval(written)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return written
    try:
        return str(value, "utf-8") if isinstance(value, bytes) else written
    except UnicodeDecodeError:
        raise UserError(f"{place} is bytes that are not UTF-8; store it as a string") from None


USUAL = ("utf-8", "utf-8, separated by ','")


def say(notes: Notes) -> None:
    """Tell on stderr what was recognised of the files and taken back of their exporters' marks."""
    for (what, where, which), count in sorted(notes.items()):
        if what == "read as" and which not in USUAL:
            files = f"{count} files" if count > 1 else where
            print(f"{files}: read as {which}", file=sys.stderr)
        elif what == "missing":
            print(f"column {where!r}: {count} cells say {which!r} for no value", file=sys.stderr)
        elif what == "left out":
            print(f"{where}: {count} {which} are left out", file=sys.stderr)
        elif what == "line breaks":
            print(f"{where!r}: {count} texts have marks for line breaks ({which})", file=sys.stderr)


def record(notes: Notes) -> dict[str, dict[str, dict[str, int]]]:
    """Return notes as {what: {column or file: {which: count}}}."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for (what, where, which), count in sorted(notes.items()):
        found.setdefault(what, {}).setdefault(where, {})[which] = count
    return found
