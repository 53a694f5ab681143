"""What differs between two finished runs: provenance, outputs, likelihoods, scores; and why.

Nothing here holds or returns report text: outputs are compared and counted.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from radquant.files import read_table
from radquant.reporting.causes import between_of, can_move, read_by
from radquant.reporting.finished_run import CLINICAL, REFERENCES
from radquant.reporting.formatting import DASH, plain, table
from radquant.reporting.sides import Entry, Side, changed_files, entries
from radquant.scoring.metrics.columns import columns, compared_between_runs
from radquant.settings.run import BASELINES, ORIGINAL

UNEXPLAINED = (
    "nothing in the provenance explains it (sums in varying order on a GPU, a file changed by "
    "hand, or a defect)"
)
HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Moved:
    """How one system differs between the runs, over the reports of both. Changes are B − A."""

    system: str
    reports: int
    outputs: int  # that differ
    scored: int  # reports with a score, a finding or a count that differs
    changes: dict[str, float]  # of the mean of each column that is shown
    references: int  # whose likelihood both have; 0 of a baseline
    likelihoods: int  # that differ
    nll: float  # change of the mean NLL per token, nats
    largest_nll: float  # largest change of a report's NLL per token, nats

    @property
    def what(self) -> set[str]:
        counts = {"outputs": self.outputs, "likelihood": self.likelihoods, "scores": self.scored}
        return {name for name, count in counts.items() if count}


def moved(a: Side, b: Side) -> list[Moved]:
    """Compare what both runs have: systems, and in each the reports, paired by id."""
    return [_moved(a, b, name) for name in a.systems if name in b.systems]


def _moved(a: Side, b: Side, system: str) -> Moved:
    outputs = [_outputs(side, system) for side in (a, b)]
    scores = [_scores(side, system) for side in (a, b)]
    ids = scores[0].index.intersection(scores[1].index)
    one, other = (table.loc[ids] for table in scores)
    written = [column.reindex(ids) for column in outputs]
    nll = [_nats_per_token(side, system) for side in (a, b)]
    references = nll[0].index.intersection(nll[1].index)
    difference = nll[1].loc[references] - nll[0].loc[references]
    return Moved(
        system=system,
        reports=len(ids),
        outputs=int((written[0] != written[1]).sum()),
        scored=int((one != other).any(axis=1).sum()),
        changes={
            column.name: _change(one[column.name], other[column.name])
            for column in compared_between_runs()
        },
        references=len(references),
        likelihoods=int((difference != 0).sum()),
        nll=float(difference.mean()) if len(references) else 0.0,
        largest_nll=float(difference.abs().max()) if len(references) else 0.0,
    )


def _outputs(side: Side, system: str) -> pd.Series:
    folder, count = side.folder / "generations" / system, side.config["generation"]["shards"]
    names = [f"shard-{number}-of-{count}" for number in range(1, count + 1)]
    files = ["all"] if system in BASELINES else names
    tables = [read_table(folder / f"{name}.parquet", ["id", "output"]) for name in files]
    return pd.concat(tables, ignore_index=True).set_index("id")["output"]


def _scores(side: Side, system: str) -> pd.DataFrame:
    """What is counted as a score: all numbers, and what is said of the output."""
    path = side.folder / "scores" / f"{system}.parquet"
    own = [name for name in CLINICAL if name != REFERENCES]
    names = [*(column.name for column in columns()), *own]
    return read_table(path, ["id", *names]).set_index("id")[names]


def _change(one: pd.Series, other: pd.Series) -> float:
    return float((other.astype(float) - one.astype(float)).mean()) if len(one) else 0.0


def _nats_per_token(side: Side, system: str) -> pd.Series:
    if system in BASELINES:
        return pd.Series(dtype=float)
    path = side.folder / "likelihood" / f"{system}.parquet"
    found = read_table(path, ["id", "nll", "tokens"]).set_index("id")
    return found["nll"] / found["tokens"]


def explain(found: Moved, differing: Iterable[Entry], a: Side, b: Side) -> list[Entry]:
    """The entries that can have moved what moved of a system's outputs and likelihoods.

    Scores follow outputs; they have reasons of their own only where no output differs.
    """
    differing = list(differing)
    wanted = found.what - ({"scores"} if found.outputs else set())
    between = between_of(found.system, differing, a, b)
    return [
        entry
        for entry in differing
        if wanted & can_move(entry, found.system, between, a, b) and read_by(entry, found.system)
    ]


def render(a: Side, b: Side) -> str:
    """Return the comparison as Markdown."""
    differing, found = entries(a, b), moved(a, b)
    parts = [
        f"A: {a.folder}\nB: {b.folder}",
        *_integrity(a, b),
        "## What differs in provenance",
        _entries_table(differing) if differing else "Nothing.",
        "## What moved",
        "Changes are B − A over the reports of both; 0 means equal to the last bit.",
        _moved_table(found),
        "## What explains it",
        "\n".join(f"- {line}" for line in _explanations(found, differing, a, b)),
    ]
    return "\n\n".join(parts)


def _integrity(a: Side, b: Side) -> list[str]:
    return [
        f"{side.folder}: not the files that provenance.json names: {', '.join(names)}. They were "
        "changed or removed after the report was written."
        for side in (a, b)
        if (names := changed_files(side))
    ]


def _entries_table(differing: list[Entry]) -> str:
    rows = [[plain(entry.name), _shown(entry.a), _shown(entry.b)] for entry in differing]
    return table(["what", "A", "B"], rows, left=3)


def _shown(value: Any) -> str:
    if value is None:
        return DASH
    if isinstance(value, list):  # what shards on several machines had
        return " / ".join(map(_shown, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{plain(str(key))}={_shown(value[key])}" for key in value) or "none"
    text = plain(str(value))
    return text[:12] if HASH.fullmatch(text) else text


def _moved_table(found: list[Moved]) -> str:
    header = [
        *("system", "reports", "outputs that differ"),
        *(column.label for column in compared_between_runs()),
        *("references", "likelihoods that differ", "NLL per token", "largest of a report"),
    ]
    rows = [
        [
            plain(row.system),
            f"{row.reports:,}",
            f"{row.outputs:,}",
            *map(_signed, row.changes.values()),
            *_likelihood_cells(row),
        ]
        for row in found
    ]
    return table(header, rows)


def _likelihood_cells(row: Moved) -> list[str]:
    if not row.references:
        return [DASH] * 4
    counts = [f"{row.references:,}", f"{row.likelihoods:,}"]
    return [*counts, _signed(row.nll), f"{row.largest_nll:.2g}"]


def _signed(value: float) -> str:
    return f"{value:+.3g}" if value else "0"


def _explanations(found: list[Moved], differing: list[Entry], a: Side, b: Side) -> Iterator[str]:
    for side, other in ((a, b), (b, a)):
        for name in side.systems:
            if name not in other.systems:
                yield f"{name} is in {side.folder} alone."
    if not any(row.what for row in found):
        yield "Outputs, likelihoods and scores are equal, bit for bit."
        return
    original = next(row for row in found if row.system == ORIGINAL)
    for row in found:
        if not row.what:
            yield f"{row.system}: equal, bit for bit."
            continue
        reasons = [_reason(entry) for entry in explain(row, differing, a, b)]
        if row.what == {"scores"} and original.outputs:
            reasons.append("the original's outputs, against which fidelity and changes are scored")
        what = " and ".join(sorted(row.what))
        why = f"can come from {'; '.join(reasons)}" if reasons else UNEXPLAINED
        yield f"{row.system}, {what}: {why}."


def _reason(entry: Entry) -> str:
    return f"{plain(entry.name)} ({_shown(entry.a)} → {_shown(entry.b)})"
