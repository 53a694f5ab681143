"""The blinded reader study of report.html: its scales, and which run and reports it is about.

Readers rate every text apart, without its author's name. The errors are the six kinds of ReXVal (Yu
et al., Patterns 2023). docs/reading.md describes the file that a reader hands in.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import pandas as pd

FORMAT = 1
# From the worst to the best: 1 to 5.
ACCEPTABILITY = (
    "not acceptable, to be written anew",
    "acceptable after large corrections",
    "acceptable after several small corrections",
    "acceptable after one small correction",
    "acceptable as it is",
)
# What could come of it for the patient, were the text signed as it stands.
HARM = {
    "none": "no consequence for the patient",
    "mild": "at most a needless check or a short delay",
    "moderate": "a wrong or late treatment, without lasting damage",
    "severe": "lasting damage or death",
}
ERRORS = {
    "false finding": "states a finding that is not there",
    "missed finding": "leaves out, or denies, a finding that matters",
    "wrong place": "right finding, wrong side, lobe or place",
    "wrong severity": "right finding, wrong degree or size",
    "false comparison": "compares with an earlier examination without ground",
    "missed comparison": "leaves out a change since an earlier examination",
}
# The radiologist's own text is not there, or stands beside the text to be rated, or is one of those
# to be rated.
HIDDEN, SHOWN, BLINDED = "hidden", "shown", "blinded"
REFERENCES = (HIDDEN, SHOWN, BLINDED)


class Texts(Protocol):
    """The part of a `Run` that readers see."""

    @property
    def precisions(self) -> list[str]: ...  # the original first

    @property
    def reports(self) -> pd.DataFrame: ...  # id, reference

    @property
    def generations(self) -> Mapping[str, pd.DataFrame]: ...  # output, in the order of reports


def run_id(run: Texts) -> str:
    """Return 16 hex digits that stand for the names of the systems and all texts they wrote.

    Scores and measures count for nothing here: the same texts, scored again, keep their readings.
    """
    columns = [run.reports["id"], run.reports["reference"]]
    columns += [run.generations[name]["output"] for name in run.precisions]
    digest = hashlib.sha256(json.dumps(run.precisions).encode())
    for row in zip(*columns, strict=True):
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()[:16]


def order(run: str, ids: Sequence[str]) -> list[int]:
    """Return the places of `ids` as readers of the run get them: the first n of it for all readers.

    By a hash of run and id, so that the order of the corpus has no part in it.
    """

    def drawn(place: int) -> str:
        return hashlib.sha256(f"{run}\0{ids[place]}".encode()).hexdigest()

    return sorted(range(len(ids)), key=drawn)


def scales() -> dict[str, Any]:
    """What the page needs to know of the ratings."""
    return {
        "format": FORMAT,
        "acceptability": list(ACCEPTABILITY),
        "harm": [[name, meaning] for name, meaning in HARM.items()],
        "errors": [[name, meaning] for name, meaning in ERRORS.items()],
    }
