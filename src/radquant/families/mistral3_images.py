"""Mistral 3 and Ministral 3 with images: rows of tokens with a mark at the end of each."""

from radquant.families.kind import Family, Images

MODULE = "transformers.models.pixtral.processing_pixtral"

FAMILY = Family(
    images=Images(
        known_from="Mistral Small 3.1",
        processor=(MODULE, "PixtralProcessor"),
        inputs=("image_sizes",),
        joined=False,
    )
)
