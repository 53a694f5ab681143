"""Twelve invented reports in four precisions as a finished run, for tests and the pictures.

No sentence comes from a corpus. Annotations and scores are the real ones of these texts; speed,
memory and likelihood are invented.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from image_writers import random_gray, write_dicom, write_png
from report_run import computed_as, write_generations, write_weights

from radquant import registry
from radquant.files import write_json, write_jsonl, write_table
from radquant.reporting import explorer
from radquant.reporting.changes_section import example_texts
from radquant.reporting.columns import meanings
from radquant.reporting.figures import write_figures
from radquant.reporting.finished_run import Run
from radquant.reporting.html import escape_json, pieces, read_figures
from radquant.reporting.inputs import SIDE
from radquant.reporting.markdown import render
from radquant.reporting.reading import order, scales
from radquant.reporting.ruined import ruined
from radquant.reporting.summary import summarize
from radquant.scoring import records
from radquant.scoring.changes import FLAGS, HARM, KINDS
from radquant.scoring.scores import score
from radquant.settings.recipe import Recipe, recipe_values
from radquant.settings.run import BASELINES

Meanings = Mapping[str, Mapping[str, str]]
CONFIG = {
    "seed": 7,
    "model": {"name": "example-model", "path": "models/example"},
    "corpus": {"name": "twelve invented reports", "format": "table", "path": "reports.csv"},
    "task": {"inputs": ["findings"], "target": "impression"},
    "checkpoints": {"awq-w4": recipe_values(Recipe(method="awq", bits=4, group_size=128))},
    "precisions": {
        "original": {"checkpoint": "original"},
        "w4a16": {"checkpoint": "awq-w4"},
        "w4a8": {"checkpoint": "awq-w4", "activations": {"bits": 8}},
        "w4a4": {"checkpoint": "awq-w4", "activations": {"bits": 4}},
    },
    "generation": {"shards": 2, "prompt": "prompts/impression.txt"},
    "scoring": {"annotator": "lexicon"},
    "statistics": {"resamples": 2000, "confidence": 0.95, "margin": 0.01},
}
PROMPT = (
    "Write the impression of this chest radiograph in one short line.\n"
    "Findings: {findings}\nImpression:"
)
NATS = {"original": 0.0, "w4a16": 0.05, "w4a8": 0.12, "w4a4": 1.4}

# Findings, the reference impression, and the outputs in the order of the precisions.
REPORTS = {
    "case-01": (
        "There is a small left pleural effusion. The heart is mildly enlarged. No pneumothorax.",
        "Small left pleural effusion. Mild cardiomegaly.",
        "Small left pleural effusion. Mild cardiomegaly. No pneumothorax.",
        "Small left pleural effusion. Mild cardiomegaly. No pneumothorax.",
        "Small right pleural effusion. Mild cardiomegaly. No pneumothorax.",
        "Mild cardiomegaly. No pneumothorax.",
    ),
    "case-02": (
        "A 1.2 cm nodule is seen in the right upper lobe. The lungs are otherwise clear.",
        "1.2 cm nodule in the right upper lobe; CT is recommended.",
        "1.2 cm nodule in the right upper lobe. CT is recommended.",
        "1.2 cm nodule in the right upper lobe. Follow-up CT is recommended.",
        "2.1 cm nodule in the right upper lobe. CT is recommended.",
        "No nodule is seen. The lungs are clear.",
    ),
    "case-03": (
        "The lungs are clear. The heart is normal in size. No effusion or pneumothorax.",
        "No acute cardiopulmonary abnormality.",
        "No acute cardiopulmonary abnormality.",
        "No acute cardiopulmonary abnormality.",
        "No acute cardiopulmonary abnormality.",
        "Pneumonia in the left lower lobe.",
    ),
    "case-04": (
        "Patchy opacity at the right base, which may represent atelectasis or pneumonia.",
        "Right basilar opacity, possibly pneumonia.",
        "Right basilar opacity, possibly pneumonia.",
        "Right basilar opacity, possibly pneumonia.",
        "Right basilar opacity with pneumonia.",
        "Right right right right right right right right right right right right right",
    ),
    "case-05": (
        "The endotracheal tube ends 5.5 cm above the carina. Moderate pulmonary edema.",
        "Endotracheal tube 5.5 cm above the carina. Moderate pulmonary edema.",
        "Endotracheal tube 5.5 cm above the carina. Moderate pulmonary edema.",
        "Endotracheal tube 5.0 cm above the carina. Moderate pulmonary edema.",
        "Endotracheal tube 5.5 cm above the carina. Severe pulmonary edema.",
        "Endotracheal tube in the right main bronchus. Severe pulmonary edema.",
    ),
    "case-06": (
        "A large right pneumothorax is present. Subcutaneous emphysema on the right.",
        "Large right pneumothorax.",
        "Large right pneumothorax with subcutaneous emphysema.",
        "Large right pneumothorax with subcutaneous emphysema.",
        "Large right pneumothorax.",
        "No pneumothorax.",
    ),
    "case-07": (
        "The heart is enlarged. There is vascular congestion without edema.",
        "Cardiomegaly with vascular congestion.",
        "Cardiomegaly with vascular congestion.",
        "Cardiomegaly with vascular congestion, unchanged from the prior study.",
        "Cardiomegaly with vascular congestion.",
        "",
    ),
    "case-08": (
        "Healed fracture of the left sixth rib. The lungs are clear.",
        "Old fracture of the left sixth rib.",
        "Healed fracture of the left sixth rib. No acute disease.",
        "Healed fracture of the left sixth rib. No acute disease.",
        "Healed fracture of the left sixth rib.",
        "Write the impression of this chest radiograph in one short line. Findings: Healed "
        "fracture of the left sixth rib. The lungs are clear.",
    ),
    "case-09": (
        "Low lung volumes with bibasilar atelectasis. No focal consolidation.",
        "Bibasilar atelectasis.",
        "Low lung volumes with bibasilar atelectasis.",
        "Low lung volumes, possibly with bibasilar atelectasis.",
        "Low lung volumes with bibasilar atelectasis. Small pleural effusion.",
        "Low lung volumes.",
    ),
    "case-10": (
        "Dense consolidation in the left lower lobe with air bronchograms.",
        "Left lower lobe pneumonia.",
        "Left lower lobe consolidation, consistent with pneumonia.",
        "Left lower lobe consolidation, consistent with pneumonia.",
        "Left upper lobe consolidation.",
        "Consolidation consolidation in the lobe.",
    ),
    "case-11": (
        "Calcified granuloma in the left upper lobe. Tortuous aorta.",
        "Calcified granuloma. No acute disease.",
        "Calcified granuloma in the left upper lobe. No acute disease.",
        "Calcified granuloma in the left upper lobe. No acute disease.",
        "Calcified granuloma in the left upper lobe. No acute disease.",
        "Granuloma in the upper lobe. Large mass.",
    ),
    "case-12": (
        "Moderate right pleural effusion with atelectasis, increased since the prior study.",
        "Increased moderate right pleural effusion with atelectasis.",
        "Increased moderate right pleural effusion with adjacent atelectasis.",
        "Increased moderate right pleural effusion with adjacent atelectasis.",
        "Increased moderate bilateral pleural effusions with adjacent atelectasis.",
        "Decreased moderate pleural effusion.",
    ),
}


def make_run(
    folder: Path,
    reports: dict[str, tuple[str, ...]] = REPORTS,
    config: dict[str, Any] = CONFIG,
) -> Path:
    """Write a finished run of `reports` under `folder`, and return `folder`."""
    name = config["scoring"]["annotator"]
    kind = registry.load_kind(registry.ANNOTATORS, name)
    annotator = kind.load(config["scoring"].get(name, {}), threads=1)
    ids = list(reports)
    findings, references, *outputs = zip(*reports.values(), strict=True)
    table = pd.DataFrame({"id": ids, "findings": findings, "impression": references})
    write_table(folder / "data/eval.csv", table)
    write_table(folder / "data/train.csv", table.assign(id=[f"train-{name}" for name in ids]))
    write_table(folder / "data/raw.parquet", table)
    _write_records(folder, len(ids))
    _annotate(annotator, folder / "annotations/reference.jsonl", ids, references)
    for name, written in zip(CONFIG["precisions"], outputs, strict=True):
        write_generations(folder, name, computed_as(CONFIG, name), ids, list(written))
        for number in (1, 2):
            path = folder / f"generations/{name}/shard-{number}-of-2.parquet"
            part = pd.read_parquet(path)
            reasons = part["output"].map(lambda text: "length" if text[-1:].isalpha() else "stop")
            write_table(path, part.assign(finish_reason=reasons))
            notes = folder / f"annotations/{name}/shard-{number}-of-2.jsonl"
            _annotate(annotator, notes, part["id"], part["output"])
        _write_likelihood(folder, name, ids)
    handed_in = (findings, [references[2]] * len(ids), references[1:] + references[:1])
    for name, written in zip(BASELINES, handed_in, strict=True):
        write_table(
            folder / f"generations/{name}/all.parquet",
            pd.DataFrame({"id": ids, "prompt_hash": "", "output": written, "finish_reason": ""}),
        )
        _annotate(annotator, folder / f"annotations/{name}/all.jsonl", ids, written)
    for name in [*CONFIG["precisions"], *BASELINES]:
        write_table(folder / f"scores/{name}.parquet", _scores(folder, name))
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def payload(run: Run, broken: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What the explorer shows of `run`, whole; `broken`: its ruined precisions."""
    whole: dict[str, Any] = json.loads("".join(explorer.payload_pieces(run, broken or {})))
    return whole


def made_payload(
    systems: Sequence[str], reports: list[dict[str, Any]], texts: list[dict[str, Any]]
) -> dict[str, Any]:
    """A payload of reports without input and of texts, whatever they lack of what a run has."""
    return {
        **{"systems": list(systems), "measure": "F1"},
        **{"kinds": [[k, d] for k, d in KINDS.items()], "flags": list(FLAGS)},
        **{"weights": HARM, "ruined": {}, "prompt": "", "examples": []},
        **{"run": "0123456789abcdef", "order": order("run", [report["id"] for report in reports])},
        **{"scales": scales(), "target": "impression", "inputs": [], "images": 0, "side": SIDE},
        "reports": [
            {"inputs": [], "images": [], "cut": False, "examples": [], **report}
            for report in reports
        ],
        "texts": [{"findings": {}, **text} for text in texts],
    }


def pictured(run: Run, folder: Path) -> tuple[Run, list[Path]]:
    """Return `run` as one that was shown images alone, and the files in the order of the reports.

    Every fourth report has a large PNG; every third has two images, of which one is a DICOM file.
    """
    files, cells = [], []
    for number, name in enumerate(run.reports["id"]):
        shape = (1500, 1200) if number % 4 == 0 else (400, 320)
        mine = [write_png(folder / "images" / f"{name}-a.png", random_gray(number, shape))]
        if number % 3 == 0:
            gray = random_gray(number + 100, shape=(400, 320), levels=4096)
            mine.append(write_dicom(folder / "images" / f"{name}-b.dcm", gray))
        files += mine
        cells.append(";".join(file.name for file in mine))
    table = pd.DataFrame({"id": run.reports["id"], "impression": run.reports["reference"]})
    write_table(folder / "data/eval.csv", table.assign(images=cells))
    config = {**run.config, "task": {**run.config["task"], "inputs": [], "image_column": "image"}}
    config["corpus"] = {**config["corpus"], "image_root": str(folder / "images")}
    config["generation"] = {
        **config["generation"],
        "prompt": str(Path(__file__).parents[1] / "prompts/findings-from-image.txt"),
    }
    shards = {n: [{**one, "examples": 0} for one in each] for n, each in run.shards.items()}
    return replace(run, folder=folder, config=config, shards=shards), files


def embed(payload: Mapping[str, Any]) -> str:
    """`payload` as it stands in report.html."""
    return escape_json(explorer.dump(payload))


def page(
    markdown: str,
    figures: Mapping[str, str],
    payload: Mapping[str, Any],
    heads: Meanings = MappingProxyType({}),
    images: Sequence[tuple[int, str]] = (),
) -> str:
    """report.html, whole."""
    written = [explorer.dump(payload)]
    return "".join(pieces(markdown, figures, len(payload["reports"]), written, images, heads))


def page_parts(run: Run, figures: Path) -> tuple[str, dict[str, str], dict[str, Any], Meanings]:
    """Return what `page` makes the page of: report.md, its figures by path, the payload, and what
    the heads of columns mean."""
    summary = summarize(run)
    write_figures(summary, figures)
    markdown = render(summary, example_texts(run, summary), "figures")
    shown = payload(run, ruined(summary["quality"]))
    return markdown, read_figures(figures, "figures"), shown, meanings(summary)


def _annotate(annotator, path, ids, texts):
    found = dict(annotator.annotate(records.distinct(texts)))
    write_jsonl(path, records.build(ids, texts, annotator.identity, found.__getitem__))


def _scores(folder, name):
    def parts(kind, system):
        suffix = "parquet" if kind == "generations" else "jsonl"
        return sorted((folder / kind / system).glob(f"*.{suffix}"))

    return score(
        folder / "data/eval.csv",
        "impression",
        folder / "annotations/reference.jsonl",
        parts("generations", name),
        parts("annotations", name),
        parts("generations", "original"),
        parts("annotations", "original"),
        PROMPT,
    )


def _write_records(folder, count):
    steps = [{"step": "read", "removed": 0, "left": 40}, {"step": "cut", "removed": 4, "left": 36}]
    cleaning = {"seed": 7, "steps": steps, "train": 36 - count, "eval": count}
    write_json(folder / "data/cleaning.json", cleaning | {"split": "by hash", "unit": "patient"})
    calibration = {"samples": 16, "tokens": 900, "texts": 16, "packed": False}
    calibration |= {"source": {"kind": "corpus"}, "prompt_hash": "c" * 64}
    write_json(folder / "calibration/set.json", calibration)
    write_weights(folder / "models/original", 2_000_000)
    write_json(folder / "models/original/source.json", {"files": {"model.safetensors": "f" * 64}})
    write_weights(folder / "checkpoints/awq-w4", 550_000)
    layers = [{"name": f"layers.{i}", "weight_error": 0.1 + i / 100} for i in range(3)]
    record = {"recipe": CONFIG["checkpoints"]["awq-w4"], "layers": layers, "checks": {}}
    record["files"] = {"model.safetensors": "e" * 64}
    cost = {"wall_seconds": 12.5, "cpu_seconds": 11.0, "peak_process_bytes": 900_000_000}
    write_json(folder / "checkpoints/awq-w4/quantization.json", record | cost)


def _write_likelihood(folder, name, ids):
    noise = np.random.default_rng(0).normal(0, 0.2, len(ids))
    table = pd.DataFrame({"id": ids, "nll": (2.4 + NATS[name]) * 10 + noise, "tokens": 10})
    write_table(folder / f"likelihood/{name}.parquet", table)
    cost = {"precision": name, "wall_seconds": 2.0, "cpu_seconds": 1.5, "too_large_batches": []}
    write_json(folder / f"likelihood/{name}.json", cost | computed_as(CONFIG, name))
