"""Rows of CSV, JSONL and Parquet files as text, with errors that name the file and the row."""

import csv
import difflib
import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from radquant.errors import UserError
from radquant.files import BOMB, most_unpacked, require_file

NOT_TEXT = "\0not text"
ENDINGS = (".csv", ".csv.gz", ".jsonl", ".parquet")
# A C long is the most that the csv module takes; a cell of a whole report must never be "too big".
csv.field_size_limit(min(sys.maxsize, 2**31 - 1))


def read_rows(path: str | Path) -> tuple[list[str], Iterator[tuple[str, dict[str, str]]]]:
    """Return the column names of a table and an iterator of (place, {column: text}).

    `place` is the file and the row: for CSV as a spreadsheet counts (the header is row 1), for
    JSONL the line, for Parquet the record from 1. Absent values are ''. JSONL columns are the keys
    of all its records.
    Raises UserError for a missing, unreadable, non-UTF-8 or malformed file.
    """
    require_file(path)
    name = str(path).lower()
    if name.endswith((".csv", ".csv.gz")):
        return _csv_rows(Path(path))
    if name.endswith(".jsonl"):
        return _jsonl_rows(Path(path))
    if name.endswith(".parquet"):
        return _parquet_rows(Path(path))
    raise UserError(f"{path} has an ending that is not known; use one of {', '.join(ENDINGS)}")


def decode(data: bytes, place: str) -> str:
    """Decode UTF-8 (a byte order mark is dropped); a bad byte is an error that names its line."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{place}, line {line}: not UTF-8; save the file as UTF-8") from None


def need_column(wanted: str, available: Sequence[str], path: str | Path) -> str:
    """Return `wanted` if it is among `available`, else raise UserError with the nearest name."""
    if wanted in available:
        return wanted
    near = difflib.get_close_matches(wanted, available, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise UserError(
        f"{path} has no column {wanted!r}; its columns are {', '.join(available)}{hint}"
    )


def _lines(path: Path) -> Iterator[str]:
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    most = most_unpacked(path.stat().st_size)
    with opener(path, "rb") as file:
        try:
            for number, line in enumerate(iter(lambda: file.readline(most), b""), 1):
                if file.tell() > most:
                    raise UserError(f"{path}, line {number}: {BOMB}")
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError:
                    raise UserError(
                        f"{path}, line {number}: not UTF-8; save the file as UTF-8"
                    ) from None
                yield text
        except (EOFError, gzip.BadGzipFile, zlib.error):
            raise UserError(f"{path} is not a whole gzip file; fetch it again") from None


def _csv_rows(path: Path) -> tuple[list[str], Iterator[tuple[str, dict[str, str]]]]:
    cells = _csv_cells(path)
    _, header = next(cells, (0, []))
    _check_repeated(header, path)

    def rows() -> Iterator[tuple[str, dict[str, str]]]:
        for number, values in cells:
            if len(values) != len(header):
                raise UserError(
                    f"{path}, row {number}: {len(values)} cells where the header has "
                    f"{len(header)}; check the quotes and commas of that row"
                )
            yield f"{path}, row {number}", dict(zip(header, values, strict=True))

    return header, rows()


def _check_repeated(names: Sequence[str], path: Path) -> None:
    repeated = sorted({name for name in names if name and names.count(name) > 1})
    if repeated:
        raise UserError(f"{path} has two columns named {repeated[0]!r}; rename one")


def _csv_cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (row number, cells); an entirely empty line is no row but is counted."""
    # A line of the file may hold several that end in a carriage return alone.
    lines = (part for line in _lines(path) for part in io.StringIO(line, newline=""))
    reader = csv.reader(lines, strict=True)
    number = 0
    while True:
        number += 1
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error:
            raise UserError(
                f"{path}, row {number}: malformed CSV; check the quotes of that row"
            ) from None
        if values:
            yield number, values


def _jsonl_rows(path: Path) -> tuple[list[str], Iterator[tuple[str, dict[str, str]]]]:
    records: list[tuple[str, dict[str, str]]] = []
    columns: dict[str, None] = {}
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            record = json.loads(line, object_pairs_hook=_once)
        except _RepeatedKeyError as error:
            raise UserError(f"{place}: two values of {error.args[0]!r}; remove one") from None
        except (ValueError, RecursionError):
            raise UserError(f"{place}: not valid JSON; each line must be one object") from None
        if not isinstance(record, dict):
            raise UserError(f"{place}: not a JSON object; each line must be one object")
        columns.update(dict.fromkeys(record))
        records.append((place, {key: _text(value) for key, value in record.items()}))
    return list(columns), iter(records)


class _RepeatedKeyError(Exception):
    """A JSON object has the key in `args` twice."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _RepeatedKeyError(next(name for name in names if names.count(name) > 1))
    return found


def _parquet_rows(path: Path) -> tuple[list[str], Iterator[tuple[str, dict[str, str]]]]:
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError):
        raise UserError(f"{path} is not a readable Parquet file; fetch it again") from None
    names = list(file.schema_arrow.names)
    _check_repeated(names, path)

    def rows() -> Iterator[tuple[str, dict[str, str]]]:
        number = 0
        try:
            for batch in file.iter_batches():
                for record in batch.to_pylist():
                    number += 1
                    place = f"{path}, row {number}"
                    yield place, {key: _text(value) for key, value in record.items()}
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError):
            raise UserError(
                f"{path}, after row {number}: the Parquet file is damaged; fetch it again"
            ) from None

    return names, rows()


def _text(value: Any) -> str:
    """Return a cell as text, '' for null.

    A list, an object or bytes is wrong only if its column is used, so it becomes a marker that
    `cell` refuses.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, int, float)):
        return str(value)
    return NOT_TEXT


def cell(row: Mapping[str, str], column: str, place: str) -> str:
    """Return the text of one cell, '' where the row lacks the column.

    Raises UserError where the cell is a list, an object or bytes, or cannot be stored as UTF-8.
    """
    value = row.get(column, "")
    if value == NOT_TEXT:
        raise UserError(f"{place}: column {column!r} is not text; store it as a string")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"{place}: column {column!r} holds a broken character; mend it") from None
    return value
