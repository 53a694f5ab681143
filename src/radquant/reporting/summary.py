"""Every number of the report, as one plain dict that holds no report text.

`quality` depends on scores alone: two runs with equal scores have it equal. `performance` and
`machine` differ between runs. Units: bytes, seconds, nats; shares and F1 from 0 to 1.
"""

import math
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd

from radquant import statistics
from radquant.reporting import clinical_changes
from radquant.reporting.collect import BASELINES, ORIGINAL, Run
from radquant.reporting.performance import performance as performance_of
from radquant.reporting.provenance import machine, provenance
from radquant.reporting.verdict import state, verdict
from radquant.scoring.agreement import agreement
from radquant.scoring.metrics.columns import PRIMARY, averaged, primary, tested
from radquant.scoring.metrics.kind import Column

POWER = 0.8
MOST_NATS = 709  # per token: e to the power of more is more than a float holds
# What a comparison says of the margin.
OF_MARGIN = ("pairs_for_margin", "pairs_to_settle", "equivalence_p")


def summarize(run: Run) -> dict[str, Any]:
    """Return the report's numbers; see docs/report.md for each one's definition and source."""
    quality, performance = _quality(run), performance_of(run)
    return {
        "quality": quality,
        "performance": performance,
        "verdict": verdict(quality, performance, bool(run.config["task"]["inputs"])),
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


def _quality(run: Run) -> dict[str, Any]:
    settings = run.config["statistics"]
    quality: dict[str, Any] = {
        "annotator": run.annotator,
        "annotator_agreement": agreement(run.annotator),
        "rewards": run.rewards,
        "measure": run.measure,
        "reports": len(run.reports),
        "references": len(run.likelihood[ORIGINAL]),  # whose likelihood is measured
        "settings": {**settings, "seed": run.config["seed"], "power": POWER, "primary": PRIMARY},
        "precisions": run.precisions,
        "systems": {name: _means(run, name) for name in [*run.precisions, *BASELINES]},
        "differences": {column.name: _differences(run, column) for column in tested()},
        "likelihood_differences": _likelihood_differences(run),
        "baseline_differences": {
            name: _comparison(run, _score(run, ORIGINAL, PRIMARY) - _score(run, name, PRIMARY))
            for name in BASELINES
        },
        "changes": {name: clinical_changes.changes(run, name) for name in run.quantized},
        "outputs": {name: clinical_changes.outputs(run, name) for name in run.precisions},
        "findings": clinical_changes.findings(run),
        "examples": clinical_changes.examples(run, PRIMARY),
    }
    return quality


def _means(run: Run, system: str) -> dict[str, Any]:
    table = run.scores[system]
    likelihood = run.likelihood.get(system)
    interval = statistics.bootstrap_interval(
        _score(run, system, PRIMARY), *_bootstrap_settings(run.config)
    )
    return {
        **{column.name: float(table[column.name].mean()) for column in averaged()},
        f"{PRIMARY}_interval": _within(_interval(interval), *primary().range),
        "perplexity": None
        if likelihood is None
        else math.exp(min(likelihood["nll"].sum() / likelihood["tokens"].sum(), MOST_NATS)),
    }


def _differences(run: Run, column: Column) -> dict[str, Any]:
    """Return each quantized precision's comparison with the original.

    The margin is a share of the column's range. Without a finite one nothing is said of equivalence
    and of the reports that would settle it.
    """
    settings = run.config["statistics"]
    low, high = column.range
    margin, alpha = settings["margin"] * (high - low), 1 - settings["confidence"]
    original = _score(run, ORIGINAL, column.name)
    rows, equivalence = {}, {}
    for name in run.quantized:
        d = _score(run, name, column.name) - original
        rows[name] = _comparison(run, d)
        rows[name]["original"] = float(original.mean())
        rows[name]["system"] = float(_score(run, name, column.name).mean())
        rows[name]["detectable_share"] = (
            rows[name]["detectable"] / original.mean()
            if rows[name]["detectable"] is not None and original.any()
            else None
        )
        rows[name] |= dict.fromkeys(OF_MARGIN)
        if math.isfinite(margin):
            sizes = (margin, rows[name]["sd"], alpha, POWER)
            rows[name]["pairs_for_margin"] = statistics.pairs_needed(*sizes)
            rows[name]["pairs_to_settle"] = statistics.pairs_to_settle(*sizes)
            equivalence[name] = rows[name]["equivalence_p"] = statistics.equivalence_p(
                d, margin, high - low, settings["resamples"], run.config["seed"]
            )
    adjusted = statistics.holm({name: row["p"] for name, row in rows.items()})
    adjusted_equivalence = statistics.holm(equivalence)
    for name, row in rows.items():
        row["p_holm"] = adjusted[name]
        row["equivalence_p_holm"] = adjusted_equivalence.get(name)
        row["state"] = state(row, alpha, less_is_better=column.better == "less")
    return rows


def _likelihood_differences(run: Run) -> dict[str, Any]:
    """Return each precision's change of the references' NLL in nats per token; less is better."""
    rows = {}
    for name in run.quantized:
        rows[name] = _comparison(run, _nats_per_token(run, name) - _nats_per_token(run, ORIGINAL))
        rows[name]["system"] = float(_nats_per_token(run, name).mean())
    adjusted = statistics.holm({name: row["p"] for name, row in rows.items()})
    for name, row in rows.items():
        row["p_holm"] = adjusted[name]
    return rows


def _score(run: Run, system: str, column: str) -> np.ndarray:
    return run.scores[system][column].to_numpy(dtype=np.float64)


def _nats_per_token(run: Run, precision: str) -> np.ndarray:
    table = run.likelihood[precision]
    return (table["nll"] / table["tokens"]).to_numpy(dtype=np.float64)


def _bootstrap_settings(config: Mapping[str, Any]) -> tuple[int, float, int]:
    settings = config["statistics"]
    return settings["resamples"], settings["confidence"], config["seed"]


def _comparison(run: Run, differences: np.ndarray) -> dict[str, Any]:
    # One seed for all: precisions share their resamples, so adding one changes no other's numbers.
    found = statistics.compare(differences, *_bootstrap_settings(run.config))
    return {
        "n": found.n,
        "mean": found.mean,
        "sd": found.sd,
        "interval": _interval(found.interval),
        "p": found.p,
        # Without any variation there is nothing to estimate sensitivity from.
        "detectable": found.detectable if found.sd > 0 else None,
    }


def _interval(interval: statistics.Interval) -> dict[str, Any]:
    return {"low": interval.low, "high": interval.high, "method": interval.method}


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
        "recipe": record["recipe"],
        "prefix": record.get("prefix", []),  # other tools store none
        "tool": record.get("tool"),
        "checks": record.get("checks", {}),
        "layers": len(layers),
        "errors": errors,
    }


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
            **first["versions"],
            "python": platform.python_version(),
        },
    }
