"""What the model is given and what it has to write."""

import datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from radquant.chat_templates import DATE
from radquant.settings.section import Once, OneOf, Section, Text, of_form, wrong

FIELDS = ("findings", "impression", "indication", "comparison", "text")
Part = Annotated[str, OneOf(FIELDS)]


def of_calendar(value: str) -> str:
    try:
        datetime.date.fromisoformat(value)
    except ValueError:
        raise wrong(f"{value} is no day of the calendar; write one as YYYY-MM-DD") from None
    return value


Day = Annotated[
    str,
    of_form(r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$", "a day, YYYY-MM-DD"),
    AfterValidator(of_calendar),
]


class Task(Section):
    """What the model is given and what it has to write."""

    inputs: Annotated[tuple[Part, ...], Once] = Field(
        ("findings",),
        description="Parts that every report must have; may be empty with an image_column",
    )
    target: Part = Field("impression", description="The part to write, which is the reference")
    image_column: Text | None = Field(
        None,
        description="Column with each report's images (PNG, JPEG, DICOM), all of which the model "
        'is shown. It has file names under corpus.image_root: separated by ";" in a '
        "table, one a row in the split_file of the two MIMIC formats. It is "
        "parentImage for format openi, whose XML names its images. Null for a model "
        "that is given text alone",
    )

    date: Day = Field(
        DATE,
        description="The day that the model is told where its chat template writes today's date. "
        "So a prompt is the same on every day",
    )

    @field_validator("date", mode="before")
    @classmethod
    def from_yaml(cls, value: Any) -> Any:
        """YAML takes a day without quotes for a date of its own."""
        return value.isoformat() if type(value) is datetime.date else value

    @model_validator(mode="after")
    def check_inputs(self) -> Self:
        if self.target in self.inputs:
            raise wrong(
                f"holds {self.target}, which is the target that the model has to write; remove it "
                "from one of the two",
                "inputs",
            )
        if not self.inputs and not self.image_column:
            raise wrong("is empty; give it a value, or an image_column", "inputs")
        return self
