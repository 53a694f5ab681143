"""What the authors alone can say of a study, and the files of those who judged its outputs."""

from typing import Annotated, Any

from pydantic import Field, field_validator

from radquant.settings.section import FilePath, Once, OneOf, Section, Text

YES, NO, UNKNOWN = "yes", "no", "unknown"


class Study(Section):
    """What the authors alone can say; results/reporting.md prints it."""

    readings: Annotated[tuple[FilePath, ...], Once] = Field(
        (),
        description="Reading files that report.html exported, one a reader; the report then has "
        "their agreement and comparisons",
    )
    reader_background: Text | None = Field(
        None, description="Who the readers were: profession, years of practice, instructions"
    )
    cohort: Text | None = Field(
        None, description="Who the patients are: setting, country, age, sex, how they were chosen"
    )
    data_dates: Text | None = Field(
        None, description="When the oldest and the newest report of the corpus were written"
    )
    model_dates: Text | None = Field(
        None, description="When the model was released and its newest training text was written"
    )
    leak: Annotated[str, OneOf((YES, NO, UNKNOWN))] = Field(
        UNKNOWN, description="Whether the corpus is in the model's training data"
    )
    leak_note: Text | None = Field(None, description="How that is known, and of which part")
    intended_use: Text | None = Field(
        None, description="What the model is for: input, user, and who oversees it"
    )
    ethics: Text | None = Field(
        None, description="Committee that approved the study, number, and consent or its waiver"
    )
    funding: Text | None = Field(None, description="Who paid, and what part they had in the study")

    @field_validator("leak", mode="before")
    @classmethod
    def from_yaml(cls, value: Any) -> Any:
        """YAML takes yes and no without quotes for truth values."""
        return {True: YES, False: NO}[value] if isinstance(value, bool) else value
