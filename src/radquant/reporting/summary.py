"""Every number of the report, as one plain dict that holds no report text.

`quality` depends on scores alone: two runs with equal scores have it equal. `performance` and
`machine` differ between runs. Units: bytes, seconds, nats; shares and F1 from 0 to 1.
"""

import math
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import pandas as pd

from radquant import statistics
from radquant.packed.formats.mixtures import layers_in_words
from radquant.reporting import against_radiologist, clinical_changes, comparisons, patients
from radquant.reporting.comparisons import (
    MOST_NATS,
    POWER,
    interval_record,
)
from radquant.reporting.facts import facts
from radquant.reporting.finished_run import Run
from radquant.reporting.fitness import BROKEN, facts_of, fitness
from radquant.reporting.judgement import UNFIT, judge
from radquant.reporting.performance import performance as performance_of
from radquant.reporting.provenance import machine, provenance
from radquant.reporting.rulers import rulers
from radquant.reporting.subgroups import subgroups
from radquant.reporting.verdict import verdict
from radquant.scoring.agreement import agreement
from radquant.scoring.metrics.columns import PRIMARY, averaged, primary, tested
from radquant.settings.run import ORIGINAL


def summarize(run: Run) -> dict[str, Any]:
    """Return the report's numbers; see docs/report.md for each one's definition and source."""
    quality, performance = quality_of(run), performance_of(run)
    return {
        "quality": quality,
        "performance": performance,
        "verdict": verdict(quality, performance),
        "facts": facts(quality, performance),
        "quantization": {name: _recipe(record) for name, record in run.quantization.items()},
        "cleaning": _without_names(run.cleaning),
        "calibration": run.calibration,
        "config": run.config,
        "source": run.source,
        "stored_dtypes": run.stored_dtypes,
        "machine": _machine(run),
        "provenance": provenance(run),
    }


def _without_names(cleaning: dict[str, Any]) -> dict[str, Any]:
    """What cleaning counted; the names of image files, which may be a patient's, stay in data/."""
    if "images" not in cleaning:
        return cleaning
    ways = [{"steps": way["steps"], "images": way["images"]} for way in cleaning["images"]]
    return {**cleaning, "images": ways}


def quality_of(run: Run) -> dict[str, Any]:
    """Return what depends on the scores alone: means, comparisons, changes, fitness and words."""
    settings = run.config["statistics"]
    drawn = comparisons.drawn(run)
    differences = {
        column.name: comparisons.score_differences(run, column, drawn) for column in tested()
    }
    quality: dict[str, Any] = {
        "annotator": run.annotator,
        "annotator_agreement": agreement(run.annotator),
        "rewards": run.rewards,
        "measure": run.measure,
        "reports": len(run.reports),
        "references": len(run.likelihood[ORIGINAL]),  # whose likelihood is measured
        "patients": patients.counted(run.patients),  # None where they are not known
        "settings": {**settings, "seed": run.config["seed"], "power": POWER, "primary": PRIMARY},
        "margin": comparisons.margin_of(run, primary())[0],
        "precisions": run.precisions,
        "systems": _systems(run, drawn),
        "differences": differences,
        "likelihood_differences": comparisons.likelihood_differences(run),
        "baseline_differences": comparisons.baseline_differences(run, drawn),
        "changes": {name: clinical_changes.changes(run, name) for name in run.quantized},
        "outputs": {name: clinical_changes.outputs(run, name) for name in run.precisions},
        "findings": clinical_changes.findings(run),
        "against_radiologist": against_radiologist.pooled(run),
        "examples": clinical_changes.examples(run, PRIMARY),
        "subgroups": subgroups(run),
    }
    quality["measures"] = run.measures
    quality["rulers"] = rulers(run, quality["differences"])
    quality["fitness"] = fitness(facts_of(run, quality))
    _judge(quality, settings["confidence"])
    return quality


def _judge(quality: dict[str, Any], confidence: float) -> None:
    """Add the word of each comparison, as its `state`."""
    found = quality["fitness"]
    for column in tested():
        for name, row in quality["differences"][column.name].items():
            reasons = found["precisions"][name]
            fit = found["fit"] and not reasons
            row["state"] = judge(row, confidence, fit, less_is_better=column.better == "less")
            if any(each["kind"] == BROKEN for each in reasons):  # a loss is not quantizing's
                row["state"] = UNFIT


def _systems(run: Run, drawn: comparisons.Drawn) -> dict[str, dict[str, Any]]:
    intervals = comparisons.system_intervals(run, drawn)
    return {name: _means(run, name, each) for name, each in intervals.items()}


def _means(run: Run, system: str, interval: statistics.Interval) -> dict[str, Any]:
    table = run.scores[system]
    likelihood = run.likelihood.get(system)
    return {
        **{column.name: float(table[column.name].mean()) for column in averaged()},
        f"{PRIMARY}_interval": _within(interval_record(interval), *primary().range),
        "perplexity": None
        if likelihood is None
        else math.exp(min(likelihood["nll"].sum() / likelihood["tokens"].sum(), MOST_NATS)),
    }


def _within(interval: dict[str, Any], least: float, most: float) -> dict[str, Any]:
    """Cut an interval to the values that there can be."""
    return {**interval, "low": max(least, interval["low"]), "high": min(most, interval["high"])}


def _recipe(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recipe and checks, and a summary of every kind of error that layers record."""
    layers = pd.DataFrame(record["layers"]).set_index("name")
    errors = {}
    for kind in sorted(column for column in layers.columns if column.endswith("error")):
        values = layers[kind].dropna().astype(float)
        if len(values):
            errors[kind] = {
                "median": float(values.median()),
                "max": float(values.max()),
                "worst_layer": str(values.idxmax()),
            }
    return {
        "recipe": record.get("recipe"),  # None of a given checkpoint that does not tell
        "bits": mixture_of(record),
        "source": record.get("source"),  # None of one that was made here
        "format": record.get("format"),
        "says": record.get("says", {}),  # of itself, if it was given
        "notes": record.get("notes", []),
        "prefix": record.get("prefix", []),  # other tools store none
        "tool": record.get("tool"),
        "checks": record.get("checks", {}),
        "verification": record.get("verification"),
        "layers": len(layers),
        "errors": errors,
    }


def mixture_of(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Of bits that differ between layers: the average, and which layers have how many."""
    if not record.get("bits"):
        return None
    return {**record["bits"], "which": layers_in_words(record["layers"])}


def _machine(run: Run) -> dict[str, Any]:
    """Describe where this report was made and, from the shards, where its texts were."""
    shards = [shard for records in run.shards.values() for shard in records]
    first = shards[0]
    return {
        "generated_on": sorted({f"{shard['device']}: {shard['device_name']}" for shard in shards}),
        "dtype": first["dtype"],
        "threads": first["threads"],
        "batch_size": first["batch_size"],
        "max_new_tokens": first["max_new_tokens"],
        "engines": sorted({shard["engine"] for shard in shards}),
        **machine(),
        "versions": {
            **{name: version(name) for name in ("radquant", "snakemake", "numpy", "scipy")},
            **{name: each for shard in shards for name, each in shard["versions"].items()},
            "python": platform.python_version(),
        },
    }
