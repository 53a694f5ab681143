"""What a metric is: one module of this folder, and its line in `radquant.registry`.

A metric gives a report's output one or several numbers, each a column of `scores/*.parquet`. Its
module says of each column what it is called, which way is better, and where it is shown.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

Annotation = dict[str, Any]


@dataclass(frozen=True)
class Pair:
    """One report's output and what it is held against, each with its annotation."""

    reference: str
    output: str
    original: str  # the original model's output
    reference_note: Annotation
    output_note: Annotation
    original_note: Annotation

    @property
    def identical(self) -> bool:
        return self.output == self.original


@dataclass(frozen=True)
class Column:
    """One number of a report's output. By default it is shown wherever a number can be."""

    name: str  # in scores/*.parquet and summary.json
    label: str  # in tables and sentences
    title: str = ""  # in the head of the report's first table: the label, if empty
    kind: type = float  # or bool, told as a share of the reports, or int, a count
    range: tuple[float, float] = (0, 1)  # of a float: another value is refused
    better: Literal["more", "less", "neither"] = "more"
    mean: bool = True  # its mean over reports is in summary.json's `systems`; else nothing below
    table: bool = True  # in the table of the systems
    difference: bool = True  # tested: the paired difference from the original, with its interval
    runs: bool = True  # in the table of scripts/compare_runs.py
    ruler: bool = True  # in the report's table of rulers, where its metric has a group

    @property
    def heading(self) -> str:
        return self.title or self.label


@dataclass(frozen=True)
class Section:
    """A table of its own, for what should not stand beside the other columns."""

    heading: str  # the measure's name is put after it
    lead: str


@dataclass(frozen=True)
class Pooled:
    """A number of all reports together that is no mean over them, such as F1 over labels.

    `value(count(x))` with the sums of `count(x)` over reports is the number. x is [reports,
    columns], and `count` gives [reports, counts]. `value` takes sums [..., counts] to [...], nan
    where there is none. So it can be computed of any resample of reports.
    """

    name: str  # in summary.json
    label: str
    columns: tuple[str, ...]  # of the scores, in the order in which `count` reads them
    count: Callable[[np.ndarray], np.ndarray]
    value: Callable[[np.ndarray], np.ndarray]
    better: Literal["more", "less"] = "more"
    over: Callable[[np.ndarray], np.ndarray] | None = None  # how many labels, of the same sums


# The groups of the report's table of rulers, in its order.
GROUPS = ("overlap", "entity", "label", "errors", "model judge", "other")


@dataclass(frozen=True)
class About:
    """What a metric is. A note may name {measure}, {annotator} and {citation}."""

    columns: tuple[Column, ...]
    citation: str
    note: str = ""  # below the table of the systems
    section: Section | None = None  # instead of a place in the table of the systems
    group: str = "other"  # of GROUPS; "" for what is not held against the reference: no ruler
    name: str = ""  # of the metric in a sentence: the first column's label, if empty
    annotations: bool = False  # it reads the annotations, so that it errs where others do that do
    pooled: tuple[Pooled, ...] = ()
    remark: str = ""  # below the table of rulers


@runtime_checkable
class Metric(Protocol):
    """The names that a module needs."""

    @property
    def ABOUT(self) -> About:
        """What it is called and where it is shown."""

    def measure(self, pair: Pair) -> Sequence[float]:
        """Return one value for each column, in their order."""
