"""RadGraph F1 of an output against the reference, at its three levels: the measure of the report.

They are the reward definitions of the `radgraph` package (`radquant.scoring.rewards`) on the
entities and relations of any annotator.
"""

from radquant.scoring import rewards
from radquant.scoring.metrics.kind import About, Column, Pair

ABOUT = About(
    columns=(
        Column("simple", "entities", "entities (simple)"),
        Column("partial", "relations", "relations (partial)"),
        Column("complete", "combined", "combined (complete)"),
    ),
    citation="Delbrouck et al. (2022): RG_E, RG_ER and RG_ĒR",
    group="entity",
    name="the three levels",
    annotations=True,
    note=(
        "Entities, relations and combined are the three levels of {measure} against "
        "the reference, by {annotator}: mean over reports, 0 to 1."
    ),
)


def measure(pair: Pair) -> tuple[float, ...]:
    return rewards.f1(pair.output_note, pair.reference_note)
