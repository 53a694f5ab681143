"""What every kind of table gives: its columns, and its rows as text."""

import datetime
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

Row = tuple[str, dict[str, str]]  # its place, and its cells by column
# What `tables.cell` refuses, should the cell be used.
NOT_TEXT = "\0not text"
ROUNDED = "\0rounded"
FORMULA = "\0formula"


@dataclass(frozen=True)
class Table:
    """A table that is open: `rows` reads, once, the cells of the columns that it is given."""

    columns: list[str]
    rows: Callable[[Sequence[str]], Iterator[Row]]
    read_as: str = ""  # encoding and separator, in words
    certain: bool = True  # whether there are no other columns than these


def text_of(value: Any, exact: float = 2.0**53) -> str:
    """Return a cell as text, '' for null and "NaN" for what is no number.

    A list, an object or bytes is wrong only if its column is used, so it becomes a marker that
    `tables.cell` refuses. So does a whole number of `exact` or more in floating point, whose last
    digits are lost.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int):
        return str(value)
    if isinstance(value, float | Decimal):
        if math.isnan(value):
            return "NaN"
        if not math.isfinite(value):
            return NOT_TEXT
        if value == int(value):
            return ROUNDED if isinstance(value, float) and abs(value) >= exact else str(int(value))
        return str(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return NOT_TEXT
