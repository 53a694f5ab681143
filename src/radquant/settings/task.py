"""What the model is given and what it has to write."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from radquant.settings.section import Once, OneOf, Section, Text, wrong

FIELDS = ("findings", "impression", "indication", "comparison", "text")
Part = Annotated[str, OneOf(FIELDS)]


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
        'is shown; file names under corpus.image_root, separated by ";" in a table, one a row in '
        "the split_file of the two MIMIC formats. Null for a model that is given text alone",
    )

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
