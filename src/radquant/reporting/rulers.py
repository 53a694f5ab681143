"""What every ruler says of every system: means over reports, and F1 pooled over them.

One ruler is a column of the scores, or a `Pooled` of a metric. All get the paired interval of the
difference from the original, by patient.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from radquant.reporting.finished_run import Run
from radquant.reporting.resampling import Statistic, by_patient, intervals
from radquant.scoring.measures.tables import kind
from radquant.scoring.metrics.columns import PRIMARY, metrics
from radquant.scoring.metrics.kind import GROUPS, About, Column, Pooled
from radquant.settings.run import BASELINES, ORIGINAL

Rows = Mapping[str, Mapping[str, Any]]  # of each precision: mean and interval of the difference


@dataclass(frozen=True)
class Ruler:
    about: About
    of: Column | Pooled

    @property
    def pooled(self) -> Pooled:
        """A mean over reports is pooled, too: the sum of the values over the number of reports."""
        if isinstance(self.of, Pooled):
            return self.of
        return Pooled(self.of.name, self.of.label, (self.of.name,), _with_ones, _mean)


def rulers(run: Run, differences: Mapping[str, Rows]) -> list[dict[str, Any]]:
    """Return the rulers in the order of their groups.

    `differences` are the comparisons that are made anyway, by column: they are the same here. Each
    ruler has name, label, group, better and over (how many labels a macro F1 is over, else None).
    It also has systems ({name: value, None where there is none}) and differences ({precision: mean,
    interval}).
    """
    known = list(_rulers(run))
    sums: dict[Any, np.ndarray] = {}  # of what several rulers count
    found = [_systems(ruler, run, sums) for ruler in known]
    others = [ruler for ruler in known if ruler.of.name not in differences]
    compared = _compared(others, run) | {name: _short(rows) for name, rows in differences.items()}
    for row in found:
        row["differences"] = compared[row["name"]]
    return found


def _rulers(run: Run) -> Iterator[Ruler]:
    abouts = [metric.ABOUT for metric in metrics()]
    abouts += [kind(name).ABOUT for name in run.measures]
    for group in GROUPS:
        for about in abouts:
            if about.group != group:
                continue
            shown = [each for each in about.columns if each.mean and each.ruler]
            yield from (Ruler(about, each) for each in shown)
            yield from (Ruler(about, each) for each in about.pooled)


def _systems(ruler: Ruler, run: Run, known: dict[Any, np.ndarray]) -> dict[str, Any]:
    pooled = ruler.pooled
    sums = {}
    for name in _names(run):
        key = (pooled.columns, pooled.count, name)
        if key not in known:
            known[key] = _counts(pooled, run.scores[name]).sum(axis=0)
        sums[name] = known[key]
    return {
        "name": ruler.of.name,
        "label": ruler.of.label,
        "metric": ruler.about.name or ruler.about.columns[0].label,
        "group": ruler.about.group,
        "annotations": ruler.about.annotations,
        "better": ruler.of.better,
        "primary": ruler.of.name == PRIMARY,
        "over": int(pooled.over(sums[ORIGINAL])) if pooled.over else None,
        "systems": {name: _number(pooled.value(each)) for name, each in sums.items()},
    }


def _names(run: Run) -> list[str]:
    return [*run.precisions, *BASELINES]


def _compared(chosen: list[Ruler], run: Run) -> dict[str, dict[str, Any]]:
    """Return {ruler: {precision: mean and interval}}, all from one set of resamples."""
    blocks: dict[Any, slice] = {}  # of what is counted once, its columns
    counts: list[np.ndarray] = []
    asked: list[tuple[str, str, Statistic]] = []
    # In the order of the labels, which sets whom a resample draws.
    patients = run.patients and np.unique(run.patients, return_inverse=True)[1]
    for ruler in chosen:
        pooled = ruler.pooled
        for name in run.precisions:
            key = (pooled.columns, pooled.count, name)
            if key not in blocks:
                start = blocks[next(reversed(blocks))].stop if blocks else 0
                # Added up at once: of all reports these are more than all else that is held.
                counts.append(by_patient(_counts(pooled, run.scores[name]), patients))
                blocks[key] = slice(start, start + counts[-1].shape[1])
        place = {name: blocks[pooled.columns, pooled.count, name] for name in run.precisions}
        asked += [
            (ruler.of.name, name, partial(_difference, pooled, place[name], place[ORIGINAL]))
            for name in run.quantized
        ]
    if not asked:
        return {ruler.of.name: {} for ruler in chosen}
    settings, stacked = run.config["statistics"], np.concatenate(counts, axis=1)
    counts.clear()
    of = [statistic for _, _, statistic in asked]
    chances = (settings["resamples"], settings["confidence"], run.config["seed"])
    found: dict[str, dict[str, Any]] = {}
    for (ruler_name, name, statistic), each in zip(
        asked, intervals(stacked, of, None, *chances), strict=True
    ):
        written = each and {"low": each.low, "high": each.high, "method": each.method}
        row = {"mean": _number(statistic(stacked.sum(axis=0))), "interval": written}
        found.setdefault(ruler_name, {})[name] = row
    return found


def _difference(pooled: Pooled, own: slice, original: slice, sums: np.ndarray) -> np.ndarray:
    return pooled.value(sums[..., own]) - pooled.value(sums[..., original])


def _short(rows: Rows) -> dict[str, Any]:
    return {name: {key: row[key] for key in ("mean", "interval")} for name, row in rows.items()}


def _counts(pooled: Pooled, scores: pd.DataFrame) -> np.ndarray:
    return pooled.count(scores[list(pooled.columns)].to_numpy())


def _with_ones(values: np.ndarray) -> np.ndarray:
    return np.concatenate([values.astype(np.float64), np.ones((len(values), 1))], axis=1)


def _mean(sums: np.ndarray) -> np.ndarray:
    reports = sums[..., 1]  # none where the only patient is left out
    return np.divide(
        sums[..., 0], reports, out=np.full(np.shape(reports), np.nan), where=reports > 0
    )


def _number(value: np.ndarray) -> float | None:
    return float(value) if np.isfinite(value) else None
