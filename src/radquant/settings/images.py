"""How images are encoded: once for each vision part, whatever is then done with their features."""

from pydantic import Field

from radquant.settings.section import Section


class Images(Section):
    """How images are encoded."""

    shards: int = Field(
        1,
        ge=1,
        le=5000,
        description="Jobs into which the encoding of images is cut; changes no feature",
    )
