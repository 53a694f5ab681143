"""The timed section: every precision writes the same number of tokens behind the same prompts."""

from typing import Self

from pydantic import Field, model_validator

from radquant.settings.section import Section, wrong

LEAST_REPEATS = 3


class Speed(Section):
    """How speed is measured."""

    repeats: int = Field(
        5,
        ge=0,
        le=1000,
        description="Rounds in which every precision is timed once, in an order that is rotated: "
        "at least 3, or 0 to measure no speed",
    )
    prompts: int = Field(
        8,
        ge=1,
        le=10_000,
        description="Evaluation reports, the first by draw, whose prompts are read (all, if there "
        "are fewer). They are read together, or in batches of generation.batch_size "
        "if that is less",
    )
    tokens: int = Field(
        32,
        ge=2,
        le=100_000,
        description="Tokens written for each, exactly; an end token does not end them",
    )
    seconds: float = Field(
        0.5,
        gt=0,
        le=86_400,
        description="Least wall seconds of a timing. The prompts are written several times until "
        "the fastest precision takes as long, and as often by all",
    )

    @model_validator(mode="after")
    def check_repeats(self) -> Self:
        if 0 < self.repeats < LEAST_REPEATS:
            raise wrong(
                f"is {self.repeats}, which shows no range; use at least {LEAST_REPEATS}, or 0 to "
                "measure no speed",
                "repeats",
            )
        return self
