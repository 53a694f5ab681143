"""How many of the radiologist's findings a precision's outputs have, all findings together.

A unit is a report and a finding of our lists. A finding that the reference has as uncertain is
neither there nor not, and is left out of both shares.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from radquant import statistics
from radquant.reporting.clinical_changes import MENTIONED, findings_of, proportion
from radquant.reporting.finished_run import REFERENCES, Run
from radquant.scoring.finding_terms import CANONICAL
from radquant.scoring.findings import PRESENT
from radquant.settings.run import ORIGINAL

SENSITIVITY, SPECIFICITY = "sensitivity", "specificity"


def pooled(run: Run) -> dict[str, dict[str, Any]]:
    """Return each precision's pooled sensitivity and specificity.

    By precision and share: count, of, share, its interval by patient (reports of no known patient
    are patients of their own, since their findings are alike too), and of all but the original the
    paired difference with its interval.
    """
    definite = _matrix(run, ORIGINAL, REFERENCES, [PRESENT])
    named = _matrix(run, ORIGINAL, REFERENCES, MENTIONED)
    units = {SENSITIVITY: definite, SPECIFICITY: ~named}
    found: dict[str, dict[str, Any]] = {}
    right_before = {}
    for name in run.precisions:
        has = _matrix(run, name, "statuses", MENTIONED)
        found[name] = {}
        for share, right in ((SENSITIVITY, has), (SPECIFICITY, ~has)):
            found[name][share] = _share(run, right, units[share])
            if name == ORIGINAL:
                right_before[share] = right
            else:
                gained = right.astype(np.int8) - right_before[share]
                found[name][share]["difference"] = _difference(run, gained, units[share])
    return found


def _matrix(run: Run, system: str, column: str, wanted: Sequence[str]) -> np.ndarray:
    """Which of CANONICAL each report has: bool [reports, findings]."""
    by_finding = findings_of(run, system, column, wanted)
    return np.stack([by_finding[name] for name in CANONICAL], axis=1)


def _patients(run: Run) -> list[str]:
    return run.patients or run.reports["id"].tolist()


def _share(run: Run, right: np.ndarray, units: np.ndarray) -> dict[str, Any]:
    rows = np.nonzero(units)[0]
    patients = _patients(run)
    labels = [patients[row] for row in rows]
    return proportion(right[units], run.config["statistics"]["confidence"], labels)


def _difference(run: Run, gained: np.ndarray, units: np.ndarray) -> dict[str, Any] | None:
    """Return the paired difference of a pooled share; None where too few reports have a unit."""
    weights = units.sum(axis=1)
    kept = weights > 0
    if kept.sum() < 2:
        return None
    settings = run.config["statistics"]
    result = statistics.compare_pooled(
        (gained * units).sum(axis=1)[kept].astype(np.float64),
        weights[kept].astype(np.float64),
        *(settings["resamples"], settings["confidence"], run.config["seed"]),
        patients=[label for label, use in zip(_patients(run), kept, strict=True) if use],
        bounds=(-1, 1),
    )
    return {"mean": result.mean, "interval": vars(result.interval)}
