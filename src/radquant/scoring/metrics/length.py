"""How long an output is: whether it is empty, and its words."""

from radquant.scoring.metrics.kind import About, Column, Pair

ABOUT = About(
    columns=(
        Column("empty", "empty", kind=bool, better="less", mean=False),
        Column(
            "output_words",
            "words",
            kind=int,
            better="neither",
            table=False,
            difference=False,
            runs=False,
        ),
    ),
    citation="none: a count",
    group="",
)


def measure(pair: Pair) -> tuple[bool, int]:
    return not pair.output.strip(), len(pair.output.split())
