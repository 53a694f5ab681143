"""Reports that are also judged apart."""

from itertools import pairwise
from typing import Annotated, Self

from pydantic import Field, model_validator

from radquant.settings.section import FilePath, Line, OneOf, Section, wrong

KEYS = ("id", "study", "group")
LENGTHS = ("reference", "input")


class Subgroups(Section):
    """One division of the reports, from exactly one of column, finding and length."""

    column: Line | None = Field(
        None, description="Column of a table; the reports with one value of it are a group"
    )
    table: FilePath | None = Field(
        None, description="The table with that column; the corpus's own table if not given"
    )
    key: Annotated[str, OneOf(KEYS)] = Field(
        "id", description="What the table's rows are joined by: id, study or group (the patient)"
    )
    key_column: Line | None = Field(
        None, description="Column of the table that holds the key; found by its usual names if null"
    )
    cuts: tuple[Annotated[float, Field(ge=-1e9, le=1e9)], ...] = Field(
        (), description="Numbers at which a column of numbers is parted, in rising order"
    )
    finding: Line | None = Field(
        None,
        description="A finding that the reference has or has not; any for normal and abnormal",
    )
    length: Annotated[str, OneOf(LENGTHS)] | None = Field(
        None, description="Halves by the number of words: of the reference or of the input"
    )

    @model_validator(mode="after")
    def check_one(self) -> Self:
        given = [name for name in ("column", "finding", "length") if getattr(self, name)]
        if len(given) != 1:
            raise wrong(
                f"has {' and '.join(given) or 'none'} of column, finding and length; give one"
            )
        if not self.column:
            for name in ("table", "key_column", "cuts"):
                if getattr(self, name):
                    raise wrong(f"belongs to a column, and {given[0]} is given; remove it", name)
        if self.key_column and not self.table:
            raise wrong("is for another table than the corpus's own; give table, too", "key_column")
        if self.key != "id" and not self.table:
            raise wrong("is for another table than the corpus's own; give table, too", "key")
        if any(a >= b for a, b in pairwise(self.cuts)):
            raise wrong("must rise from one number to the next", "cuts")
        return self
