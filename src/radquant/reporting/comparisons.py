"""Each precision's paired comparison with the original: scores, likelihood, baselines."""

import math
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from radquant import statistics
from radquant.patient_units import Units
from radquant.reporting.finished_run import Run
from radquant.scoring.metrics.columns import PRIMARY, primary, tested
from radquant.scoring.metrics.kind import Column
from radquant.settings.run import BASELINES, ORIGINAL
from radquant.settings.scoring import OF_ORIGINAL

POWER = 0.8
MOST_NATS = 709  # e to the power of more is more than a float holds
# What a comparison says of the margin; None where there is none.
OF_MARGIN = ("margin", "reports_to_settle", "noninferiority_p", "equivalence_p")

# What is drawn of a column.
DIFFERENCES, GAINS, OF_BASELINES, SYSTEMS = "differences", "gains", "baselines", "systems"

Row = dict[str, Any]
Drawn = Mapping[tuple[str, str], Sequence[Units]]  # by column, and what of it


def drawn(run: Run) -> Drawn:
    """Return all means over the written reports that are tested, with their resamples.

    All are of one draw, because drawing patients takes longer than adding up what they have. With
    one seed, another precision changes no number of these.
    """
    asked: dict[tuple[str, str], list[np.ndarray]] = {}
    for column in tested():
        asked[column.name, DIFFERENCES] = _differences(run, column)
        asked[column.name, GAINS] = _gains(run, column)
    original, systems = score(run, ORIGINAL, PRIMARY), [*run.precisions, *BASELINES]
    asked[PRIMARY, OF_BASELINES] = [original - score(run, name, PRIMARY) for name in BASELINES]
    asked[PRIMARY, SYSTEMS] = [score(run, name, PRIMARY) for name in systems]
    resamples, _, seed = bootstrap_settings(run.config)
    of_all = [statistics.units(each, run.patients) for many in asked.values() for each in many]
    found = iter(statistics.drawn_together(of_all, resamples, seed))
    return {key: list(islice(found, len(many))) for key, many in asked.items()}


def score_differences(run: Run, column: Column, found: Drawn) -> dict[str, Row]:
    """Return each quantized precision's comparison with the original, by name; without its word.

    The margin is in the column's unit: a share of its range, or of the original's mean. Without a
    finite one nothing is said of it, nor where the original's mean is no larger. A system that lost
    everything would then be called no worse. found: what `drawn` returns.
    """
    original = score(run, ORIGINAL, column.name)
    margin, _ = margin_of(run, column)
    compared = _compared(run, found[column.name, DIFFERENCES], column)
    rows: dict[str, Row] = {}
    for name, each in zip(run.quantized, compared, strict=True):
        row = rows[name] = _as_row(each)
        row["original"] = float(original.mean())
        row["system"] = float(score(run, name, column.name).mean())
        row["detectable_share"] = (
            row["detectable"] / original.mean()
            if row["detectable"] is not None and original.any()
            else None
        )
        row |= dict.fromkeys(OF_MARGIN)
        if math.isfinite(margin):
            row["margin"] = margin
    gains = found[column.name, GAINS]
    if gains:
        of_margin = _of_margin(run, column, gains)
        for row, each, tests in zip(rows.values(), compared, of_margin, strict=True):
            row |= tests
            row["reports_to_settle"] = _to_settle(run, column, margin, each)
    _correct(rows, "p", "noninferiority_p", "equivalence_p")
    return rows


def _differences(run: Run, column: Column) -> list[np.ndarray]:
    original = score(run, ORIGINAL, column.name)
    return [score(run, name, column.name) - original for name in run.quantized]


def _gains(run: Run, column: Column) -> list[np.ndarray]:
    """Return each precision's margin + gain and margin − gain; none where there is no margin."""
    original = score(run, ORIGINAL, column.name)
    margin, margins = margin_of(run, column)
    if not math.isfinite(margin):
        return []
    if column.better != "less" and original.mean() - column.range[0] <= margin:
        return []
    sign = -1 if column.better == "less" else 1
    gains = [sign * each for each in _differences(run, column)]
    return [values for each in gains for values in (each + margins, margins - each)]


def margin_of(run: Run, column: Column) -> tuple[float, np.ndarray]:
    """Return the margin in the column's unit, and what each report adds to it."""
    settings, original = run.config["statistics"], score(run, ORIGINAL, column.name)
    low, high = column.range
    if settings.get("margin_of") == OF_ORIGINAL:
        own = settings["margin"] * (original - (low if math.isfinite(low) else 0.0))
        return float(own.mean()), own
    margin = settings["margin"] * (high - low)
    return margin, np.full(len(original), margin)


def _of_margin(run: Run, column: Column, gains: Sequence[Units]) -> list[dict[str, Any]]:
    """Return the p-values of non-inferiority and of equivalence (two one-sided tests)."""
    resamples, _, seed = bootstrap_settings(run.config)
    low, high = column.range
    # The most that a report can lose is the whole range, whatever it has here.
    worst = low - high + float(margin_of(run, column)[1].min())
    tests = [statistics.gain_p(each, worst, resamples, seed) for each in gains]
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


def baseline_differences(run: Run, found: Drawn) -> dict[str, Row]:
    """Return the original's comparison with each baseline: original minus baseline."""
    compared = _compared(run, found[PRIMARY, OF_BASELINES], primary())
    return {name: _as_row(each) for name, each in zip(BASELINES, compared, strict=True)}


def system_intervals(run: Run, found: Drawn) -> dict[str, statistics.Interval]:
    """Return the interval of each system's mean in the primary column."""
    chances = bootstrap_settings(run.config)
    bounds = primary().range
    return {
        name: statistics.interval_of(each, *chances, bounds, None)
        for name, each in zip([*run.precisions, *BASELINES], found[PRIMARY, SYSTEMS], strict=True)
    }


def score(run: Run, system: str, column: str) -> np.ndarray:
    return run.scores[system][column].to_numpy(dtype=np.float64)


def bootstrap_settings(config: Mapping[str, Any]) -> tuple[int, float, int]:
    settings = config["statistics"]
    return settings["resamples"], settings["confidence"], config["seed"]


def _compared(run: Run, many: Sequence[Units], column: Column) -> list[statistics.Comparison]:
    width = column.range[1] - column.range[0]
    return statistics.compare_units(
        many,
        *bootstrap_settings(run.config),
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
