"""What a table says of the evaluated reports beside their texts: sex, age, view."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from radquant.corpus.files.header import need_column, shown_name
from radquant.corpus.formats.kind import Source
from radquant.corpus.formats.reading import id_cell
from radquant.corpus.formats.table import columns_of, numbered
from radquant.corpus.tables import cell, open_table
from radquant.errors import UserError

MOST_VALUES = 12  # groups of one division; more are hardly groups
LONGEST_VALUE = 40  # characters; what is longer may be a report's text


def attributes(
    evaluation: pd.DataFrame, divisions: Mapping[str, Any], corpus: Source
) -> pd.DataFrame:
    """Return `id` and a column for each division, '' where the table does not say.

    evaluation: eval.csv, with id, study and group. divisions: by name, `Subgroups` settings with a
    column. Raises UserError for a missing column, a value that may be a text, and too many values.
    With cuts, it also does for a value that is no number.
    """
    found = pd.DataFrame({"id": evaluation["id"]})
    for name, division in divisions.items():
        values = _values(division, corpus)
        keys = evaluation[division.key].tolist()
        said = [values.get(key, {}) if key else {} for key in keys]
        found[name] = [_group(name, division, rows) for rows in said]
        if not found[name].any():
            raise UserError(
                f"subgroups {name!r}: no evaluated report has a value in column "
                f"{division.column!r} of {division.table or corpus.name}; check column and key"
            )
        count = found[name][found[name] != ""].nunique()
        if count > MOST_VALUES:
            raise UserError(
                f"subgroups {name!r}: column {division.column!r} has {count} values in the "
                f"evaluated reports, and {MOST_VALUES} groups are the most; part it with cuts"
            )
    return found


def _values(division: Any, corpus: Source) -> dict[str, dict[str, str]]:
    """By key: {value: where it stands}; a study of several images may have several."""
    found: dict[str, dict[str, str]] = {}
    for path, split in _tables(division, corpus):
        own = division.table is None
        table = open_table(path, *(corpus.separator, corpus.encoding) if own else (None, None))
        column = need_column(division.column, table.columns, path)
        source = Source(columns=dict(corpus.columns) if own else _key_column(division), path=path)
        fields = columns_of(table.columns, source, path, wanted=(division.key,))
        key = fields.get(division.key)
        if key is None and not own:
            raise UserError(
                f"{path} has no column that is usual for {division.key}; name it as key_column"
            )
        wanted = [column, *([key] if key else [])]
        for number, (place, row) in enumerate(table.rows(wanted), 1):
            name = id_cell(row, key, place, source) if key else numbered(split, number)
            value = cell(row, column, place).strip()
            if len(value) > LONGEST_VALUE:
                raise UserError(
                    f"{place}: column {shown_name(division.column)} has over {LONGEST_VALUE} "
                    "characters, which names no group; name another column"
                )
            if name and value:
                found.setdefault(name, {}).setdefault(value, place)
    return found


def _key_column(division: Any) -> dict[str, str]:
    return {division.key: division.key_column} if division.key_column else {}


def _tables(division: Any, corpus: Source) -> Sequence[tuple[Path, str]]:
    if division.table is not None:
        return [(Path(division.table), "")]
    given = [(corpus.path, ""), (corpus.train, "train"), (corpus.eval, "eval")]
    return [(path, split) for path, split in given if path is not None]


def _group(name: str, division: Any, said: Mapping[str, str]) -> str:
    """The name of the group of one report: its value, or between which cuts it lies."""
    if not division.cuts:
        return " + ".join(sorted(said))
    groups = set()
    for value, place in said.items():
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if number != number:
            raise UserError(
                f"{place}: column {division.column!r} is no number, and subgroups {name!r} has "
                "cuts; correct it or leave the cuts out"
            )
        groups.add(_between(division.cuts, number))
    if len(groups) > 1:
        raise UserError(
            f"{place}: column {division.column!r} says two things of one {division.key}, on both "
            f"sides of a cut of subgroups {name!r}; leave one"
        )
    return next(iter(groups), "")


def _between(cuts: Sequence[float], number: float) -> str:
    """'below 40', '40 to below 65', '65 and above'."""
    at = bisect_right(cuts, number)
    if at == 0:
        return f"below {cuts[0]:g}"
    if at == len(cuts):
        return f"{cuts[-1]:g} and above"
    return f"{cuts[at - 1]:g} to below {cuts[at]:g}"
