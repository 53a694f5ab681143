"""Reading everything that the report needs, and refusing what cannot be compared."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import SafetensorError, safe_open

from radquant.corpus.evaluation import written_reports
from radquant.errors import UserError
from radquant.files import read_json, read_table, require_file, sha256_file, sha256_text
from radquant.model_files import is_gguf
from radquant.packed.formats import settings_of
from radquant.reporting.checks import (
    COMPUTED_AS,
    SHARED_SETTINGS,
    check_computed,
    check_prompts,
    check_same_reports,
    check_settings,
    check_speed,
    check_tokens,
    check_unique,
    first_id,
)
from radquant.reporting.finished_run import CLINICAL, REFERENCES, Run
from radquant.reporting.measured import join_measures
from radquant.reporting.patients import patients_of
from radquant.reporting.speed import why_no_speed
from radquant.runtime.layer_names import quantized_layers
from radquant.scoring import records as annotation_records
from radquant.scoring.metrics.columns import columns
from radquant.scoring.records import Records
from radquant.settings.precision import as_values
from radquant.settings.run import BASELINES, ORIGINAL, needs_texts

GENERATION_COLUMNS = [
    *("id", "prompt_hash", "prompt_tokens", "truncated_tokens"),
    *("output", "output_tokens", "finish_reason"),
]
SHARD_KEYS = [
    *("precision", *SHARED_SETTINGS, "engine", "simulated", "device_name", "kernel"),
    *("reports", "batches", "prefill_seconds", "decode_seconds", "decode_tokens"),
    *("cpu_capability", "cpu_limits"),
    *("prompt_tokens", "output_tokens", "wall_seconds", "cpu_seconds", "tokens_per_second"),
    *("latency_seconds", "load_seconds", "peak_process_bytes", "peak_device_bytes", "weight_bytes"),
    *COMPUTED_AS,
    *("truncated_prompts", "same_input_reports", "too_large_batches"),
]
LIKELIHOOD_KEYS = ["precision", "wall_seconds", "cpu_seconds", "too_large_batches", *COMPUTED_AS]


def score_columns() -> list[str]:
    return ["id", "annotator", "rewards", *(column.name for column in columns()), *CLINICAL]


def collect(results: str | Path, config: Mapping[str, Any]) -> Run:
    """Read and check a finished run under `results`; raises UserError on what does not fit."""
    results, config = Path(results), dict(config)
    precisions = _ordered_precisions(config)
    path = results / "data" / "eval.csv"
    evaluation = _read_reports(path, config["task"]["target"])
    reports = written_reports(evaluation, config["generation"].get("reports"), path)
    every_id, ids = evaluation["id"].tolist(), reports["id"].tolist()
    patients = patients_of(evaluation)
    systems = [*precisions, *BASELINES]
    scores = {name: _read_scores(results / "scores", name, ids) for name in systems}
    read = {name: _read_generations(results, name, config, ids) for name in precisions}
    generations = {name: table for name, (table, _) in read.items()}
    shards = {name: records for name, (_, records) in read.items()}
    scores, measures = join_measures(results, config, scores, reports, generations)
    check_settings(shards)
    check_prompts(generations)
    likelihood = {name: _read_likelihood(results, name, every_id) for name in precisions}
    check_tokens(likelihood)
    used = sorted({config["precisions"][name]["checkpoint"] for name in precisions} - {ORIGINAL})
    quantization = {name: _read_quantization(results, name) for name in used}
    run = Run(
        folder=results,
        config=config,
        precisions=precisions,
        annotator=_annotator(scores, config["scoring"]["annotator"]),
        rewards=_only("rewards", scores),
        measures=measures,
        reports=reports[["id", "reference"]],
        patients=None if patients is None else patients[: len(ids)],
        all_patients=patients,
        scores=scores,
        generations=generations,
        annotations=_read_annotations(results, config, evaluation, generations, scores),
        shards=shards,
        likelihood=likelihood,
        likelihood_costs={
            name: _read_record(results / "likelihood" / f"{name}.json", LIKELIHOOD_KEYS)
            for name in precisions
        },
        quantization=quantization,
        stated={name: _stated(results / "checkpoints" / name) for name in used},
        disk_bytes={
            ORIGINAL: _weight_bytes(results / "models" / ORIGINAL),
            **{name: _weight_bytes(results / "checkpoints" / name) for name in used},
        },
        stored_dtypes=_stored_dtypes(results / "models" / ORIGINAL),
        speed=_read_speed(results / "speed.json", config),
        cleaning=_read_record(
            results / "data" / "cleaning.json", ["steps", "train", "eval", "split", "unit"]
        ),
        calibration=_read_calibration(results, config, used),
        source=_read_record(results / "models" / ORIGINAL / "source.json", ["files"]),
        hashes=_hashes(results, generations[ORIGINAL]),
    )
    for name in precisions:
        numbered = enumerate(shards[name], 1)
        records = {f"generations/{name}, shard {number}": record for number, record in numbered}
        records[f"likelihood/{name}"] = run.likelihood_costs[name]
        check_computed(name, records, _computed_as(run, name))
        if run.speed and "engine" in (timed := run.speed["precisions"][name]):
            place = f"speed.json, precision {name}"
            check_computed(name, {place: timed}, _computed_as(run, name), "delete it")
    return run


def _computed_as(run: Run, precision: str) -> dict[str, Any]:
    """What COMPUTED_AS names must be in every record of a precision."""
    checkpoint, rounding = run.checkpoint(precision), run.activations(precision)
    layers = [] if checkpoint == ORIGINAL else run.quantization[checkpoint]["layers"]
    if checkpoint != ORIGINAL and not layers:
        raise UserError(f"checkpoints/{checkpoint} has no quantized layer; quantize it again")
    rounded = 0
    if rounding is not None:
        said = run.stated.get(checkpoint, {}).get("settings")
        names = [layer["name"] for layer in layers]
        if said is not None:  # of some layers, that their inputs stay as they are
            names = [name for name in names if not ((own := said.of(name)) and own.keeps_inputs)]
        rounded = len(quantized_layers(names, rounding))
    return {
        "layers_quantized": len(layers),
        "activation_layers": rounded,
        "activations": as_values(rounding),
        "kv_cache": as_values(run.kv_cache(precision)),
        "lm_head": as_values(run.lm_head(precision)),
        "stored_prefix_tokens": len(run.prefix(precision)),
    }


def _ordered_precisions(config: Mapping[str, Any]) -> list[str]:
    precisions = config["precisions"]
    if ORIGINAL not in precisions:
        raise UserError(
            "the configuration has no precision named 'original' to compare with; add it"
        )

    return [ORIGINAL, *(name for name in precisions if name != ORIGINAL)]


def _read_reports(path: Path, target: str) -> pd.DataFrame:
    table = read_table(path, require=["id", target], columns={"id", target, "group"})
    check_unique(table["id"], path)
    # A table without the column is of a corpus that knows no patients.
    group = table["group"] if "group" in table.columns else ""
    return pd.DataFrame({"id": table["id"], "reference": table[target], "group": group})


def _read_scores(folder: Path, system: str, ids: Sequence[str]) -> pd.DataFrame:
    path = folder / f"{system}.parquet"
    table = read_table(path, require=score_columns())
    check_same_reports(table["id"].tolist(), ids, path)
    for column in columns():
        if column.kind is not float:
            continue
        low, high = column.range
        values = table[column.name]
        # nan is outside, too
        bad = ~values.between(low, high) | values.isin([math.inf, -math.inf])
        if bad.any():
            raise UserError(
                f"{path}, column {column.name!r}: {int(bad.sum())} value(s) are not numbers from "
                f"{low:g} to {high:g}, first at id {first_id(table, bad)}; delete the file and run "
                "again"
            )
    unread = CLINICAL if system in BASELINES else set() if system == ORIGINAL else {REFERENCES}
    same = {column: table[column].astype("category") for column in ("annotator", "rewards")}
    return table[[name for name in score_columns() if name not in unread]].assign(**same)


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
    check_unique(table["id"], folder)
    check_same_reports(sorted(table["id"]), sorted(ids), folder)
    return table.set_index("id").loc[list(ids)].reset_index(), records


def _read_annotations(
    results: Path,
    config: Mapping[str, Any],
    evaluation: pd.DataFrame,
    generations: Mapping[str, pd.DataFrame],
    scores: Mapping[str, pd.DataFrame],
) -> dict[str, Records]:
    """Return the annotations that the scores were made from, by 'reference' or precision.

    References are annotated whole, however few of the reports were written.
    """
    folder, count = results / "annotations", config["generation"]["shards"]
    annotator = _only("annotator", scores)
    places = {"reference": [folder / "reference.jsonl"]}
    texts = {"reference": evaluation.set_index("id")["reference"]}
    for name, table in generations.items():
        shards = range(1, count + 1)
        places[name] = [folder / name / f"shard-{shard}-of-{count}.jsonl" for shard in shards]
        texts[name] = table.set_index("id")["output"]
    found = {}
    for name, paths in places.items():
        notes = annotation_records.read(paths)
        check_same_reports(sorted(notes), sorted(texts[name].index), paths[0].parent)
        what = "annotation" if name == "reference" else f"annotation of {name}'s output"
        annotation_records.check_texts(notes, texts[name], what)
        others = notes.annotators - {annotator}
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
    check_unique(table["id"], path)
    check_same_reports(sorted(table["id"]), sorted(ids), path)
    table = table.set_index("id").loc[list(ids)].reset_index()
    bad = ~table["nll"].map(math.isfinite) | (table["tokens"] < 1)
    if bad.any():
        raise UserError(
            f"{path}: {int(bad.sum())} report(s) have no finite likelihood, first id "
            f"{first_id(table, bad)}; the model's weights or its dtype are at fault"
        )
    return table


def _read_quantization(results: Path, name: str) -> dict[str, Any]:
    """A checkpoint's quantization.json, and under "verification" what was found of its weights.

    None of results of a time when checkpoints were not verified.
    """
    folder = results / "checkpoints" / name
    record = _read_record(
        folder / "quantization.json",
        ["layers", "files", "wall_seconds", "cpu_seconds", "peak_process_bytes"],
    )
    if not any(record.get(key) for key in ("recipe", "source", "tool")):
        raise UserError(
            f"{folder / 'quantization.json'} names neither a recipe nor a source; delete the "
            "directory and run again"
        )
    verified = results / "verification" / f"{name}.json"
    keys = ["notes", "checks", "worst", "broken"]
    found = _read_record(verified, keys) if verified.exists() else None
    return {**record, "verification": found}


def _stated(folder: Path) -> dict[str, Any]:
    """What a checkpoint's config.json says of activations and cache."""
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    quantization = config.get("quantization_config")
    if not quantization or is_gguf(quantization):  # which speaks of weights alone
        return {}
    settings = settings_of(quantization.get("weights", quantization))
    return {
        "activations": as_values(settings.activations),
        "kv_cache": as_values(settings.kv_cache),
        "settings": settings,
    }


def _read_calibration(
    results: Path, config: Mapping[str, Any], checkpoints: Iterable[str]
) -> dict[str, Any] | None:
    recipes = [config["checkpoints"][name] for name in checkpoints]
    if not any(map(needs_texts, recipes)):
        return None
    return _read_record(
        results / "calibration" / "set.json",
        ["samples", "tokens", "texts", "packed", "source", "prompt_hash"],
    )


def _read_speed(path: Path, config: Mapping[str, Any]) -> dict[str, Any] | None:
    if why_no_speed(config) is not None:
        return None
    record = _read_record(path, ["precisions", "reports", "tokens", "repeats", "batch_size"])
    check_speed(path, record, config)
    return record


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
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.gguf")])
    if not files:
        raise UserError(
            f"{folder} holds no model*.safetensors or .gguf; run the workflow to make it"
        )
    return files


def _weight_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in _weight_files(folder))


def _stored_dtypes(folder: Path) -> list[str]:
    found = set()
    for path in _weight_files(folder):
        try:
            with safe_open(path, framework="numpy") as file:
                found |= {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
        except SafetensorError:
            raise UserError(
                f"{path} is no whole safetensors file; delete the directory and run again"
            ) from None
    return sorted(found)


def _hashes(results: Path, generations: pd.DataFrame) -> dict[str, str]:
    names = ["data/raw.parquet", "data/train.csv", "data/eval.csv"]
    for name in names:
        require_file(results / name)
    hashes = {name: sha256_file(results / name) for name in names}
    return {**hashes, "rendered prompts": sha256_text("\n".join(generations["prompt_hash"]))}


def _annotator(scores: Mapping[str, pd.DataFrame], expected: str) -> str:
    annotator = _only("annotator", scores)
    if annotator.split()[0] != expected:  # with which its identity begins
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
