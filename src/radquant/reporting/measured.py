"""What measures with data or a model of their own say, joined to the scores."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from radquant.errors import UserError
from radquant.files import read_table
from radquant.reporting.checks import check_same_reports
from radquant.scoring.measures.tables import asked_for, check_values, hash_of, kind
from radquant.scoring.outputs import read_generations
from radquant.settings.run import BASELINES, ORIGINAL


def join_measures(
    results: Path,
    config: Mapping[str, Any],
    scores: Mapping[str, pd.DataFrame],
    reports: pd.DataFrame,
    generations: Mapping[str, pd.DataFrame],
) -> tuple[dict[str, pd.DataFrame], dict[str, str]]:
    """Return the scores with the columns of the measures asked for, and {measure: identity}.

    Raises UserError where a table is of other texts, of other reports, or of another measure than
    the original's. It also does for a value out of its column's range.
    """
    joined = dict(scores)
    identities: dict[str, str] = {}
    names = asked_for(config["scoring"])
    if not names:
        return joined, identities
    for system in [ORIGINAL, *(name for name in scores if name != ORIGINAL)]:
        outputs = _outputs(results, system, reports, generations)
        hashes = list(map(hash_of, reports["reference"], outputs))
        for name in names:
            path, columns = (
                results / "measures" / name / f"{system}.parquet",
                kind(name).ABOUT.columns,
            )
            own = [column.name for column in columns]
            table = read_table(path, ["id", "text_hash", "measure", *own])
            check_same_reports(table["id"].tolist(), reports["id"].tolist(), path)
            if table["text_hash"].tolist() != hashes:
                raise UserError(f"{path} is of other texts; delete it and run again")
            check_values(table, columns, str(path))
            found = set(table["measure"]) | {identities.setdefault(name, table["measure"].iloc[0])}
            if len(found) > 1:
                raise UserError(
                    f"{path} was made with another {name} than the original's table; delete "
                    f"{path.parent} and run again"
                )
            joined[system] = joined[system].assign(**{each: table[each] for each in own})
    return joined, identities


def _outputs(
    results: Path, system: str, reports: pd.DataFrame, generations: Mapping[str, pd.DataFrame]
) -> list[str]:
    if system not in BASELINES:
        return list(generations[system]["output"])
    path = results / "generations" / system / "all.parquet"
    return list(read_generations([path], reports["id"].tolist())["output"])
