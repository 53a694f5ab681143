"""The reports: where they come from."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from radquant import registry
from radquant.settings.section import FilePath, Line, OneOf, Option, Section, Text, wrong
from radquant.settings.sources import Wheel

PATH = "absolute or relative to the directory in which the workflow runs"


class Columns(Section):
    """Names of the source's columns, for format table; a column has our name unless given."""

    id: Annotated[Text | None, Option("id-column")] = Field(
        None, description="Column of the report's identifier"
    )
    group: Annotated[Text | None, Option("group-column")] = Field(
        None, description="Column of the patient's identifier"
    )
    study: Annotated[Text | None, Option("study-column")] = Field(
        None, description="Column of the study's identifier"
    )
    text: Annotated[Text | None, Option("text-column")] = Field(
        None, description="Column of the whole report"
    )
    findings: Annotated[Text | None, Option("findings-column")] = Field(
        None, description="Column of the findings"
    )
    impression: Annotated[Text | None, Option("impression-column")] = Field(
        None, description="Column of the impression"
    )
    indication: Annotated[Text | None, Option("indication-column")] = Field(
        None, description="Column of the indication"
    )
    comparison: Annotated[Text | None, Option("comparison-column")] = Field(
        None, description="Column of the comparison"
    )


class Corpus(Section):
    """The reports, from exactly one of wheel, path, and train with eval."""

    name: Line = Field(description="The corpus's name in the report")
    format: Annotated[str, OneOf(registry.CORPUS_FORMATS)] = Field(
        description="How the reports are stored (docs/inputs.md)"
    )
    wheel: Wheel | None = Field(None, description="A corpus file inside a wheel")
    path: FilePath | None = Field(None, description=f"The table, archive or folder, {PATH}")
    train: FilePath | None = Field(
        None, description="Table of training reports, where the split is given"
    )
    eval: FilePath | None = Field(
        None, description="Table of evaluation reports, where the split is given"
    )
    split_file: FilePath | None = Field(
        None, description="Table that assigns studies to splits (mimic-cxr-2.0.0-split.csv)"
    )
    image_root: FilePath | None = Field(
        None, description="Folder of the image files that task.image_column names; given with it"
    )
    columns: Columns = Field(
        Columns(), description="Names of the source's columns, for format table"
    )

    @model_validator(mode="after")
    def check_tables(self) -> Self:
        if bool(self.train) != bool(self.eval):
            raise wrong("and corpus.eval are given together or not at all", "train")
        return self
