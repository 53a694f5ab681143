"""The names of a table's columns."""

import difflib
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from radquant.corpus.marks import tidy
from radquant.errors import UserError

SHOWN = 20
COMPARED = 2000
# What a name looks like. Without a header line, a report's text stands where the names should, so
# that a name of two words needs one that texts hardly have.
_NAME = re.compile(r"[\w#%$()/@&+.-]*\w[)]?")
_OF_NAMES = frozenset(
    (
        *("id", "ids", "name", "number", "no", "date", "time", "code", "type", "key", "text"),
        *("texts", "report", "reports", "patient", "study", "subject", "accession", "section"),
        *("column", "age", "sex", "file", "path", "label", "split"),
    )
)
_LONGEST = 40


def check_names(names: Sequence[str], path: str | Path) -> list[str]:
    """Return the names in one form and without space around them; '' stays for a column that has
    none. Raises UserError for a name of two columns."""
    found = [tidy(name) for name in names]
    twice = next((name for name, count in Counter(found).items() if name and count > 1), None)
    if twice is not None:
        raise UserError(f"{path} has two columns named {shown_name(twice)}; rename one")
    return found


def shown_name(name: str) -> str:
    """Return a name for an error, unless it may be the text of a report."""
    return repr(name) if _is_name(name) else f"something of {len(name)} characters"


def _is_name(name: str) -> bool:
    words = name.split(" ")
    known = len(words) == 1 or (len(words) == 2 and _OF_NAMES & {*name.casefold().split(" ")})
    return len(name) <= _LONGEST and all(map(_NAME.fullmatch, words)) and bool(known)


def shown_names(names: Sequence[str]) -> str:
    """Return the first names for an error, but nothing of a row that hardly holds names."""
    named = [name for name in names if name]
    more = f" and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
    if all(map(_is_name, named)):
        return ", ".join(named[:SHOWN]) + more
    sizes = ", ".join(str(len(name)) for name in named[:SHOWN])
    return f"texts of {sizes}{more} characters; the first row must name the columns"


def need_column(wanted: str, available: Sequence[str], path: str | Path) -> str:
    """Return `wanted`, in the form that the names have, if it is among `available`; else raise
    UserError with the nearest name."""
    name = tidy(wanted)
    if name in available:
        return name
    near = difflib.get_close_matches(name, available[:COMPARED], n=1)
    hint = f"; did you mean {shown_name(near[0])}?" if near else ""
    raise UserError(
        f"{path} has no column {wanted!r}; its columns are {shown_names(available)}{hint}"
    )
