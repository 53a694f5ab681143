"""Whose reports they are: one label per report, the unit of every interval and test."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd

from radquant.reporting.formatting import counted as written


def patients_of(evaluation: pd.DataFrame) -> list[str] | None:
    """Return a label of each report's patient, None where no report has one.

    evaluation: id and group, the patient or "". A report without one is a patient of its own.
    """
    groups = evaluation["group"].fillna("").astype(str).str.strip().tolist()
    if not any(groups):
        return None
    # The space keeps a report's id from being taken for a patient's label.
    return [group or f" {name}" for group, name in zip(groups, evaluation["id"], strict=True)]


def counted(patients: Sequence[str] | None) -> dict[str, Any] | None:
    """Return how many patients there are, and what the report says of them beside that."""
    if patients is None:
        return None
    reports = Counter(patients)
    return {
        "patients": len(reports),
        "reports": len(patients),
        "most_reports": max(reports.values()),
        "unknown": sum(label.startswith(" ") for label in patients),
    }


def patients_sentence(found: dict[str, Any] | None) -> str:
    """Say whether intervals and tests are by patient, from what `counted` returns."""
    if found is None:
        return (
            "Patients are not known: reports are taken as independent, which makes intervals too "
            "narrow where one patient has several."
        )
    own = (
        f", {found['unknown']:,} of them taken as a patient of its own" if found["unknown"] else ""
    )
    return (
        f"By patient: {found['reports']:,} reports of {written(found['patients'], 'patient')}, at "
        f"most {found['most_reports']:,} of one{own}."
    )
