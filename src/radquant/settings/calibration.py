"""The texts that quantization is fitted to."""

from typing import Self

from pydantic import Field, model_validator

from radquant.settings.section import FilePath, Section, wrong
from radquant.settings.sources import HubTexts, Table


class Calibration(Section):
    """The texts that quantization is fitted to; training reports, unless others are given."""

    prompt: FilePath = Field(
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
        "samples × max_tokens tokens are used. Without it each text is a sequence of "
        "its own",
    )

    images: bool | None = Field(
        None,
        description="Whether the samples show the images of their reports, as the model is used. "
        "If null, they do where the task has images and the samples are reports. An "
        "image is never cut, and its tokens do not count for max_tokens",
    )
    image_weight: float = Field(
        1.0,
        ge=0,
        le=1000,
        description="What an image's token counts for in quantization's statistics, where one of "
        "text counts 1. With 0 images are seen, and nothing is fitted to them",
    )

    @model_validator(mode="after")
    def check_images(self) -> Self:
        if self.images and (self.table or self.hub):
            raise wrong(
                "shows the images of reports, and its texts are from a table or from hub; set "
                "images to false, or remove table and hub"
            )
        if self.images and self.pack:
            raise wrong("joins texts by pack, which would part images; set images or pack to false")
        return self

    @model_validator(mode="after")
    def check_source(self) -> Self:
        if self.table and self.hub:
            raise wrong("takes its texts from table or from hub, not from both; remove one")
        return self
