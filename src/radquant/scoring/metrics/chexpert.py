"""CheXpert's labels of output and reference (`radquant.scoring.chexpert`), and F1 of all reports.

F1 is pooled over reports: micro over all label decisions, macro the mean of the labels' F1.
*Uncertain* counts as positive, or as negative (U-Ones and U-Zeros of Irvin et al. 2019); a label
that is not mentioned is negative. Macro is over the labels that some reference has as positive: one
that none has would have an F1 of 0 whatever is written.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from radquant.scoring.chexpert import FIVE, LABELS, labels
from radquant.scoring.findings import ABSENT, PRESENT, UNCERTAIN
from radquant.scoring.metrics.kind import About, Column, Pair, Pooled

# A column holds 10 × the reference's + the output's: 0 stands for a label that is not mentioned.
CODES = {PRESENT: 1, UNCERTAIN: 2, ABSENT: 3}
POSITIVE = {"uncertain positive": (1, 2), "uncertain negative": (1,)}


def column_of(label: str) -> str:
    return f"chexpert_{label.lower().replace(' ', '_')}"


def measure(pair: Pair) -> tuple[int, ...]:
    reference, output = labels(pair.reference_note), labels(pair.output_note)
    return tuple(_code(reference, label) * 10 + _code(output, label) for label in LABELS)


def _code(found: dict[str, str], label: str) -> int:
    return CODES[found[label]] if label in found else 0


def count(positive: tuple[int, ...], codes: np.ndarray) -> np.ndarray:
    """Return hits, false and missed ones by label, [reports, 3 × labels], of columns' codes."""
    reference, output = np.isin(codes // 10, positive), np.isin(codes % 10, positive)
    kinds = (reference & output, ~reference & output, reference & ~output)
    return np.concatenate(kinds, axis=1).astype(np.float64)


def micro(sums: np.ndarray) -> np.ndarray:
    """Return F1 of all labels' decisions together; nan where nothing is positive."""
    return _f1(*(part.sum(-1) for part in np.split(sums, 3, axis=-1)))


def macro(sums: np.ndarray) -> np.ndarray:
    """Return the mean F1 of the labels that occur in the references; nan where none does."""
    hits, false, missed = np.split(sums, 3, axis=-1)
    occurs = hits + missed > 0
    total = np.where(occurs, _f1(hits, false, missed), 0).sum(-1)
    return _ratio(total, occurs.sum(-1))


def occurring(sums: np.ndarray) -> np.ndarray:
    """Return how many labels occur in the references."""
    hits, _, missed = np.split(sums, 3, axis=-1)
    return np.asarray((hits + missed > 0).sum(-1))


def _f1(hits: np.ndarray, false: np.ndarray, missed: np.ndarray) -> np.ndarray:
    return _ratio(2 * hits, 2 * hits + false + missed)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)


def pooled(
    prefix: str,
    title: str,
    columns: Callable[[str], str],
    all_labels: Sequence[str] = LABELS,
    five: Sequence[str] = FIVE,
) -> tuple[Pooled, ...]:
    """Return the F1 of whoever gives labels: `columns(label)` holds its codes."""
    # There is one function for each convention, so that equal counts are made once.
    counts = {name: partial(count, positive) for name, positive in POSITIVE.items()}
    return tuple(
        Pooled(
            f"{prefix}{len(chosen)}_{name}_{convention.replace(' ', '_')}",
            f"{title}-{len(chosen)} {name} F1, {convention}",
            tuple(map(columns, chosen)),
            counts[convention],
            value,
            over=occurring if name == "macro" else None,
        )
        for chosen in (all_labels, five)
        for name, value in (("micro", micro), ("macro", macro))
        for convention in POSITIVE
    )


ABOUT = About(
    columns=tuple(
        Column(column_of(label), label, kind=int, better="neither", mean=False) for label in LABELS
    ),
    citation="Irvin et al. (2019)",
    group="label",
    name="the CheXpert labels",
    annotations=True,
    pooled=pooled("chexpert", "CheXpert", column_of),
    remark=(
        "CheXpert labels are from {annotator}, not from the CheXpert labeler: its published F1 is "
        "not comparable. F1 is pooled over reports; macro is over the labels that occur in the "
        "references."
    ),
)
