"""The primary difference in parts of the reports, as `statistics.subgroups` divides them.

Subgroups are for looking: a difference that stands in one of many groups is expected by chance. So
each group has its number and interval. Each division has one test of whether its groups differ (an
interaction), corrected by Holm's method over all divisions and precisions.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from radquant import statistics
from radquant.files import read_table
from radquant.reporting.checks import check_same_reports
from radquant.reporting.finished_run import REFERENCES, Run
from radquant.reporting.formatting import (
    DASH,
    bullets,
    change,
    coverage,
    escape,
    interval,
    number,
    probability,
    prose,
    wide_table,
)
from radquant.scoring.findings import PRESENT, UNCERTAIN
from radquant.scoring.metrics.columns import PRIMARY, primary
from radquant.scoring.subgroup_names import ANY
from radquant.settings.run import ORIGINAL

# A group of fewer reports is counted and not judged.
FEWEST = 10
Summary = Mapping[str, Any]


def subgroups(run: Run) -> dict[str, Any]:
    """Return each division's groups and tests.

    Each group has its number of reports and, by precision, its difference from the original in the
    primary column. Each precision has a test of interaction.
    """
    divisions = run.config["statistics"].get("subgroups") or {}
    labels = {name: _labels(run, name, division) for name, division in divisions.items()}
    found = {name: _division(run, groups) for name, groups in labels.items()}
    tests = {
        (division, precision): row["p"]
        for division, record in found.items()
        for precision, row in record["interaction"].items()
        if row["p"] is not None
    }
    keys = {"\n".join(key): key for key in tests}
    for key, adjusted in statistics.holm({k: tests[v] for k, v in keys.items()}).items():
        division, precision = keys[key]
        found[division]["interaction"][precision]["p_holm"] = adjusted
    return found


def _labels(run: Run, name: str, division: Mapping[str, Any]) -> np.ndarray:
    """The group of each report, '' where it is not known."""
    if division["finding"] is not None:
        return _by_finding(run, division["finding"])
    if division["length"] is not None:
        return _by_length(run, division["length"])
    return np.array(_columns(run)[name].tolist(), dtype=object)


def _by_finding(run: Run, finding: str) -> np.ndarray:
    names = ("abnormal", "normal") if finding == ANY else (finding, f"no {finding}")
    has = [
        any(status in (PRESENT, UNCERTAIN) for status in row.values())
        if finding == ANY
        else row.get(finding) in (PRESENT, UNCERTAIN)
        for row in run.clinical(ORIGINAL, REFERENCES)
    ]
    return np.array([names[0] if each else names[1] for each in has], dtype=object)


def _by_length(run: Run, which: str) -> np.ndarray:
    if which == "reference":
        texts = run.reports["reference"].tolist()
    else:
        inputs = run.config["task"]["inputs"]
        whole = read_table(run.folder / "data" / "eval.csv", ["id", *inputs]).set_index("id")
        rows = whole.loc[run.reports["id"], inputs]
        texts = rows.agg(" ".join, axis=1).tolist()
    words = np.array([len(text.split()) for text in texts])
    cut = float(np.median(words))
    names = (f"up to {cut:g} words", f"over {cut:g} words")
    return np.array([names[0] if count <= cut else names[1] for count in words], dtype=object)


def _columns(run: Run) -> pd.DataFrame:
    path = run.folder / "data" / "subgroups.csv"
    found = read_table(path, ["id"]).set_index("id")
    ids = run.reports["id"].tolist()
    check_same_reports(sorted(set(ids) & set(found.index)), sorted(ids), path)
    return found.loc[ids]


def _division(run: Run, groups: np.ndarray) -> dict[str, Any]:
    known = groups != ""
    names = sorted(set(groups[known].tolist()), key=_in_order)
    judged = [name for name in names if (groups == name).sum() >= FEWEST]
    original = run.scores[ORIGINAL][PRIMARY].to_numpy(dtype=np.float64)
    differences = {
        name: run.scores[name][PRIMARY].to_numpy(dtype=np.float64) - original
        for name in run.quantized
    }
    return {
        "unknown": int((~known).sum()),
        "groups": {
            name: _group(run, groups == name, original, differences, name in judged)
            for name in names
        },
        "interaction": {
            precision: {
                "p": _interaction(run, d, groups, judged) if len(judged) > 1 else None,
                "p_holm": None,
            }
            for precision, d in differences.items()
        },
    }


def _in_order(name: str) -> tuple[float, str]:
    """'below 40' before '40 to below 65', 'up to 9 words' before 'over 9 words'."""
    if name.startswith(("below ", "up to ")):
        return -np.inf, name
    numbers = [word for word in name.split() if word.replace(".", "").replace("-", "").isdigit()]
    return (float(numbers[0]), name) if numbers else (np.inf, name)


def _group(
    run: Run,
    chosen: np.ndarray,
    original: np.ndarray,
    differences: Mapping[str, np.ndarray],
    judged: bool,
) -> dict[str, Any]:
    settings = run.config["statistics"]
    low, high = primary().range
    sizes = (settings["resamples"], settings["confidence"], run.config["seed"])
    patients = _patients(run, chosen)
    rows = {}
    for name, d in differences.items():
        ends = None
        if judged:
            found = statistics.bootstrap_interval(
                d[chosen], *sizes, patients=patients, bounds=(low - high, high - low)
            )
            ends = {"low": found.low, "high": found.high, "method": found.method}
        rows[name] = {"mean": float(d[chosen].mean()), "interval": ends}
    return {
        "reports": int(chosen.sum()),
        "patients": None if patients is None else len(set(patients)),
        "original": float(original[chosen].mean()),
        "differences": rows,
    }


def _interaction(run: Run, d: np.ndarray, groups: np.ndarray, judged: list[str]) -> float:
    chosen = np.isin(groups, judged)
    return statistics.interaction_p(
        d[chosen],
        groups[chosen].tolist(),
        run.config["statistics"]["resamples"],
        run.config["seed"],
        patients=_patients(run, chosen),
    )


def _patients(run: Run, chosen: np.ndarray) -> list[str] | None:
    if run.patients is None:
        return None
    return [patient for patient, has in zip(run.patients, chosen, strict=True) if has]


def subgroups_section(summary: Summary) -> str:
    quality = summary["quality"]
    divisions = quality["subgroups"]
    if not divisions or len(quality["precisions"]) == 1:
        return ""
    names = [name for name in quality["precisions"] if name != ORIGINAL]
    tables = [_table(name, record, names) for name, record in divisions.items()]
    lead = prose(
        f"Precision minus original in the {primary().label} level of {quality['measure']}, with "
        f"{coverage(quality)}s, in the parts of the reports that the configuration names. These "
        "are exploratory.",
    )
    notes = [
        "*Groups differ*: p of a test of whether the difference is the same in all groups of a "
        "division, Holm-corrected over all divisions and precisions. Judge a group by it first.",
        f"A group of fewer than {FEWEST} reports is counted and not judged.",
    ]
    return "\n\n".join(["## Subgroups", lead, *tables, bullets(*notes)])


def _table(division: str, record: Summary, names: list[str]) -> str:
    by_patient = any(row["patients"] is not None for row in record["groups"].values())
    header = [escape(division), "reports", *(["patients"] if by_patient else []), "original"]
    rows = []
    for group, row in record["groups"].items():
        cells = [f"{row['patients']:,}"] if by_patient else []
        differences = [_cell(row["differences"][name]) for name in names]
        start = [escape(group), f"{row['reports']:,}", *cells, number(row["original"])]
        rows.append([*start, *differences])
    blank = [DASH] * (len(header) - 1)
    if record["unknown"]:
        rows.append(["not known", f"{record['unknown']:,}", *blank[1:], *[DASH] * len(names)])
    tests = [probability(record["interaction"][name]["p_holm"]) for name in names]
    rows.append(["*groups differ*", *blank, *tests])
    return wide_table([*header, *map(escape, names)], rows)


def _cell(row: Summary) -> str:
    if row["interval"] is None:
        return f"{change(row['mean'])} (too few)"
    return f"{change(row['mean'])} ({interval(row['interval'])})"
