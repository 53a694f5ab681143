"""Scoring some reports again before anything is said about them.

A table of scores with two columns swapped, or of other outputs, looks like any other. The texts and
annotations are there, so a sample of every system's rows is computed anew.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from radquant.errors import UserError
from radquant.files import read_table
from radquant.reporting.finished_run import Run
from radquant.scoring import records, rewards
from radquant.scoring.metrics.columns import measure
from radquant.scoring.metrics.kind import Pair
from radquant.scoring.outputs import read_generations
from radquant.settings.run import BASELINES, ORIGINAL

ROWS = 50  # of each system; all have the same, evenly spaced


def recheck(results: Path, run: Run) -> None:
    """Raise UserError where a score is not what the texts and their annotations give."""
    if rewards.identity() != run.rewards:
        raise UserError(
            f"the scores were made with the definitions of {run.rewards}, and here is "
            f"{rewards.identity()}; delete results/scores and run again"
        )
    ids = run.reports["id"].tolist()
    references = dict(zip(ids, run.reports["reference"].tolist(), strict=True))
    originals = _outputs(run, ORIGINAL)
    notes = run.annotations
    rows = np.unique(np.linspace(0, len(ids) - 1, ROWS).round().astype(int)).tolist()
    names = [ids[row] for row in rows]
    for system in [*run.precisions, *BASELINES]:
        outputs = _outputs(run, system) if system in notes else _baseline(results, system, ids)
        own = notes[system] if system in notes else _baseline_notes(results, system, names)
        for row, name in zip(rows, names, strict=True):
            pair = Pair(
                references[name],
                outputs[name],
                originals[name],
                notes["reference"][name],
                own[name],
                notes[ORIGINAL][name],
            )
            stored = run.scores[system].iloc[row]
            for column, value in measure(pair).items():
                if not abs(float(stored[column]) - float(value)) <= 1e-9:
                    raise UserError(
                        f"{results}/scores/{system}.parquet, column {column!r}, report {name!r}: "
                        "not what the texts and their annotations give (swapped columns, or other "
                        "outputs); delete the file and run again"
                    )


def _outputs(run: Run, system: str) -> dict[str, str]:
    table = run.generations[system]
    return dict(zip(table["id"].tolist(), table["output"].tolist(), strict=True))


def _baseline(results: Path, system: str, ids: list[str]) -> dict[str, str]:
    table = read_generations([results / "generations" / system / "all.parquet"], ids)
    return dict(table["output"])


def _baseline_notes(results: Path, system: str, names: Sequence[str]) -> dict[str, records.Record]:
    """The annotations of the outputs of `names`; they stand in the order of the outputs."""
    outputs = results / "generations" / system / "all.parquet"
    ids = read_table(outputs, ["id"], columns=["id"])["id"].tolist()
    place = {name: row for row, name in enumerate(ids)}
    path = results / "annotations" / system / "all.jsonl"
    wanted = sorted(names, key=place.__getitem__)
    found = records.read_rows(path, map(place.__getitem__, wanted))
    if [record["id"] for record in found] != wanted:
        raise UserError(
            f"{path} does not hold the reports of {outputs} in their order; delete it and run again"
        )
    return dict(zip(wanted, found, strict=True))
