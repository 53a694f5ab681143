"""What differs between two finished runs: provenance, outputs, likelihoods, scores; and why.

Nothing here holds or returns report text: outputs are compared and counted.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from radquant import registry
from radquant.errors import UserError
from radquant.files import read_json, read_table, sha256_file
from radquant.reporting.collect import BASELINES, CLINICAL, ORIGINAL, REFERENCES, annotator_of
from radquant.reporting.formatting import DASH, plain, table
from radquant.reporting.provenance import FORMAT
from radquant.scoring.metrics.columns import columns, compared_between_runs

UNEXPLAINED = (
    "nothing in the provenance explains it (sums in varying order on a GPU, a file changed by "
    "hand, or a defect)"
)
HASH = re.compile(r"[0-9a-f]{64}")
MODEL = frozenset({"outputs", "likelihood"})
ALL = frozenset({"outputs", "likelihood", "scores"})
NOTHING: frozenset[str] = frozenset()

# What an entry can move, by the first pattern that its name begins with. The third column names
# what lies between, if the entry acts through nothing else: where that is equal in both runs, the
# entry has moved nothing.
EFFECTS: list[tuple[str, frozenset[str], str]] = [
    ("config statistics|config (model|corpus) name|config generation shards", NOTHING, ""),
    (
        "code (src/radquant/(reporting/|statistics|export/)|scripts/(report|export)\\.py)",
        NOTHING,
        "",
    ),
    ("code (commit|changed)", NOTHING, ""),
    ("config scoring|annotator|rewards", frozenset({"scores"}), ""),
    ("code (src/radquant/scoring/|scripts/(score|annotate)\\.py)", frozenset({"scores"}), ""),
    ("config generation (max_new_tokens|stop|reports)", frozenset({"outputs"}), ""),
    ("config (generation|compute|task)|prompts (generation|rendered)|machine|seed", MODEL, ""),
    ("config corpus image_root", MODEL, ""),
    ("config (corpus|cleaning|evaluation)|data data/raw", ALL, "data"),
    ("code (src/radquant/corpus/|scripts/(fetch_corpus|clean)\\.py)", ALL, "data"),
    ("data data/eval", ALL, ""),
    ("data data/train", MODEL, ""),
    ("config model|code scripts/fetch_model", MODEL, "original"),
    ("config calibration|calibration|prompts calibration|environments", MODEL, "checkpoint"),
    ("config checkpoints|stages quantize", MODEL, "checkpoint"),
    ("code (scripts/(calibration_set|fetch_texts|quantize.*)\\.py)", MODEL, "checkpoint"),
    ("checkpoints|config precisions|stages", MODEL, ""),
    ("code|packages", ALL, ""),
]


@dataclass(frozen=True)
class Side:
    """One of the two runs."""

    folder: Path
    record: dict[str, Any]  # provenance.json

    @property
    def config(self) -> dict[str, Any]:
        return dict(self.record["config"]["values"])

    @property
    def systems(self) -> list[str]:
        names = [name for name in self.config["precisions"] if name != ORIGINAL]
        return [ORIGINAL, *names, *BASELINES]

    def checkpoint(self, system: str) -> str | None:
        precision = self.config["precisions"].get(system)
        return None if precision is None else str(precision["checkpoint"])


@dataclass(frozen=True)
class Entry:
    """A value of the provenance that differs; `path` says which, None where it is absent."""

    path: tuple[str, ...]
    a: Any
    b: Any

    @property
    def name(self) -> str:
        return " ".join(self.path)


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


def read_side(folder: Path) -> Side:
    """Raise UserError where `folder` holds no finished run, or one of another version."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the results folder of a finished run")
    path = folder / "provenance.json"
    if not path.is_file():
        raise UserError(f"{path} does not exist; finish the run in {folder} with this version")
    record = read_json(path)
    if record.get("format") != FORMAT:
        raise UserError(
            f"{path} has format {record.get('format')!r} and this program reads {FORMAT}; make the "
            "report again with this version"
        )
    return Side(folder, record)


def entries(a: Side, b: Side) -> list[Entry]:
    """All values of the two provenances that differ, in the order of their names."""
    one, other = dict(_leaves(_inputs(a.record))), dict(_leaves(_inputs(b.record)))
    paths = sorted({*one, *other})
    return [
        Entry(path, one.get(path), other.get(path))
        for path in paths
        if one.get(path) != other.get(path)
    ]


def _inputs(record: Mapping[str, Any]) -> dict[str, Any]:
    """The provenance without what follows from the rest of it."""
    code = record["code"]
    return {
        **{key: value for key, value in record.items() if key not in ("format", "results")},
        "config": {
            key: value for key, value in record["config"]["values"].items() if key != "seed"
        },
        "code": {"commit": code["commit"], "changed": code["changed"], **code["files"]},
    }


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(path, value) of all that is no dict."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, str(key)))
    else:
        yield path, value


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


def changed_files(side: Side) -> list[str]:
    """The result files that are no longer, or not, those that provenance.json names."""
    return [
        name
        for name, digest in side.record["results"].items()
        if not (side.folder / name).is_file() or sha256_file(side.folder / name) != digest
    ]


def explain(found: Moved, differing: Iterable[Entry], a: Side, b: Side) -> list[Entry]:
    """The entries that can have moved what moved of a system's outputs and likelihoods.

    Scores follow outputs; they have reasons of their own only where no output differs.
    """
    differing = list(differing)
    wanted = found.what - ({"scores"} if found.outputs else set())
    between = _between(found.system, differing, a, b)
    return [
        entry
        for entry in differing
        if wanted & can_move(entry, found.system, between, a, b) and _read_by(entry, found.system)
    ]


def _between(system: str, differing: Iterable[Entry], a: Side, b: Side) -> set[str]:
    """Which of what lies between entries and outputs differs: '' always, 'data', 'original' (the
    original model's files), 'checkpoint' (those of the system's quantized one)."""
    names = [entry.name for entry in differing]
    own = {a.checkpoint(system), b.checkpoint(system)} - {None, ORIGINAL}
    found = {""}
    if any(name.startswith(f"checkpoints {ORIGINAL} ") for name in names):
        found.add("original")
    if any(name.startswith(("data data/train", "data data/eval")) for name in names):
        found.add("data")
    if any(name.startswith(f"checkpoints {each} ") for name in names for each in own):
        found.add("checkpoint")
    return found


def can_move(entry: Entry, system: str, between: set[str], a: Side, b: Side) -> frozenset[str]:
    own = {a.checkpoint(system), b.checkpoint(system)}
    section, which = entry.path[0], entry.path[1:3]
    if section == "checkpoints" and which[0] not in own:
        return NOTHING
    if (
        entry.path[:2] in (("config", "checkpoints"), ("stages", "quantize"))
        and which[1] not in own
    ):
        return NOTHING
    if section == "stages" and which[0] != "quantize":
        stage, precision = which
        mine = frozenset({"outputs" if stage == "generate" else stage})
        return mine if precision == system else NOTHING
    if section == "environments" and which[0] in _annotator_environments(a, b):
        return frozenset({"scores"})
    if entry.path[:2] == ("config", "precisions"):
        return MODEL if which[1] == system else NOTHING
    for pattern, moves, through in EFFECTS:
        if re.match(rf"(?:{pattern})", entry.name):
            return moves if through in between else NOTHING
    raise AssertionError(f"no effect is known of {entry.name}")


def _annotator_environments(a: Side, b: Side) -> set[str | None]:
    """Where the runs' annotators ran, as far as this version knows them."""
    configs = [side.config for side in (a, b)]
    known = [x for x in configs if x["scoring"].get("annotator") in registry.ANNOTATORS]
    return {annotator_of(config).ENVIRONMENT for config in known}


def _read_by(entry: Entry, system: str) -> bool:
    """Baselines need neither a model nor what runs one."""
    if system not in BASELINES:
        return True
    return bool(
        re.match(
            r"seed|data|code|packages|annotator|rewards|config (task|scoring)|"
            r"config (corpus|cleaning|evaluation)|config generation reports",
            entry.name,
        )
    )


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
