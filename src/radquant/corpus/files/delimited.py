"""Tables of text whose cells are separated: by commas, semicolons, tabs or bars."""

import csv
import io
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from radquant.corpus.files.encoding import HEAD, chunks_of, encoding_of, open_text
from radquant.corpus.files.header import check_names
from radquant.corpus.files.markup import check_plain
from radquant.corpus.files.rows import Table
from radquant.errors import UserError

NAMES = {",": "','", ";": "';'", "\t": "tab", "|": "'|'"}
LOOKED_AT = 50  # rows
_SAID = re.compile(r"sep=(.)\r?\n?", re.IGNORECASE)  # Excel's own first line
# A C long is the most that the csv module takes; a cell of a whole report must never be "too big".
csv.field_size_limit(min(sys.maxsize, 2**31 - 1))


def read(path: Path, separator: str | None, encoding: str | None, whole: bool) -> Table:
    """Open a table; without `whole` only its beginning is looked at, and it has no rows."""
    chunks = chunks_of(path, None if whole else HEAD)
    encoding = encoding_of(chunks, str(path), encoding, whole)
    head, complete = _head(path, encoding)
    check_plain(head, str(path))
    said = _SAID.fullmatch(next(iter(io.StringIO(head, newline="")), ""))
    if said:
        head = head[said.end() :]
        separator = separator or said[1]
    usual = "\t" if path.name.lower().removesuffix(".gz").endswith((".tsv", ".tab")) else ","
    separator = separator or separator_of(head, complete, path) or usual
    cells = _cells(path, encoding, separator, skip=bool(said))
    _, header = next(cells, (0, []))
    columns = check_names(header, path)

    def rows(names: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
        places = [(name, columns.index(name)) for name in names]
        for number, values in cells:
            if len(values) != len(columns):
                raise UserError(
                    f"{path}, row {number}: {len(values)} cells where the header has "
                    f"{len(columns)}; check the quotes and separators of that row "
                    f"(separated by {_name(separator)})"
                )
            if len(values) > 1 and not any(map(str.strip, values)):
                continue  # what a spreadsheet leaves below a table
            if values[0] == header[0] and values == header:
                raise UserError(f"{path}, row {number} is the header again; take it out")
            yield f"{path}, row {number}", {name: values[place] for name, place in places}

    return Table(columns, rows, f"{encoding}, separated by {_name(separator)}")


def _name(separator: str) -> str:
    return NAMES.get(separator, repr(separator))


def _head(path: Path, encoding: str) -> tuple[str, bool]:
    """(the beginning of a text, whether that is all of it)."""
    with open_text(path, encoding) as file:
        head = file.read(HEAD)
        return head.removeprefix("\ufeff"), not file.read(1)


def separator_of(head: str, complete: bool, path: Path) -> str | None:
    """Return what separates the cells, by the header and whether the first rows have as many.

    None for a header that nothing separates. Raises UserError where two are as likely.
    """
    found: list[tuple[bool, int, str]] = []
    for separator in NAMES:
        if separator not in head:
            continue
        widths, whole = _widths(head, complete, separator)
        if widths and widths[0] > 1:
            found.append((whole and len(set(widths)) == 1, widths[0], separator))
    if not found:
        return None
    best = max(found)[:2]
    likely = [separator for *fit, separator in found if tuple(fit) == best]
    if len(likely) > 1:
        shown = " or ".join(map(_name, likely))
        raise UserError(f"{path} may be separated by {shown}; say which as corpus.separator")
    return likely[0]


def _widths(head: str, complete: bool, separator: str) -> tuple[list[int], bool]:
    """(the numbers of cells of the first rows, whether these rows are well-formed)."""
    widths: list[int] = []
    reader = csv.reader(io.StringIO(head, newline=""), strict=complete, delimiter=separator)
    try:
        for values in reader:
            if values:
                widths.append(len(values))
            if len(widths) > LOOKED_AT:
                return widths, True
    except csv.Error:
        return widths, False
    # The last row of a part of a file may be cut.
    return (widths if complete or len(widths) < 2 else widths[:-1]), True


def _cells(
    path: Path, encoding: str, separator: str, skip: bool
) -> Iterator[tuple[int, list[str]]]:
    """Yield (row number, cells); an entirely empty line is no row but is counted.

    skip: whether the first line is none of the table's.
    """
    with open_text(path, encoding) as file:
        lines = (line.removeprefix("\ufeff") if n == 0 else line for n, line in enumerate(file))
        if skip:
            next(lines)
        reader = csv.reader(lines, strict=True, delimiter=separator)
        number = 0
        while True:
            number += 1
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error:
                raise UserError(
                    f"{path}, row {number}: malformed CSV; check the quotes of that row "
                    "(within quotes, a quote is written twice, not behind a backslash)"
                ) from None
            if values:
                yield number, values
