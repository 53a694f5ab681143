"""Errors of an output against the reference, by ReXVal's kinds (`radquant.scoring.errors`)."""

from collections import Counter

from radquant.scoring.errors import KINDS, WEIGHT, errors
from radquant.scoring.metrics.kind import About, Column, Pair


def _column(name: str, label: str, kind: type = int) -> Column:
    return Column(
        f"errors_{name}",
        label,
        kind=kind,
        range=(0, 1_000_000),
        better="less",
        table=False,
        difference=False,
        runs=False,
    )


ABOUT = About(
    columns=(
        _column("weighted", "errors, weighted", float),
        _column("significant", "significant errors"),
        *(_column(kind.replace(" ", "_"), kind) for kind in KINDS),
    ),
    citation="Yu et al. (2023): the kinds of ReXVal",
    group="errors",
    name="the errors",
    annotations=True,
    remark=(
        "Errors are counted per report by rules, in the six kinds of ReXVal; no radiologist has "
        "counted them. A significant one weighs 1. One of a device, of an old or unknown finding, "
        "of a mere possibility, or of a comparison without change weighs 0.5. An output that says "
        "nothing misses at least that nothing was found."
    ),
)


def measure(pair: Pair) -> tuple[float, ...]:
    found = errors(pair.reference_note, pair.output_note, pair.reference, pair.output)
    kinds = Counter(error.kind for error in found)
    significant = sum(error.weight == WEIGHT for error in found)
    weighted = sum(error.weight for error in found)
    return weighted, significant, *(kinds[kind] for kind in KINDS)
