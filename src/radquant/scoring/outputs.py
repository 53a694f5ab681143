"""A system's outputs, as its shards hold them, of the reports that they should be of."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from radquant.errors import UserError
from radquant.files import read_table


def read_generations(paths: Sequence[str | Path], ids: Sequence[str]) -> pd.DataFrame:
    """Return output and finish_reason of all shards together, by id, in the order of `ids`.

    The baselines, which no model writes, have no finish_reason: None.
    """
    tables = [read_table(path, require=("id", "output")) for path in paths]
    table = pd.concat(tables, ignore_index=True)
    check_ids(list(table["id"]), ids, names_of(paths))
    for name, output in zip(table["id"], table["output"], strict=True):
        if not isinstance(output, str):
            raise UserError(
                f"{names_of(paths)}, column 'output', report {name!r}: not a text; generate again"
            )
    table = table.reindex(columns=["id", "output", "finish_reason"]).astype(object)
    return table.set_index("id").loc[list(ids)]


def check_ids(ids: Sequence[str], expected: Sequence[str], place: str) -> None:
    """Raise UserError unless `ids` are those of `expected`, each once, in any order."""
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            raise UserError(f"{place}: report {name!r} occurs twice; every report has one row")
        seen.add(name)
    missing = [name for name in expected if name not in seen]
    if missing:
        raise UserError(
            f"{place}: {len(missing)} of the {len(expected)} evaluation reports are missing (the "
            f"first is {missing[0]!r}); all systems are scored on the same reports, so make it "
            "again"
        )
    unknown = sorted(seen.difference(expected))
    if unknown:
        raise UserError(
            f"{place}: {len(unknown)} reports are not among the {len(expected)} evaluation "
            f"reports (the first is {unknown[0]!r}); make this file again"
        )


def names_of(paths: Sequence[str | Path]) -> str:
    return ", ".join(map(str, paths))
