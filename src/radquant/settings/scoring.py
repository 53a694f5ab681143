"""Who finds the entities and relations, and how differences are judged."""

from typing import Annotated, Any

from pydantic import Field

from radquant import registry
from radquant.settings.section import FilePath, Line, OneOf, Option, Section

RADGRAPH_MODELS = ("radgraph", "radgraph-xl", "modern-radgraph-xl")


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


class Meteor(Section):
    """METEOR, beside the other rulers."""

    directory: Annotated[FilePath | None, Option("meteor-directory")] = Field(
        None, description="Folder of WordNet's database files (data.noun …); no METEOR if null"
    )


class BertScore(Section):
    """BERTScore, beside the other rulers."""

    directory: Annotated[FilePath | None, Option("bertscore-directory")] = Field(
        None, description="Folder of a text encoder with its tokenizer; no BERTScore if null"
    )
    layer: Annotated[int | None, Option("bertscore-layer")] = Field(
        None, ge=1, le=1000, description="Whose hidden states are compared; the last layer if null"
    )


class Scoring(Section):
    """Who finds the entities and relations."""

    annotator: Annotated[str, OneOf(registry.ANNOTATORS)] = Field(
        "lexicon",
        description="lexicon (rules, offline) or radgraph (the trained model, its own environment)",
    )
    radgraph: RadGraph = Field(
        RadGraph(), description="The trained annotator, used with annotator radgraph"
    )
    meteor: Meteor = Field(Meteor(), description="METEOR, where its data are local")
    bertscore: BertScore = Field(BertScore(), description="BERTScore, by a local model")

    def own(self) -> dict[str, Any]:
        """The settings of the chosen annotator alone; none for one that has no section."""
        section = getattr(self, self.annotator, None)
        return section.model_dump() if isinstance(section, Section) else {}


class Statistics(Section):
    """Intervals and tests of the paired differences."""

    resamples: int = Field(
        10_000, ge=100, le=1_000_000, description="Bootstrap resamples and sign-flip permutations"
    )
    confidence: float = Field(0.95, ge=0.5, le=0.9999, description="Coverage of the intervals")
    margin: float = Field(
        0.01, gt=0, lt=1, description="Largest difference in F1 that still counts as equivalent"
    )
