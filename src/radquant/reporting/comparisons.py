"""Each precision's paired comparison with the original: scores, likelihood, baselines."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from radquant import statistics
from radquant.reporting.finished_run import Run
from radquant.scoring.metrics.columns import PRIMARY, primary
from radquant.scoring.metrics.kind import Column
from radquant.settings.run import BASELINES, ORIGINAL
from radquant.settings.scoring import OF_ORIGINAL

POWER = 0.8
MOST_NATS = 709  # e to the power of more is more than a float holds
# What a comparison says of the margin; None where there is none.
OF_MARGIN = ("margin", "reports_to_settle", "noninferiority_p", "equivalence_p")

Row = dict[str, Any]


def score_differences(run: Run, column: Column) -> dict[str, Row]:
    """Return each quantized precision's comparison with the original, by name; without its word.

    The margin is in the column's unit: a share of its range, or of the original's mean. Without a
    finite one nothing is said of it, nor where the original's mean is no larger. A system that lost
    everything would then be called no worse.
    """
    original = score(run, ORIGINAL, column.name)
    margin, per_report = margin_of(run, column)
    differences = [score(run, name, column.name) - original for name in run.quantized]
    compared = _compared(run, differences, column)
    rows: dict[str, Row] = {}
    for name, found in zip(run.quantized, compared, strict=True):
        row = rows[name] = _as_row(found)
        row["original"] = float(original.mean())
        row["system"] = float(score(run, name, column.name).mean())
        row["detectable_share"] = (
            row["detectable"] / original.mean()
            if row["detectable"] is not None and original.any()
            else None
        )
        row |= dict.fromkeys(OF_MARGIN)
    if math.isfinite(margin):
        for row in rows.values():
            row["margin"] = margin
        if column.better == "less" or original.mean() - column.range[0] > margin:
            of_margin = _of_margin(run, column, differences, per_report)
            for row, found, tests in zip(rows.values(), compared, of_margin, strict=True):
                row |= tests
                row["reports_to_settle"] = _to_settle(run, column, margin, found)
    _correct(rows, "p", "noninferiority_p", "equivalence_p")
    return rows


def margin_of(run: Run, column: Column) -> tuple[float, np.ndarray]:
    """Return the margin in the column's unit, and what each report adds to it."""
    settings, original = run.config["statistics"], score(run, ORIGINAL, column.name)
    low, high = column.range
    if settings.get("margin_of") == OF_ORIGINAL:
        own = settings["margin"] * (original - (low if math.isfinite(low) else 0.0))
        return float(own.mean()), own
    margin = settings["margin"] * (high - low)
    return margin, np.full(len(original), margin)


def _of_margin(
    run: Run, column: Column, differences: Sequence[np.ndarray], margins: np.ndarray
) -> list[dict[str, Any]]:
    """Return the p-values of non-inferiority and of equivalence (two one-sided tests)."""
    settings = run.config["statistics"]
    low, high = column.range
    gains = [-each if column.better == "less" else each for each in differences]
    # The most that a report can lose is the whole range, whatever it has here.
    worst = low - high + float(margins.min())
    tests = statistics.noninferiority_ps(
        [values for each in gains for values in (each + margins, margins - each)],
        *(worst, settings["resamples"], run.config["seed"], run.patients),
    )
    return [
        {"noninferiority_p": no_loss, "equivalence_p": max(no_loss, no_gain)}
        for no_loss, no_gain in zip(tests[::2], tests[1::2], strict=True)
    ]


def _to_settle(
    run: Run, column: Column, margin: float, found: statistics.Comparison
) -> dict[str, int]:
    """Return how many reports would settle, after Holm, whether there is a loss of the margin."""
    low, high = statistics.settle_range(
        margin,
        (found.spread.low, found.spread.high),
        precisions=len(run.quantized),
        alpha=(1 - run.config["statistics"]["confidence"]) / 2,
        power=POWER,
        worst=column.range[1] - column.range[0],
        reports_per_patient=found.largest,
    )
    return {"low": low, "high": high}


def likelihood_differences(run: Run) -> dict[str, Row]:
    """Return each precision's change of the references' NLL, pooled: nats per token of them all.

    Less is better. e to the power of the mean is the ratio of the two perplexities.
    """
    rows = {}
    tokens = run.likelihood[ORIGINAL]["tokens"].to_numpy(dtype=np.float64)
    nats = {name: table["nll"].to_numpy(dtype=np.float64) for name, table in run.likelihood.items()}
    compared = statistics.compare_all(
        [nats[name] - nats[ORIGINAL] for name in run.quantized],
        *bootstrap_settings(run.config),
        patients=run.all_patients,
        weights=tokens,
        # Nats have no bound. But from one patient nothing follows, and with these bounds the
        # interval says so.
        bounds=(-MOST_NATS, MOST_NATS) if len(set(run.all_patients or "ab")) == 1 else None,
    )
    for name, found in zip(run.quantized, compared, strict=True):
        row = rows[name] = _as_row(found)
        row["system"] = float(nats[name].sum() / tokens.sum())
        row["perplexity_ratio"] = math.exp(min(row["mean"], MOST_NATS))
    _correct(rows, "p")
    return rows


def baseline_differences(run: Run) -> dict[str, Row]:
    """Return the original's comparison with each baseline: original minus baseline."""
    original = score(run, ORIGINAL, PRIMARY)
    differences = [original - score(run, name, PRIMARY) for name in BASELINES]
    compared = _compared(run, differences, primary())
    return {name: _as_row(found) for name, found in zip(BASELINES, compared, strict=True)}


def score(run: Run, system: str, column: str) -> np.ndarray:
    return run.scores[system][column].to_numpy(dtype=np.float64)


def bootstrap_settings(config: Mapping[str, Any]) -> tuple[int, float, int]:
    settings = config["statistics"]
    return settings["resamples"], settings["confidence"], config["seed"]


def _compared(
    run: Run, differences: Sequence[np.ndarray], column: Column
) -> list[statistics.Comparison]:
    # One seed for all: precisions share their resamples, so adding one changes no other's numbers.
    width = column.range[1] - column.range[0]
    return statistics.compare_all(
        differences,
        *bootstrap_settings(run.config),
        patients=run.patients,
        bounds=(-width, width) if math.isfinite(width) else None,
    )


def _as_row(found: statistics.Comparison) -> Row:
    return {
        "n": found.n,
        "patients": found.patients,
        "changed": found.changed,
        "mean": found.mean,
        "sd": found.sd,
        "design_effect": found.design_effect,
        "spread": interval_record(found.spread),
        "interval": interval_record(found.interval),
        "p": found.p,
        # Without any variation there is nothing to estimate sensitivity from.
        "detectable": found.detectable if found.sd > 0 else None,
    }


def interval_record(interval: statistics.Interval) -> dict[str, Any]:
    return {"low": interval.low, "high": interval.high, "method": interval.method}


def _correct(rows: Mapping[str, Row], *keys: str) -> None:
    """Add Holm's p-values, in the family of the precisions: None where there is none."""
    for key in keys:
        known = {name: row[key] for name, row in rows.items() if row[key] is not None}
        adjusted = statistics.holm(known)
        for name, row in rows.items():
            row[f"{key}_holm"] = adjusted.get(name)
