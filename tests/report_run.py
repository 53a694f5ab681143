"""A small finished run with known effects, for the tests of the report; all sentences invented."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

from radquant.files import read_json, read_table, sha256_text, write_json, write_jsonl, write_table
from radquant.scoring.errors import KINDS
from radquant.scoring.metrics.columns import columns
from radquant.settings.precision import activations_of, as_values, kv_cache_of, lm_head_of
from radquant.settings.recipe import Recipe, recipe_values

ROOT = Path(__file__).parents[1]
HOSTILE = "Clear | lungs <script>alert(1)</script>\n```\n# *no* effusion \x1b[31m & [x](y)"
REPORTS = 24
# Of the CheXpert labels and the kinds of errors.
COUNTED = [column.name for column in columns() if column.name.startswith("chexpert_")]
COUNTED += [f"errors_{kind.replace(' ', '_')}" for kind in KINDS]
LAYERS = ["l.0", "l.1", "l.2"]
PREFIX = [13, 2]  # token ids that a checkpoint with a prefix stores
# By precision: mean and spread of the change of the combined F1, and change of the NLL per token.
EFFECTS = {
    "original": (0.0, 0.0, 0.0),
    "w4a16": (0.0, 0.0, 0.1),
    "w4a16-rtn": (-0.02, 0.005, 0.3),
    "w4a8": (-0.005, 0.1, 0.15),
    "w4a4": (-0.3, 0.05, 3.0),
}
CONFIG = {
    "seed": 7,
    "model": {"name": "tiny_model", "path": "models/tiny"},
    "corpus": {"name": "invented", "format": "table", "path": "reports.csv"},
    "task": {"inputs": ["findings"], "target": "impression"},
    "checkpoints": {
        "awq-w4": recipe_values(Recipe(method="awq", bits=4, group_size=64)),
        "rtn-w4": recipe_values(Recipe(method="rtn", bits=4, group_size=64)),
    },
    "precisions": {
        "w4a16": {"checkpoint": "awq-w4"},
        "w4a16-rtn": {"checkpoint": "rtn-w4"},
        "original": {"checkpoint": "original"},
        "w4a8": {"checkpoint": "awq-w4", "activations": {"bits": 8}},
        "w4a4": {"checkpoint": "awq-w4", "activations": {"bits": 4}},
    },
    "generation": {"shards": 2, "prompt": "prompts/impression.txt"},
    "scoring": {"annotator": "lexicon"},
    "statistics": {"resamples": 1000, "confidence": 0.95, "margin": 0.01},
}


def make_results(
    folder, config=CONFIG, reports=REPORTS, constant=0.05, patients=None, entities=None
):
    """Write a finished run under `folder` and return `folder`.

    constant: what the constant text scores more than the original. patients: one of each report.
    entities: what the annotator finds in every text; nothing for None.
    """
    rng, count = np.random.default_rng(0), reports
    ids = [f"r{number:02d}" for number in rng.permutation(count)]
    base = rng.uniform(0.2, 0.7, count)
    reports = pd.DataFrame({"id": ids, "impression": [f"Small nodule number {i}." for i in ids]})
    group = [""] * count if patients is None else patients
    write_table(folder / "data/eval.csv", reports.assign(group=group, findings="A nodule."))
    write_table(folder / "data/train.csv", reports.assign(id=[f"t{i}" for i in ids]))
    write_table(folder / "data/raw.parquet", reports)
    steps = [{"step": "read", "removed": 0, "left": 90}, {"step": "cut", "removed": 10, "left": 80}]
    write_annotations(folder / "annotations/reference.jsonl", ids, reports["impression"], entities)
    cleaning = {"seed": 7, "steps": steps, "train": 56, "eval": count}
    cleaning |= {"split": "by hash", "unit": "patient"}
    write_json(folder / "data/cleaning.json", cleaning)
    calibration = {
        "samples": 8,
        "tokens": 400,
        "max_tokens": 64,
        "seed": 7,
        "prompt_hash": "c" * 64,
        "texts": 8,
        "packed": False,
        "source": {"kind": "corpus"},
    }
    write_json(folder / "calibration/set.json", calibration)
    write_weights(folder / "models/original", 4000)
    source = {
        "kind": "path",
        "note": "The weights come from a 4-bit GGUF.",
        "files": {"a": "f" * 64},
    }
    write_json(folder / "models/original/source.json", source)
    for name, recipe in config["checkpoints"].items():
        write_weights(folder / "checkpoints" / name, 1000)
        layers = [{"name": x, "weight_error": 0.1 + i / 100} for i, x in enumerate(LAYERS)]
        record = {"recipe": recipe, "layers": layers, "checks": {"layers_quantized": 3}}
        record["files"] = {"model.safetensors": "e" * 64}
        record["prefix"] = PREFIX if recipe["prefix"] == "auto" else []
        cost = {"wall_seconds": 12.5, "cpu_seconds": 11.0, "peak_process_bytes": 900_000_000}
        write_json(folder / "checkpoints" / name / "quantization.json", record | cost)
    written = ids[: config["generation"].get("reports")]
    for name in config["precisions"]:
        outputs = [
            HOSTILE if i == ids[0] and name != "original" else f"Nodule {i} in {name}."
            for i in written
        ]
        write_generations(folder, name, computed_as(config, name), written, outputs, entities)
        mean, spread, nats = EFFECTS[name]
        combined = base + rng.normal(mean, spread, count)
        write_scores(folder, name, written, combined[: len(written)])
        nll = (4 + nats) * 10 + rng.normal(0, 0.2, count)
        likelihood = pd.DataFrame({"id": ids, "nll": nll, "tokens": 10}).sort_values("id")
        write_table(folder / "likelihood" / f"{name}.parquet", likelihood)
        record = {"precision": name, "wall_seconds": 2.0, "cpu_seconds": 1.5}
        record["too_large_batches"] = []
        record |= computed_as(config, name)
        write_json(folder / "likelihood" / f"{name}.json", record)
    base = base[: len(written)]
    write_scores(folder, "copy-input", written, base - 0.1)
    write_scores(folder, "constant", written, base + constant)
    write_scores(folder, "nearest", written, base - 0.15)
    (folder / "config.json").write_text(json.dumps(config))  # in the order of the precisions
    return folder


def computed_as(config, name):
    """What scripts record of how a precision computes."""
    precision = config["precisions"][name]
    recipe = config["checkpoints"].get(precision["checkpoint"])
    rounding = activations_of(precision.get("activations"))
    layers = 0 if recipe is None else len(LAYERS)
    return {
        "layers_quantized": layers,
        "activation_layers": layers - len(rounding.skip) if rounding else 0,
        "activations": as_values(rounding),
        "kv_cache": as_values(kv_cache_of(precision.get("kv_cache"))),
        "lm_head": as_values(lm_head_of(precision.get("lm_head"))),
        "stored_prefix_tokens": len(PREFIX) if recipe and recipe["prefix"] == "auto" else 0,
    }


def write_annotations(path, ids, texts, entities=None):
    """As an annotator writes them that found `entities` in each text, or nothing."""
    note = {"annotator": "lexicon 1 (sha256 0123456789ab)", "text": "", "entities": entities or {}}
    pairs = zip(ids, texts, strict=True)
    write_jsonl(path, [note | {"id": i, "text_hash": sha256_text(text)} for i, text in pairs])


def write_weights(folder, count):
    folder.mkdir(parents=True)
    save_file({"w": np.zeros(count, np.float16)}, folder / "model.safetensors")


def write_scores(folder, name, ids, combined):
    combined = np.clip(combined, 0, 1)
    same = name == "original"
    bad = name in ("w4a16", "w4a4")
    lost = [dict(kind="lost", finding=f, before="A nodule.", after="") for f in ("mass", "odulex")]
    table = pd.DataFrame(
        {
            "id": ids,
            "annotator": "lexicon 1 (sha256 0123456789ab)",
            "rewards": "radgraph 0.1.18 (0123456789ab)",
            "simple": np.minimum(combined + 0.1, 1),
            "partial": np.minimum(combined + 0.05, 1),
            "complete": combined,
            **{f"fidelity_{x}": 1.0 if same else 0.6 for x in ("simple", "partial", "complete")},
            # A number of its own for every system, so that a swapped column or row is seen.
            "rg1_entities": combined * 0.9,
            "rg1_relations": combined * 0.7,
            "rg1_mean": combined * 0.8,
            "rouge_l": 0.25,
            "rouge_l_original": 1.0 if same else 0.7,
            "bleu_2": combined * 0.6,
            "errors_weighted": 2 - combined,
            "errors_significant": 1,
            **{column: 0 for column in COUNTED},
            "identical": same,
            "output_words": 6,
            "empty": False,
            "statuses": '{"mass": "present"}',
            "reference_statuses": '{"mass": "present"}',
            "changes": [json.dumps(lost if bad and i == ids[0] else []) for i in ids],
            "unsupported": "[]",
            "flags": "[]",
        }
    )
    write_table(folder / "scores" / f"{name}.parquet", table)


def write_generations(folder, name, computed, ids, outputs, entities=None):
    quantized = computed["layers_quantized"]
    table = pd.DataFrame(
        {
            "id": ids,
            "prompt_hash": [f"hash of {i}" for i in ids],
            "prompt_tokens": 30,
            "truncated_tokens": 0,
            "output": outputs,
            "output_tokens": 9,
            "finish_reason": ["length" if i == ids[1] else "stop" for i in ids],
        }
    )
    for number in (1, 2):
        part = table.iloc[number - 1 :: 2].iloc[::-1]  # in another order than eval.csv's
        write_table(folder / f"generations/{name}/shard-{number}-of-2.parquet", part)
        notes = folder / f"annotations/{name}/shard-{number}-of-2.jsonl"
        write_annotations(notes, part["id"], part["output"], entities)
        record = {
            "precision": name,
            "shard": number,
            "shards": 2,
            "engine": "transformers",
            "simulated": any(computed[key] for key in ("activations", "kv_cache", "lm_head")),
            "device": "cpu",
            "device_name": "Invented CPU",
            "cpu_capability": "AVX2",
            "cpu_limits": {},
            "dtype": "float32",
            "threads": 1,
            "batch_size": 6,
            "max_new_tokens": 32,
            "examples": 2,
            "examples_by": "drawn",
            "same_input_reports": 0,
            "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
            "kernel": "reference" if quantized else "none",
            "reports": len(part),
            "batches": 2,
            "prompt_tokens": 30 * len(part),
            "output_tokens": 9 * len(part),
            "wall_seconds": 4.0 + quantized,
            "cpu_seconds": 3.5 + quantized,
            "tokens_per_second": 9 * len(part) / (4.0 + quantized),
            "latency_seconds": {"mean": 2.0, "p50": 2.0, "p95": 2.2, "max": 2.5},
            "prefill_seconds": 1.0,
            "decode_seconds": 2.5 + quantized,
            "decode_tokens": 8 * len(part),
            "load_seconds": 1.0,
            "peak_process_bytes": 1_200_000_000,
            "peak_device_bytes": None,
            "weight_bytes": 538_000_000 if name == "original" else 190_000_000,
            **computed,
            "truncated_prompts": 0,
            "too_large_batches": [],
        }
        write_json(folder / f"generations/{name}/shard-{number}-of-2.json", record)


def change_record(path, **values):
    write_json(path, read_json(path) | values)


def change_table(path, change):
    write_table(path, change(read_table(path)))


class AnyText(dict):
    def __missing__(self, key):
        return "Some text."
