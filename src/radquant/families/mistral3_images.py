"""Mistral 3 and Ministral 3 with images: rows of tokens with a mark at the end of each."""

from radquant.families.kind import Family, Images, Lean

MODULE = "transformers.models.pixtral.processing_pixtral"

FAMILY = Family(
    lean=Lean(),  # of Mistral Small 3.1's text model, not of Ministral 3's
    images=Images(
        known_from="Mistral Small 3.1",
        processor=(MODULE, "PixtralProcessor"),
        inputs=("image_sizes",),
        joined=False,
    ),
)
