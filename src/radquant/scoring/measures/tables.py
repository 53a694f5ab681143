"""The table that a measure's job writes, and what the report takes from it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pandas as pd

from radquant import registry
from radquant.cli import progress
from radquant.corpus.evaluation import written_reports
from radquant.errors import UserError
from radquant.files import read_table, sha256_text
from radquant.scoring.measures.kind import Loaded, Measure
from radquant.scoring.metrics.kind import Column
from radquant.scoring.outputs import read_generations


def asked_for(scoring: Mapping[str, Any]) -> list[str]:
    """Return the measures that the section `scoring` of a configuration asks for."""
    return [
        name for name in registry.MEASURES if scoring.get(name) and kind(name).on(scoring[name])
    ]


def kind(name: str) -> Measure:
    return cast(Measure, registry.load_kind(registry.MEASURES, name))


def measured(
    columns: Sequence[Column],
    loaded: Loaded,
    evaluation: str | Path,
    target: str,
    generations: Sequence[str | Path],
    reports: int | None = None,
) -> pd.DataFrame:
    """Score one system's outputs: id, text_hash (of reference and output), measure, the columns.

    Equal pairs are scored once. Raises UserError where outputs are not of the first `reports` rows
    of `evaluation`, and for a value out of its column's range.
    """
    table = written_reports(read_table(evaluation, require=("id", target)), reports, evaluation)
    ids = list(table["id"])
    outputs = read_generations(generations, ids)["output"].tolist()
    pairs = list(zip(table[target].tolist(), outputs, strict=True))
    spoken = list(dict.fromkeys(pairs))
    if loaded.blank is not None:
        spoken = [pair for pair in spoken if all(text.strip() for text in pair)]
    values = progress(loaded.measure(spoken), "measure", len(spoken), "texts")
    found = dict(zip(spoken, values, strict=True))
    rows = [found.get(pair, loaded.blank or ()) for pair in pairs]
    result = pd.DataFrame(
        {"id": ids, "text_hash": [hash_of(*pair) for pair in pairs], "measure": loaded.identity}
    )
    for place, column in enumerate(columns):
        result[column.name] = [float(row[place]) for row in rows]
    check_values(result, columns, str(evaluation))
    return result


def hash_of(reference: str, output: str) -> str:
    return sha256_text(f"{sha256_text(reference)} {sha256_text(output)}")


def check_values(table: pd.DataFrame, columns: Sequence[Column], place: str) -> None:
    """Raise UserError for a value that is not in its column's range."""
    for column in columns:
        bad = ~table[column.name].between(*column.range)  # nan is outside, too
        if bad.any():
            raise UserError(
                f"{place}, column {column.name!r}: {int(bad.sum())} value(s) are not numbers from "
                f"{column.range[0]:g} to {column.range[1]:g}, first at id "
                f"{table['id'][bad].iloc[0]!r}; the measure's model or data are at fault"
            )
