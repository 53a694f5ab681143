"""Whether an output equals the original model's, letter by letter; fidelity's note tells of it."""

from radquant.scoring.metrics.kind import About, Column, Pair

ABOUT = About(
    columns=(Column("identical", "identical", kind=bool, difference=False, runs=False),),
    citation="none: a comparison of texts",
    group="",
)


def measure(pair: Pair) -> tuple[bool]:
    return (pair.identical,)
