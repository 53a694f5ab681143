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

    By precision and share: count, of, share, its interval by patient, and of all but the original
    the paired difference with its interval. Reports of no known patient are patients of their own,
    since their findings are alike too.
    """
    definite = _matrix(run, ORIGINAL, REFERENCES, [PRESENT])
    named = _matrix(run, ORIGINAL, REFERENCES, MENTIONED)
    units = {SENSITIVITY: definite, SPECIFICITY: ~named}
    has = {name: _matrix(run, name, "statuses", MENTIONED) for name in run.precisions}
    found: dict[str, dict[str, Any]] = {name: {} for name in run.precisions}
    for share, wanted in ((SENSITIVITY, True), (SPECIFICITY, False)):
        right = {name: each == wanted for name, each in has.items()}
        for name in run.precisions:
            found[name][share] = _share(run, right[name], units[share])
        gained = [right[name].astype(np.int8) - right[ORIGINAL] for name in run.quantized]
        differences = _differences(run, gained, units[share])
        for name, each in zip(run.quantized, differences, strict=True):
            found[name][share]["difference"] = each
    return found


def _matrix(run: Run, system: str, column: str, wanted: Sequence[str]) -> np.ndarray:
    """Which of CANONICAL each report has: bool [reports, findings]."""
    by_finding = findings_of(run, system, column, wanted)
    return np.stack([by_finding[name] for name in CANONICAL], axis=1)


def _patients(run: Run) -> np.ndarray:
    """Each report's patient as a number; where none is known, each report is its own."""
    numbers = run.patient_numbers
    return np.arange(len(run.reports)) if numbers is None else numbers


def _share(run: Run, right: np.ndarray, units: np.ndarray) -> dict[str, Any]:
    patients = _patients(run)[np.nonzero(units)[0]]
    return proportion(right[units], run.config["statistics"]["confidence"], patients)


def _differences(
    run: Run, gained: Sequence[np.ndarray], units: np.ndarray
) -> list[dict[str, Any] | None]:
    """Return paired differences of a pooled share; None where too few reports have a unit."""
    weights = units.sum(axis=1)
    kept = weights > 0
    if kept.sum() < 2:
        return [None] * len(gained)
    settings = run.config["statistics"]
    compared = statistics.compare_all(
        [(each * units).sum(axis=1)[kept].astype(np.float64) for each in gained],
        *(settings["resamples"], settings["confidence"], run.config["seed"]),
        patients=_patients(run)[kept],
        weights=weights[kept].astype(np.float64),
        bounds=(-1, 1),
    )
    return [{"mean": each.mean, "interval": vars(each.interval)} for each in compared]
