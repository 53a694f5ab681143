"""The texts that quantization is fitted to."""

from typing import Self

from pydantic import Field, model_validator

from radquant.settings.section import Section, Text, wrong
from radquant.settings.sources import HubTexts, Table


class Calibration(Section):
    """The texts that quantization is fitted to; training reports, unless others are given."""

    prompt: Text = Field(
        "prompts/calibration.txt",
        description="Prompt file for training reports; its own, so that another generation prompt "
        "does not requantize",
    )
    table: Table | None = Field(
        None, description="Texts from a table, as they are; none may be of an evaluation report"
    )
    hub: HubTexts | None = Field(
        None,
        description="Texts from a file in a dataset repository on the Hugging Face hub, as they "
        "are",
    )
    samples: int = Field(
        64, ge=1, le=1_000_000, description="How many sequences; fewer texts than that stop the run"
    )
    max_tokens: int = Field(
        256, ge=1, le=1_000_000, description="Most tokens of a sequence; longer texts are cut"
    )
    pack: bool = Field(
        False,
        description="Join short texts and cut them into sequences of exactly max_tokens, so that "
        "samples × max_tokens tokens are used; without it each text is a sequence of its own",
    )

    @model_validator(mode="after")
    def check_source(self) -> Self:
        if self.table and self.hub:
            raise wrong("takes its texts from table or from hub, not from both; remove one")
        return self
