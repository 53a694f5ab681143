"""Reading everything that the report needs, and refusing what cannot be compared."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import safe_open

from radquant.errors import UserError
from radquant.files import read_json, read_table, require_file, sha256_file, sha256_text
from radquant.scoring import radgraph1
from radquant.scoring import records as annotation_records
from radquant.scoring.records import Record

ORIGINAL = "original"
BASELINES = ("copy-input", "constant")
ANNOTATORS = {"lexicon": "clinical F1 (lexicon)", "radgraph": "RadGraph F1"}

SCORES = [
    *("simple", "partial", "complete"),
    *("fidelity_simple", "fidelity_partial", "fidelity_complete"),
    *radgraph1.COLUMNS,
    *("rouge_l", "rouge_l_original"),
]
# Written as JSON: what `radquant.scoring.changes` and `findings` say of a report.
CLINICAL = ("statuses", "reference_statuses", "changes", "unsupported", "flags")
SCORE_COLUMNS = [
    *("id", "annotator", "rewards", *SCORES),
    *("identical", "output_words", "empty", *CLINICAL),
]
GENERATION_COLUMNS = [
    *("id", "prompt_hash", "prompt_tokens", "truncated_tokens"),
    *("output", "output_tokens", "finish_reason"),
]
# What must be equal in all shards of all precisions for their scores and speeds to be compared.
SHARED_SETTINGS = [
    *(
        "engine",
        "device",
        "dtype",
        "threads",
        "batch_size",
        "max_new_tokens",
        "examples",
        "versions",
    ),
]
SHARD_KEYS = [
    *("precision", *SHARED_SETTINGS, "device_name", "kernel", "reports", "batches"),
    *("prompt_tokens", "output_tokens", "wall_seconds", "cpu_seconds", "tokens_per_second"),
    *("latency_seconds", "load_seconds", "peak_process_bytes", "peak_device_bytes", "weight_bytes"),
    *("layers_quantized", "activation_layers", "activation_bits", "truncated_prompts"),
]


@dataclass(frozen=True)
class Run:
    """All inputs of a report, checked. Every table has one row per report, in the same order."""

    config: dict[str, Any]
    precisions: list[str]  # the original first, then as the configuration has them
    annotator: str  # 'lexicon 1 (sha256 …)'
    rewards: str  # which definitions of F1
    reports: pd.DataFrame  # id, reference
    scores: dict[str, pd.DataFrame]  # per precision and baseline, SCORE_COLUMNS, CLINICAL parsed
    generations: dict[str, pd.DataFrame]  # per precision, GENERATION_COLUMNS
    annotations: dict[str, dict[str, Record]]  # of 'reference' and each precision, by id
    shards: dict[str, list[dict[str, Any]]]  # per precision, the records of its shards
    likelihood: dict[str, pd.DataFrame]  # per precision: id, nll (nats), tokens
    likelihood_costs: dict[str, dict[str, Any]]
    quantization: dict[str, dict[str, Any]]  # per quantized checkpoint, quantization.json
    disk_bytes: dict[str, int]  # per checkpoint, its weight files
    stored_dtypes: list[str]  # of the original's weight files: 'F16', 'BF16' …
    cleaning: dict[str, Any]
    calibration: dict[str, Any] | None  # set.json; None where no checkpoint needs calibration
    source: dict[str, Any]  # models/original/source.json
    hashes: dict[str, str]  # sha256 of the data and of the rendered prompts

    @property
    def quantized(self) -> list[str]:
        return [name for name in self.precisions if name != ORIGINAL]

    def checkpoint(self, precision: str) -> str:
        return str(self.config["precisions"][precision]["checkpoint"])

    def activation_bits(self, precision: str) -> int | None:
        activations = self.config["precisions"][precision].get("activations")
        return None if activations is None else int(activations["bits"])


def collect(results: str | Path, config: Mapping[str, Any]) -> Run:
    """Read and check a finished run under `results`; raises UserError on what does not fit."""
    results, config = Path(results), dict(config)
    precisions = _ordered_precisions(config)
    reports = _read_reports(results / "data" / "eval.csv", config["task"]["target"])
    ids = reports["id"].tolist()
    systems = [*precisions, *BASELINES]
    scores = {name: _read_scores(results / "scores" / f"{name}.parquet", ids) for name in systems}
    read = {name: _read_generations(results, name, config, ids) for name in precisions}
    generations = {name: table for name, (table, _) in read.items()}
    shards = {name: records for name, (_, records) in read.items()}
    _check_settings(shards)
    _check_prompts(generations)
    likelihood = {name: _read_likelihood(results, name, ids) for name in precisions}
    _check_tokens(likelihood)
    used = sorted({config["precisions"][name]["checkpoint"] for name in precisions} - {ORIGINAL})
    quantization = {name: _read_quantization(results / "checkpoints" / name) for name in used}
    run = Run(
        config=config,
        precisions=precisions,
        annotator=_annotator(scores, config["scoring"]["annotator"]),
        rewards=_only("rewards", scores),
        reports=reports,
        scores=scores,
        generations=generations,
        annotations=_read_annotations(results, config, reports, generations, scores),
        shards=shards,
        likelihood=likelihood,
        likelihood_costs={
            name: _read_record(
                results / "likelihood" / f"{name}.json", ["wall_seconds", "cpu_seconds"]
            )
            for name in precisions
        },
        quantization=quantization,
        disk_bytes={
            ORIGINAL: _weight_bytes(results / "models" / ORIGINAL),
            **{name: _weight_bytes(results / "checkpoints" / name) for name in used},
        },
        stored_dtypes=_stored_dtypes(results / "models" / ORIGINAL),
        cleaning=_read_record(
            results / "data" / "cleaning.json", ["steps", "train", "eval", "split", "unit"]
        ),
        calibration=_read_calibration(results, config, used),
        source=_read_record(results / "models" / ORIGINAL / "source.json", ["files"]),
        hashes=_hashes(results, generations[ORIGINAL]),
    )
    _check_layers(run)
    return run


def _ordered_precisions(config: Mapping[str, Any]) -> list[str]:
    precisions = config["precisions"]
    if ORIGINAL not in precisions:
        raise UserError(
            "the configuration has no precision named 'original' to compare with; add it"
        )

    return [ORIGINAL, *(name for name in precisions if name != ORIGINAL)]


def _read_reports(path: Path, target: str) -> pd.DataFrame:
    table = read_table(path, require=["id", target])
    _check_unique(table["id"], path)
    return pd.DataFrame({"id": table["id"], "reference": table[target]})


def _read_scores(path: Path, ids: Sequence[str]) -> pd.DataFrame:
    table = read_table(path, require=SCORE_COLUMNS)
    _check_same_reports(table["id"].tolist(), ids, path)
    for column in SCORES:
        bad = ~table[column].between(0, 1)  # nan is outside too
        if bad.any():
            raise UserError(
                f"{path}, column {column!r}: {int(bad.sum())} value(s) are not numbers from 0 to "
                f"1, first at id {_first_id(table, bad)}; delete the file and run again"
            )
    return table.assign(**{column: table[column].map(json.loads) for column in CLINICAL})


def _read_generations(
    results: Path, precision: str, config: Mapping[str, Any], ids: Sequence[str]
) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Return the outputs of all shards in the order of `ids`, and the shards' records."""
    folder, count = results / "generations" / precision, config["generation"]["shards"]
    stems = [folder / f"shard-{number}-of-{count}" for number in range(1, count + 1)]
    tables = [
        read_table(stem.with_name(stem.name + ".parquet"), GENERATION_COLUMNS) for stem in stems
    ]
    records = [_read_record(stem.with_name(stem.name + ".json"), SHARD_KEYS) for stem in stems]
    for stem, table, record in zip(stems, tables, records, strict=True):
        if record["precision"] != precision:
            raise UserError(
                f"{stem}.json is a record of precision {record['precision']!r}, not of "
                f"{precision!r}; delete it and run again"
            )
        if record["reports"] != len(table):
            raise UserError(
                f"{stem}.json tells of {record['reports']} reports, but {stem.name}.parquet holds "
                f"{len(table)}; delete both and run again"
            )
    table = pd.concat(tables, ignore_index=True)
    _check_unique(table["id"], folder)
    _check_same_reports(sorted(table["id"]), sorted(ids), folder)
    return table.set_index("id").loc[list(ids)].reset_index(), records


def _read_annotations(
    results: Path,
    config: Mapping[str, Any],
    reports: pd.DataFrame,
    generations: Mapping[str, pd.DataFrame],
    scores: Mapping[str, pd.DataFrame],
) -> dict[str, dict[str, Record]]:
    """Return the annotations that the scores were made from, by 'reference' or precision."""
    folder, count = results / "annotations", config["generation"]["shards"]
    annotator = _only("annotator", scores)
    places = {"reference": [folder / "reference.jsonl"]}
    texts = {"reference": reports.set_index("id")["reference"]}
    for name, table in generations.items():
        shards = range(1, count + 1)
        places[name] = [folder / name / f"shard-{shard}-of-{count}.jsonl" for shard in shards]
        texts[name] = table.set_index("id")["output"]
    found = {}
    for name, paths in places.items():
        notes = annotation_records.read(paths)
        _check_same_reports(sorted(notes), sorted(texts[name].index), paths[0].parent)
        what = "annotation" if name == "reference" else f"annotation of {name}'s output"
        annotation_records.check_texts(notes, texts[name], what)
        others = {note["annotator"] for note in notes.values()} - {annotator}
        if others:
            raise UserError(
                f"annotations of {name} come from {min(others)}, but the scores from {annotator}; "
                "delete results/annotations and results/scores and run again"
            )
        found[name] = notes
    return found


def _read_likelihood(results: Path, precision: str, ids: Sequence[str]) -> pd.DataFrame:
    path = results / "likelihood" / f"{precision}.parquet"
    table = read_table(path, require=["id", "nll", "tokens"])
    _check_unique(table["id"], path)
    _check_same_reports(sorted(table["id"]), sorted(ids), path)
    table = table.set_index("id").loc[list(ids)].reset_index()
    bad = ~table["nll"].map(math.isfinite) | (table["tokens"] < 1)
    if bad.any():
        raise UserError(
            f"{path}: {int(bad.sum())} report(s) have no finite likelihood, first id "
            f"{_first_id(table, bad)}; the model's weights or its dtype are at fault"
        )
    return table


def _read_quantization(folder: Path) -> dict[str, Any]:
    return _read_record(
        folder / "quantization.json",
        ["recipe", "layers", "wall_seconds", "cpu_seconds", "peak_process_bytes"],
    )


def _read_calibration(
    results: Path, config: Mapping[str, Any], checkpoints: Iterable[str]
) -> dict[str, Any] | None:
    if all(config["checkpoints"][name]["method"] == "rtn" for name in checkpoints):
        return None
    return _read_record(
        results / "calibration" / "set.json",
        ["samples", "tokens", "texts", "packed", "source", "prompt_hash"],
    )


def _read_record(path: Path, require: Sequence[str]) -> dict[str, Any]:
    record: dict[str, Any] = read_json(path)
    missing = [key for key in require if key not in record]
    if missing:
        raise UserError(
            f"{path} lacks {', '.join(missing)}; it comes from another version, so delete it and "
            "run again"
        )
    return record


def _weight_files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise UserError(f"{folder} holds no model*.safetensors; run the workflow to make it")
    return files


def _weight_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in _weight_files(folder))


def _stored_dtypes(folder: Path) -> list[str]:
    found = set()
    for path in _weight_files(folder):
        with safe_open(path, framework="numpy") as file:
            found |= {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    return sorted(found)


def _hashes(results: Path, generations: pd.DataFrame) -> dict[str, str]:
    names = ["data/raw.parquet", "data/train.csv", "data/eval.csv"]
    for name in names:
        require_file(results / name)
    hashes = {name: sha256_file(results / name) for name in names}
    return {**hashes, "rendered prompts": sha256_text("\n".join(generations["prompt_hash"]))}


def _first_id(table: pd.DataFrame, chosen: pd.Series) -> str:
    return repr(table.loc[chosen, "id"].iloc[0])


def _check_unique(ids: pd.Series, where: Path) -> None:
    double = ids[ids.duplicated()]
    if len(double):
        raise UserError(
            f"{where}: id {double.iloc[0]!r} appears more than once; delete it and run again"
        )


def _check_same_reports(found: Sequence[str], expected: Sequence[str], where: Path) -> None:
    """Refuse what was not measured on exactly the evaluation reports, in their order."""
    if len(found) != len(expected):
        raise UserError(
            f"{where} has {len(found)} rows, but data/eval.csv has {len(expected)} reports; "
            "delete it and run again"
        )
    for row, (one, other) in enumerate(zip(found, expected, strict=True), 1):
        if one != other:
            raise UserError(
                f"{where}, row {row}: id {one!r} stands where data/eval.csv has {other!r}, so the "
                "reports cannot be paired; delete it and run again"
            )


def _annotator(scores: Mapping[str, pd.DataFrame], expected: str) -> str:
    annotator = _only("annotator", scores)
    if expected not in annotator.split()[0]:  # 'radgraph' stands in 'modern-radgraph-xl' too
        raise UserError(
            f"the scores come from {annotator}, but scoring: annotator asks for {expected}; delete "
            "results/annotations and results/scores and run again"
        )
    return annotator


def _only(column: str, scores: Mapping[str, pd.DataFrame]) -> str:
    """Return the one value that `column` has in all scores; F1 of two kinds cannot be compared."""
    owner = {value: system for system, table in scores.items() for value in table[column]}
    if len(owner) > 1:
        found = "; ".join(f"{value} in scores/{system}" for value, system in sorted(owner.items()))
        raise UserError(
            f"scores with different values of {column!r} cannot share a report ({found}); delete "
            "results/annotations and results/scores and run again"
        )
    return str(next(iter(owner)))


def _check_settings(shards: Mapping[str, list[dict[str, Any]]]) -> None:
    first_place, first = None, None
    for precision, records in shards.items():
        for number, record in enumerate(records, 1):
            place = f"generations/{precision}, shard {number}"
            if first is None:
                first_place, first = place, record
            for key in SHARED_SETTINGS:
                if record[key] != first[key]:
                    raise UserError(
                        f"{place} ran with {key} {record[key]!r}, but {first_place} with "
                        f"{first[key]!r}; delete results/generations and run again"
                    )


def _check_prompts(generations: Mapping[str, pd.DataFrame]) -> None:
    expected = generations[ORIGINAL]["prompt_hash"]
    for precision, table in generations.items():
        other = table["prompt_hash"] != expected
        if other.any():
            raise UserError(
                f"generations/{precision}: {int(other.sum())} report(s) had another prompt than "
                f"the original model, first id {_first_id(table, other)}; delete "
                "results/generations and run again"
            )


def _check_tokens(likelihood: Mapping[str, pd.DataFrame]) -> None:
    for precision, table in likelihood.items():
        if (table["tokens"] != likelihood[ORIGINAL]["tokens"]).any():
            raise UserError(
                f"likelihood/{precision} counts other tokens than likelihood/{ORIGINAL}, so the "
                "two cannot be paired; delete results/likelihood and run again"
            )


def _check_layers(run: Run) -> None:
    """Refuse a 'quantized' model in which nothing, or not everything, was quantized."""
    for precision in run.precisions:
        checkpoint, bits = run.checkpoint(precision), run.activation_bits(precision)
        layers = 0 if checkpoint == ORIGINAL else len(run.quantization[checkpoint]["layers"])
        if checkpoint != ORIGINAL and layers == 0:
            raise UserError(f"checkpoints/{checkpoint} has no quantized layer; quantize it again")
        for number, record in enumerate(run.shards[precision], 1):
            place = f"generations/{precision}, shard {number}"
            found = {
                "quantized layers": (record["layers_quantized"], layers),
                "layers with quantized activations": (
                    record["activation_layers"],
                    0 if bits is None else layers,
                ),
                "activation bits": (record["activation_bits"], bits),
            }
            for what, (got, expected) in found.items():
                if got != expected:
                    raise UserError(
                        f"{place} had {got} {what} instead of {expected}; delete "
                        f"results/generations/{precision} and run again"
                    )
