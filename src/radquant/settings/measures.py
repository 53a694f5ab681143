"""Rulers that need data, a model or packages of their own; each is off until it has a folder."""

from typing import Annotated

from pydantic import Field

from radquant.settings.section import FilePath, Option, Section


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


class CheXbert(Section):
    """F1CheXbert, in the environment judges."""

    directory: Annotated[FilePath | None, Option("chexbert-directory")] = Field(
        None, description="Folder of its weights (scripts/fetch_measure.py); off if null"
    )


class RaTEScore(Section):
    """RaTEScore, in the environment ratescore."""

    directory: Annotated[FilePath | None, Option("ratescore-directory")] = Field(
        None, description="Folder of its weights (scripts/fetch_measure.py); off if null"
    )


class RadCliQ(Section):
    """RadCliQ-v1, in the environment judges; needs the first RadGraph model as annotator."""

    directory: Annotated[FilePath | None, Option("radcliq-directory")] = Field(
        None, description="Folder of its weights (scripts/fetch_measure.py); off if null"
    )


class Green(Section):
    """GREEN, in the environment llm-judges."""

    directory: Annotated[FilePath | None, Option("green-directory")] = Field(
        None, description="Folder of its weights (scripts/fetch_measure.py); off if null"
    )


class Crimson(Section):
    """CRIMSON, in the environment llm-judges."""

    directory: Annotated[FilePath | None, Option("crimson-directory")] = Field(
        None, description="Folder of its weights (scripts/fetch_measure.py); off if null"
    )


class CxrfeScore(Section):
    """CXRFEScore, in the environment judges."""

    directory: Annotated[FilePath | None, Option("cxrfescore-directory")] = Field(
        None, description="Folder of its weights (scripts/fetch_measure.py); off if null"
    )
    trust_remote_code: Annotated[bool, Option("cxrfescore-trust-remote-code")] = Field(
        False, description="Run the Python code that comes with its encoder, which it needs"
    )
