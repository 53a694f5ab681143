"""Fidelity: RadGraph F1 of an output against the original model's output of the same report.

Two identical outputs have fidelity 1 even when they hold no entity, where F1 is undefined.
"""

from radquant.scoring import rewards
from radquant.scoring.metrics.kind import About, Column, Pair

ABOUT = About(
    columns=(
        Column("fidelity_simple", "fidelity (simple)", table=False, difference=False, runs=False),
        Column("fidelity_partial", "fidelity (partial)", table=False, difference=False, runs=False),
        Column("fidelity_complete", "fidelity", difference=False),
    ),
    citation="the levels of Delbrouck et al. (2022)",
    group="",
    note=(
        "Fidelity is the combined F1 against the original model's own output, and identical the "
        "share of outputs that equal it."
    ),
)


def measure(pair: Pair) -> tuple[float, ...]:
    if pair.identical:
        return 1.0, 1.0, 1.0
    return rewards.f1(pair.output_note, pair.original_note)
