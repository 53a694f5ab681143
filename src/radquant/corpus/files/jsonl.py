"""Tables of JSON, one object a line."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from radquant.corpus.files.encoding import HEAD, chunks_of, encoding_of, open_text
from radquant.corpus.files.header import check_names, shown_name
from radquant.corpus.files.rows import Table, text_of
from radquant.errors import UserError

LOOKED_AT = 20
LINES = "each line must be one object (jq -c '.[]' makes lines of a list, jq -c . of objects)"


def read(path: Path, encoding: str | None, whole: bool) -> Table:
    """Open a table; its columns are the keys of all records, without `whole` of the first ones."""
    encoding = encoding_of(chunks_of(path, None if whole else HEAD), str(path), encoding, whole)
    records: list[tuple[str, dict[str, Any]]] = []
    columns: dict[str, None] = {}
    certain = True
    with open_text(path, encoding, newline="\n") as file:
        for number, line in enumerate(file, 1):
            place = f"{path}, line {number}"
            if not line.strip("\ufeff \t\r\n"):
                continue
            record = _record(line.removeprefix("\ufeff") if number == 1 else line, place)
            columns.update(dict.fromkeys(record))
            records.append((place, record))
            if not whole and len(records) == LOOKED_AT:
                certain = False
                break

    def rows(names: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
        for place, record in records:
            yield place, {name: text_of(record[name]) for name in names if name in record}

    return Table(list(columns), rows, encoding, certain)


def _record(line: str, place: str) -> dict[str, Any]:
    try:
        record = json.loads(line, object_pairs_hook=_once)
    except _RepeatedKeyError as error:
        named = shown_name(error.args[0])
        raise UserError(f"{place}: two values of {named}; remove one") from None
    except (ValueError, RecursionError):
        raise UserError(f"{place}: not valid JSON; {LINES}") from None
    if not isinstance(record, dict):
        raise UserError(f"{place}: not a JSON object; {LINES}")
    if all(name.isascii() and name.isidentifier() for name in record):
        return record
    return dict(zip(check_names(list(record), place), record.values(), strict=True))


class _RepeatedKeyError(Exception):
    """A JSON object has the key in `args` twice."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _RepeatedKeyError(name)
            seen.add(name)
    return found
