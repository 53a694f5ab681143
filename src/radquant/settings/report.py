"""What report.html holds beside the results."""

from pydantic import Field

from radquant.settings.section import Section


class Report(Section):
    """What report.html holds beside the results."""

    images: bool = Field(
        False,
        description="Put small copies of the evaluation's images into report.html, beside the "
        "texts. Whatever is written into a picture, such as a name, comes along",
    )
