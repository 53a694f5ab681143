"""How the model writes."""

from typing import Annotated

from pydantic import Field

from radquant.settings.section import FilePath, OneOf, Section, Text

# How few-shot examples are chosen.
DRAWN, NEAREST = "drawn", "nearest"


class Generation(Section):
    """How the model writes."""

    prompt: FilePath = Field(
        "prompts/impression.txt", description="Prompt file with {column} fields"
    )
    reports: int | None = Field(
        None,
        ge=1,
        le=10_000_000,
        description="How many of the evaluation reports are written, the first by draw; all if "
        "null. Clinical scores are over these. The likelihood of the references is "
        "over all",
    )
    examples: int = Field(
        2,
        ge=0,
        le=1000,
        description="Solved examples from the training split before the report; 0 for none",
    )
    examples_by: Annotated[str, OneOf((DRAWN, NEAREST))] = Field(
        DRAWN,
        description="Which training reports are examples. drawn takes them by the seed, the same "
        "for all reports. nearest takes for each report those nearest by the words of "
        "its input, the nearest last",
    )
    examples_max_words: int = Field(
        40, ge=1, le=10_000, description="Most words of an example, so that the prompt stays short"
    )
    batch_size: int = Field(20, ge=1, le=10_000, description="Reports that are written together")
    shards: int = Field(
        1,
        ge=1,
        le=5000,
        description="Jobs into which each precision's generation is cut; changes no output",
    )
    max_new_tokens: int = Field(48, ge=1, le=100_000, description="Most tokens of an output")
    stop: tuple[Text, ...] = Field(
        (), description="Strings that end an output, beside the model's own end token"
    )
