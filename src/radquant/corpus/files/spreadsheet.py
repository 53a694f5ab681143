"""Tables of Excel's .xlsx, by openpyxl, which pandas reads them with, too."""

import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from radquant.corpus.files.header import check_names
from radquant.corpus.files.rows import FORMULA, Row, Table, text_of
from radquant.errors import UserError
from radquant.files import BOMB, most_unpacked

LOOKED_AT = 10_000_000  # bytes; the texts of all cells stand apart from them, and are read first
EXACT = 1e15  # a spreadsheet keeps 15 digits of a number
_MERGED = re.compile(rb'<(?:\w+:)?mergeCell\s[^>]*ref="([A-Z]+)(\d+):([A-Z]+)(\d+)"')


def read(path: Path, whole: bool) -> Table:
    """Open the only sheet of a workbook that holds anything; its first row names the columns.

    A cell's value is what was last computed of its formula. Raises UserError for a workbook that is
    broken, locked or out of proportion, and for several such sheets. It also does for merged cells
    below the header, of which a file holds only the first.
    """
    _check_packed(path)
    if not whole and path.stat().st_size > LOOKED_AT:
        return Table([], lambda names: iter(()), certain=False)
    book = _workbook(path, formulas=False)
    sheet = _only_sheet(book, path)
    found = _filled(book, sheet, path)
    _, header = next(found, (0, []))
    columns = check_names(list(map(text_of, header)), path)
    if whole and sheet:
        _check_merged(book[sheet], path)

    def rows(names: Sequence[str]) -> Iterator[Row]:
        places = [(name, columns.index(name)) for name in names]
        formulas: set[tuple[int, int]] | None = None
        for number, values in found:
            if values[: len(header)] == header:
                raise UserError(f"{path}, row {number} is the header again; take it out")
            cells = {
                name: text_of(values[place], EXACT) if place < len(values) else ""
                for name, place in places
            }
            if formulas is None and "" in cells.values():
                formulas = _formulas(path, sheet, [place for _, place in places])
            for name, place in places:
                if not cells[name] and formulas and (number, place) in formulas:
                    cells[name] = FORMULA
            yield f"{path}, row {number}", cells

    return Table(columns, rows, f"sheet {sheet!r}" if sheet else "")


def _check_packed(path: Path) -> None:
    with open(path, "rb") as file:
        start = file.read(8)
    if start.startswith(b"\xd0\xcf\x11\xe0"):
        raise UserError(f"{path} has a password or is an old .xls; save it unlocked as .xlsx")
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(each.file_size for each in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise _broken(path, error) from None
    if size > most_unpacked(path.stat().st_size):
        raise UserError(f"{path}: {BOMB}")


def _broken(path: Path, error: Exception) -> UserError:
    kind = type(error).__name__
    return UserError(f"{path} is not a readable .xlsx file ({kind}); save it anew, or as CSV")


def _workbook(path: Path, formulas: bool) -> Any:
    from openpyxl import load_workbook

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they quote cells
            return load_workbook(path, read_only=True, data_only=not formulas, keep_links=False)
    except Exception as error:  # openpyxl and what it unpacks with raise what they like
        raise _broken(path, error) from None


def _only_sheet(book: Any, path: Path) -> str:
    """The name of the only sheet with anything in it, '' if there is none."""
    names = [sheet.title for sheet in book.worksheets]
    filled = [name for name in names if next(_filled(book, name, path), None)]
    if len(filled) > 1:
        raise UserError(
            f"{path} holds {len(filled)} sheets with rows ({', '.join(map(repr, filled[:10]))}); "
            "save the one with the reports as a file of its own"
        )
    return filled[0] if filled else ""


def _filled(book: Any, name: str, path: Path) -> Iterator[tuple[int, list[Any]]]:
    """Yield (number, values) of the rows of a sheet that hold anything."""
    if not name:
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sheet = book[name]
            sheet.reset_dimensions()  # which some programs write wrongly
            for number, row in enumerate(sheet.iter_rows(values_only=True), 1):
                values = list(row)
                while values and values[-1] in (None, ""):
                    values.pop()
                if values:
                    yield number, values
    except Exception as error:  # openpyxl and what it unpacks with raise what they like
        raise _broken(path, error) from None


def _formulas(path: Path, name: str, places: Sequence[int]) -> set[tuple[int, int]]:
    """The (row, column) of formulas; read a second time, for a value hides them."""
    return {
        (number, place)
        for number, values in _filled(_workbook(path, formulas=True), name, path)
        for place in places
        if place < len(values) and _is_formula(values[place])
    }


def _is_formula(value: Any) -> bool:
    """Say so; openpyxl has objects for those of several cells."""
    return str(value).startswith("=") or hasattr(value, "ref")


def _check_merged(sheet: Any, path: Path) -> None:
    """Raise UserError for cells of a sheet that are merged below its first row."""
    place = sheet._worksheet_path  # openpyxl tells of merged cells only where all is in memory
    try:
        with zipfile.ZipFile(path) as archive, archive.open(place.lstrip("/")) as file:
            merged = _merged(file)
    except Exception as error:
        raise _broken(path, error) from None
    if merged:
        raise UserError(
            f"{path}: the cells {merged} are merged, and only the first holds a value; unmerge "
            "them and fill in each"
        )


def _merged(file: IO[bytes]) -> str:
    """The first cells of a sheet's XML that are merged below its first row, '' if none are."""
    held = b""
    while chunk := file.read(1 << 20):
        held = held[-200:] + chunk
        for left, top, right, bottom in _MERGED.findall(held):
            if int(bottom) > 1:
                return f"{left.decode()}{int(top)}:{right.decode()}{int(bottom)}"
    return ""
