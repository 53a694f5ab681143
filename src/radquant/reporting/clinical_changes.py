"""What changed clinically, in numbers; no text of a report is among them.

A finding that no list of ours knows is named by words of a report: here it is only "other".
"""

import heapq
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from radquant import statistics
from radquant.patient_units import Patients
from radquant.reporting.finished_run import REFERENCES, Run, values
from radquant.scoring.changes import FLAGS, KINDS, harm
from radquant.scoring.finding_terms import CANONICAL
from radquant.scoring.findings import PRESENT, UNCERTAIN
from radquant.settings.run import ORIGINAL

EXAMPLES = 5
# A finding in fewer references than this says nothing about sensitivity.
FEWEST_REFERENCES = 5
OTHER = "other"
MENTIONED = (PRESENT, UNCERTAIN)  # definitely or possibly there
# Kinds that change whether a finding is there.
FLIPS = ("lost", "negated", "invented", "hedged", "asserted")
# Findings that the original's output definitely has and this one does not, and the other way round.
LOSING, ADDING = ("lost", "negated"), ("invented", "asserted")
# Kinds that need a finding which the original definitely states. Their shares are of the reports
# with such a finding.
OF_STATED = (*LOSING, "hedged")


def changes(run: Run, precision: str) -> dict[str, Any]:
    """Return how many changes of each kind a precision has, and in how many reports."""
    found = _kinds(run, precision)
    stated = {
        "original": _stated(run, "statuses"),
        "reference": _stated(run, REFERENCES),
    }
    kinds = {}
    for place, kind in enumerate(KINDS):
        among = stated["original"] if kind in OF_STATED else None
        hits = _share(run, found[:, place] > 0, among)
        kinds[kind] = {"changes": int(found[:, place].sum()), **hits}
    losing = _with_any(found, LOSING)
    return {
        "changed": _share(run, np.fromiter(_changed(run, precision), dtype=bool)),
        "kinds": kinds,
        # The harms that a verdict speaks of, each report counted once. A finding can be lost only
        # where the original states one. A second share is of the reports where the radiologist
        # states one.
        "losing": _share(run, losing, stated["original"]),
        "losing_of_reference": _share(run, losing, stated["reference"]),
        "adding": _share(run, _with_any(found, ADDING)),
        "in_reference": _in_reference(run, precision),
    }


def _stated(run: Run, column: str) -> np.ndarray:
    """Say of each report if the original's output, or the reference, has a definite finding."""
    return run.has(ORIGINAL, column, lambda statuses: PRESENT in statuses.values())


def _changed(run: Run, precision: str) -> Iterator[bool]:
    written, originals = (values(run.generations[name]["output"]) for name in (precision, ORIGINAL))
    return (one != other for one, other in zip(written, originals, strict=True))


def _kinds(run: Run, precision: str) -> np.ndarray:
    """Return how many changes of each of KINDS each report has: int64 [reports, kinds]."""
    place = {kind: number for number, kind in enumerate(KINDS)}
    codes, found = run.different(precision, "changes")
    counts = np.zeros((codes.max() + 1, len(KINDS)), dtype=np.int64)
    for row, several in zip(counts, found, strict=True):
        for change in several:
            row[place[change["kind"]]] += 1
    return counts[codes]


def _with_any(found: np.ndarray, kinds: Sequence[str]) -> np.ndarray:
    chosen = [kind in kinds for kind in KINDS]
    return np.asarray(found[:, chosen].any(axis=1))


def _in_reference(run: Run, precision: str) -> dict[str, int]:
    """Return how many of the flips of each kind are of findings that the reference has."""
    references = run.clinical(ORIGINAL, REFERENCES)
    counts = Counter(
        change["kind"]
        for row, reference in zip(run.clinical(precision, "changes"), references, strict=True)
        for change in row
        if reference.get(change["finding"]) == PRESENT
    )
    return {kind: counts[kind] for kind in FLIPS}


def outputs(run: Run, precision: str) -> dict[str, Any]:
    """Return what is wrong with a precision's outputs by themselves."""
    table = run.generations[precision]
    return {
        "flags": {
            flag: _share(run, run.has(precision, "flags", partial(_holds, flag))) for flag in FLAGS
        },
        "unsupported": _share(run, run.has(precision, "unsupported", bool)),
        "truncated_prompts": int((table["truncated_tokens"] > 0).sum()),
        "mean_tokens": float(table["output_tokens"].mean()),
        "mean_words": sum(len(text.split()) for text in values(table["output"])) / len(table),
    }


def _holds(flag: str, flags: Sequence[str]) -> bool:
    return flag in flags


def findings(run: Run) -> dict[str, Any]:
    """Return each finding's sensitivities and flips, the most frequent in the references first."""
    has = findings_of(run, ORIGINAL, REFERENCES, [PRESENT])
    mentioned = {name: findings_of(run, name, "statuses", MENTIONED) for name in run.precisions}
    order = sorted(CANONICAL, key=lambda name: (-has[name].sum(), name))
    flips = {name: _flips(run, name) for name in run.quantized}
    rows: dict[str, dict[str, Any]] = {
        finding: {
            "references": int(has[finding].sum()),
            "sensitivity": _sensitivities(
                run, has[finding], {name: found[finding] for name, found in mentioned.items()}
            ),
            "flips": {name: _counts(flips[name][finding]) for name in run.quantized},
        }
        for finding in order
        if has[finding].any() or any(flips[name][finding] for name in run.quantized)
    }
    return {
        "fewest_references": FEWEST_REFERENCES,
        "too_few": sum(0 < row["references"] < FEWEST_REFERENCES for row in rows.values()),
        "by_finding": rows,
        OTHER: {name: _counts(flips[name][OTHER]) for name in run.quantized},
    }


def _flips(run: Run, precision: str) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = {name: Counter() for name in (*CANONICAL, OTHER)}
    codes, found = run.different(precision, "changes")
    for row, reports in zip(found, np.bincount(codes).tolist(), strict=True):
        for change in row:
            finding = change["finding"]
            counts[finding if finding in counts else OTHER][change["kind"]] += reports
    return counts


def _counts(counter: Counter[str]) -> dict[str, int]:
    return {kind: counter[kind] for kind in FLIPS}


def _sensitivities(
    run: Run, has: np.ndarray, mentioned: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Return, by precision, the share of references with a finding whose output has it too.

    has: which references have it. mentioned: which outputs of each precision.
    """
    if has.sum() < FEWEST_REFERENCES:
        return {}
    settings = run.config["statistics"]
    patients = None if run.patient_numbers is None else run.patient_numbers[has]
    found = {name: values[has] for name, values in mentioned.items()}
    result = {
        name: proportion(values, settings["confidence"], patients) for name, values in found.items()
    }
    original = found[ORIGINAL].astype(float)
    differences = [found[name].astype(float) - original for name in run.quantized]
    intervals = statistics.bootstrap_intervals(
        *(differences, settings["resamples"], settings["confidence"], run.config["seed"]),
        patients=patients,
        bounds=(-1, 1),
    )
    for name, each, interval in zip(run.quantized, differences, intervals, strict=True):
        result[name]["difference"] = {"mean": float(each.mean()), "interval": vars(interval)}
    return result


def findings_of(
    run: Run, precision: str, column: str, wanted: Sequence[str]
) -> dict[str, np.ndarray]:
    """Say of each finding and report whether it has one of the `wanted` statuses there."""
    place = {name: number for number, name in enumerate(CANONICAL)}
    codes, different = run.different(precision, column)
    found = np.zeros((len(CANONICAL), codes.max() + 1), dtype=bool)
    for row, statuses in enumerate(different):
        for name, status in statuses.items():
            if status in wanted and name in place:
                found[place[name], row] = True
    return {name: found[number][codes] for name, number in place.items()}


def _share(run: Run, hits: np.ndarray, among: np.ndarray | None = None) -> dict[str, Any]:
    """Return how many reports, of how many, which share that is, and its interval.

    hits: bool [reports]. among: which reports can be hit at all; every one for None.
    """
    chosen, patients = hits, run.patient_numbers
    if among is not None:
        chosen = chosen[among]
        patients = None if patients is None else patients[among]
    found = proportion(chosen, run.config["statistics"]["confidence"], patients)
    return {"reports": found.pop("count"), **found}


def proportion(hits: np.ndarray, confidence: float, patients: Patients | None) -> dict[str, Any]:
    """Return a share with its score interval, by patient where these are known; None of nothing."""
    total = len(hits)
    known = {"count": int(hits.sum()), "of": total}
    if not total:
        return {**known, "share": None, "interval": None}
    interval = statistics.proportion_interval(hits, confidence, patients)
    return {**known, "share": known["count"] / total, "interval": vars(interval)}


def examples(run: Run, level: str) -> list[dict[str, Any]]:
    """Return the most harmful changes, each precision in turn.

    Taking the worst of each precision, then the second of each, keeps a ruined precision from
    filling the list. `level` names the F1 that is told beside them.
    """
    ranked = [_ranked(run, name, level) for name in run.quantized]
    turns = [rows[turn] for turn in range(EXAMPLES) for rows in ranked if turn < len(rows)]
    return sorted(turns[:EXAMPLES], key=lambda row: run.precisions.index(row["precision"]))


def _ranked(run: Run, precision: str, level: str) -> list[dict[str, Any]]:
    table, original = run.scores[precision], run.scores[ORIGINAL]
    columns = (
        run.clinical(precision, "changes"),
        run.clinical(precision, "flags"),
        run.clinical(ORIGINAL, "flags"),
    )
    scores = (table[level].tolist(), original[level].tolist(), values(table["id"]))
    # Among equals, first what lost most against the reference.
    ranks = (
        (-harm(found, flags), score - before, name, row)
        for row, (found, flags, flags_before, score, before, name) in enumerate(
            zip(*columns, *scores, strict=True)
        )
        if found or set(flags) - set(flags_before)
    )
    return [
        {
            "precision": precision,
            "id": name,
            "harm": -less_harm,
            "kinds": dict(Counter(change["kind"] for change in found)),
            "flags": json.loads(table["flags"].iloc[row]),
            "score": float(table[level].iloc[row]),
            "score_original": float(original[level].iloc[row]),
        }
        for less_harm, _, name, row in heapq.nsmallest(EXAMPLES, ranks)
        for found in [json.loads(table["changes"].iloc[row])]
    ]
