"""Which reports are kept, how they are split, and how many are evaluated."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from radquant.settings.section import Option, Section, wrong


class Cleaning(Section):
    """Which reports are kept and how they are split."""

    min_words: int = Field(1, ge=1, le=1_000_000, description="Fewest words in the target")
    max_words: int = Field(150, ge=1, le=1_000_000, description="Most words in the target")
    min_input_words: int = Field(
        1,
        ge=1,
        le=1_000_000,
        description="Fewest words in each input; numbers, single letters and placeholders are none",
    )
    eval_fraction: float = Field(
        0.3,
        gt=0,
        lt=1,
        description="Share of patients (or reports) held out, where the corpus brings no split",
    )

    @model_validator(mode="after")
    def check_words(self) -> Self:
        if self.min_words > self.max_words:
            raise wrong(
                f"is {self.min_words} and must not exceed cleaning.max_words, which is "
                f"{self.max_words}",
                "min_words",
            )
        return self


class Evaluation(Section):
    """The reports on which every precision is compared."""

    reports: Annotated[int, Option("eval-reports")] = Field(
        40,
        ge=1,
        le=10_000_000,
        description="How many evaluation reports are drawn; see also generation.reports",
    )
