"""Who finds the entities and relations, and how differences are judged."""

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from radquant import registry
from radquant.settings.measures import (
    BertScore,
    CheXbert,
    Crimson,
    CxrfeScore,
    Green,
    Meteor,
    RadCliQ,
    RaTEScore,
)
from radquant.settings.section import FilePath, Line, Name, OneOf, Option, Section, wrong
from radquant.settings.subgroups import Subgroups

# What the margin of non-inferiority is counted in.
SCORE, OF_ORIGINAL = "score", "original"
RADGRAPH_MODELS = ("radgraph", "radgraph-xl", "modern-radgraph-xl")
LANGUAGES = ("en", "any")


class RadGraph(Section):
    """The trained annotator, used with annotator radgraph."""

    model: Annotated[str, OneOf(RADGRAPH_MODELS), Option("radgraph-model")] = Field(
        "radgraph-xl", description="Which of the package's models"
    )
    directory: Annotated[FilePath | None, Option("radgraph-directory")] = Field(
        None,
        description="Folder that scripts/fetch_radgraph.py made, or one like it; the hub if null",
    )
    revision: Annotated[Line | None, Option("radgraph-revision")] = Field(
        None,
        description="Commit of the archive's repository on the hub, needed without directory",
    )
    encoder_revision: Annotated[Line | None, Option("radgraph-encoder-revision")] = Field(
        None, description="Commit of the text encoder's repository, needed without directory"
    )


class Scoring(Section):
    """Who finds the entities and relations."""

    annotator: Annotated[str, OneOf(registry.ANNOTATORS)] = Field(
        "lexicon",
        description="lexicon (rules, offline) or radgraph (the trained model, its own environment)",
    )
    language: Annotated[str, OneOf(LANGUAGES)] = Field(
        "en",
        description="en refuses references and inputs that are not English, because the "
        "annotators read nothing else. any goes on, and the report calls such a run "
        "unfit",
    )
    radgraph: RadGraph = Field(
        RadGraph(), description="The trained annotator, used with annotator radgraph"
    )
    meteor: Meteor = Field(Meteor(), description="METEOR, where its data are local")
    bertscore: BertScore = Field(BertScore(), description="BERTScore, by a local model")
    chexbert: CheXbert = Field(CheXbert(), description="F1CheXbert, by its own model")
    ratescore: RaTEScore = Field(RaTEScore(), description="RaTEScore, by its own models")
    radcliq: RadCliQ = Field(RadCliQ(), description="RadCliQ-v1, with the first RadGraph model")
    green: Green = Field(Green(), description="GREEN, by its own language model")
    crimson: Crimson = Field(Crimson(), description="CRIMSON, by its own language model")
    cxrfescore: CxrfeScore = Field(CxrfeScore(), description="CXRFEScore, by its own models")

    @model_validator(mode="after")
    def check_radcliq(self) -> Self:
        first = self.annotator == "radgraph" and self.radgraph.model == "radgraph"
        if self.radcliq.directory and not first:
            raise wrong(
                "holds the score of the first RadGraph model; set scoring.annotator: radgraph and "
                "scoring.radgraph.model: radgraph, or set its directory to null",
                "radcliq",
            )
        return self

    def own(self) -> dict[str, Any]:
        """The settings of the chosen annotator alone; none for one that has no section."""
        section = getattr(self, self.annotator, None)
        return section.model_dump() if isinstance(section, Section) else {}


class Statistics(Section):
    """Intervals and tests of the paired differences."""

    resamples: int = Field(
        10_000, ge=100, le=1_000_000, description="Bootstrap resamples and sign-flip permutations"
    )
    confidence: float = Field(0.95, ge=0.9, le=0.9999, description="Coverage of the intervals")
    margin: float = Field(
        0.01,
        ge=1e-6,
        lt=1,
        description="Largest loss that still counts as none, in units of margin_of",
    )
    margin_of: Annotated[str, OneOf((SCORE, OF_ORIGINAL))] = Field(
        SCORE,
        description="score (F1 points, of 1) or original (a share of the original's own score)",
    )
    margin_reason: Line | None = Field(
        None, description="Why a loss below the margin is acceptable; the report prints it"
    )
    subgroups: dict[Name, Subgroups] = Field(
        {}, description="Divisions of the reports that are also judged apart, by name"
    )
