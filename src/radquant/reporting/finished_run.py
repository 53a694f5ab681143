"""A finished run, as `collect` has read it and as every part of the report takes it."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from radquant import registry
from radquant.patient_units import patient_codes
from radquant.scoring.annotators.kind import Annotator
from radquant.scoring.records import Records
from radquant.settings.precision import (
    Activations,
    KVCache,
    LMHead,
    activations_of,
    kv_cache_of,
    lm_head_of,
)
from radquant.settings.run import ORIGINAL

# Written as JSON: what `radquant.scoring.changes` and `findings` say of a report.
CLINICAL = ("statuses", "reference_statuses", "changes", "unsupported", "flags")
ROWS = 10_000  # of a column, as Python's objects at a time
REFERENCES = "reference_statuses"  # the same in every system's scores


@dataclass(frozen=True)
class Run:
    """All inputs of a report, checked. Every table has one row per report, in the same order."""

    folder: Path  # the run's results
    config: dict[str, Any]
    precisions: list[str]  # the original first, then as the configuration has them
    annotator: str  # 'lexicon 1 (sha256 …)'
    rewards: str  # which definitions of F1
    measures: dict[str, str]  # of each measure that was asked for, what it was made with
    reports: pd.DataFrame  # id, reference of those that were written
    # The patient of each written report, and of each evaluation report. None if no patient is
    # known. A report without one is a patient of its own.
    patients: list[str] | None
    all_patients: list[str] | None
    # Per precision and baseline. It has `collect.score_columns`, those columns of CLINICAL that the
    # report reads, and the columns of `measures`.
    scores: dict[str, pd.DataFrame]
    generations: dict[str, pd.DataFrame]  # per precision, `collect.GENERATION_COLUMNS`
    annotations: dict[str, Records]  # of 'reference' and each precision, by id
    shards: dict[str, list[dict[str, Any]]]  # per precision, the records of its shards
    # Per precision: id, nll (nats) and tokens of all evaluation reports, the written ones first.
    likelihood: dict[str, pd.DataFrame]
    likelihood_costs: dict[str, dict[str, Any]]
    quantization: dict[str, dict[str, Any]]  # per quantized checkpoint, quantization.json
    # Per quantized checkpoint: what its own files say of rounding at run time, by the keys of a
    # precision.
    stated: dict[str, dict[str, Any]]
    disk_bytes: dict[str, int]  # per checkpoint, its weight files
    stored_dtypes: list[str]  # of the original's weight files: 'F16', 'BF16' …
    speed: dict[str, Any] | None  # speed.json; None where none is measured
    cleaning: dict[str, Any]
    calibration: dict[str, Any] | None  # set.json; None where no checkpoint needs calibration
    source: dict[str, Any]  # models/original/source.json
    hashes: dict[str, str]  # sha256 of the data and of the rendered prompts

    @property
    def quantized(self) -> list[str]:
        return [name for name in self.precisions if name != ORIGINAL]

    @property
    def patient_numbers(self) -> np.ndarray | None:
        """Each written report's patient as a number, where any is known: int64 [reports]."""
        return None if self.patients is None else patient_codes(self.patients, len(self.reports))

    @property
    def measure(self) -> str:
        """What F1 is called."""
        return annotator_of(self.config).MEASURE

    def clinical(self, precision: str, column: str) -> Iterator[Any]:
        """Yield the value of one of CLINICAL for each report; equal ones may be one object.

        As Python's objects, the values of 100,000 reports would take gigabytes.
        """
        return map(_parsed, values(self.scores[precision][column]))

    def different(self, precision: str, column: str) -> tuple[np.ndarray, Iterator[Any]]:
        """Return which of the different values of one of CLINICAL each report has, and the values.

        int64 [reports]; the values come one by one. Of thousands of reports many have the same.
        """
        codes, texts = pd.factorize(self.scores[precision][column])
        return codes, map(json.loads, texts)

    def has(self, precision: str, column: str, wanted: Callable[[Any], bool]) -> np.ndarray:
        """Say of each report whether its value of one of CLINICAL is `wanted`: bool [reports]."""
        codes, found = self.different(precision, column)
        return np.fromiter(map(wanted, found), dtype=bool)[codes]

    def checkpoint(self, precision: str) -> str:
        return str(self.config["precisions"][precision]["checkpoint"])

    def activations(self, precision: str) -> Activations | None:
        return activations_of(self._rounding(precision, "activations"))

    def kv_cache(self, precision: str) -> KVCache | None:
        return kv_cache_of(self._rounding(precision, "kv_cache"))

    def _rounding(self, precision: str, key: str) -> dict[str, Any] | None:
        """What the precision asks for, or else what its checkpoint says."""
        asked = self.config["precisions"][precision].get(key)
        return asked or self.stated.get(self.checkpoint(precision), {}).get(key)

    def lm_head(self, precision: str) -> LMHead | None:
        return lm_head_of(self.config["precisions"][precision].get("lm_head"))

    def prefix(self, precision: str) -> list[int]:
        """The tokens that the precision's checkpoint stores before every text."""
        checkpoint = self.checkpoint(precision)
        record = {} if checkpoint == ORIGINAL else self.quantization[checkpoint]
        return list(record.get("prefix", []))  # other tools' records have none


def values(column: pd.Series) -> Iterator[Any]:
    """Yield a column's values, which one by one take six times as long and all at once memory."""
    for start in range(0, len(column), ROWS):
        yield from column.iloc[start : start + ROWS].tolist()


def annotator_of(config: Mapping[str, Any]) -> Annotator:
    return registry.load_kind(registry.ANNOTATORS, config["scoring"]["annotator"])


@lru_cache(maxsize=1000)
def _parsed(text: str) -> Any:
    return json.loads(text)
