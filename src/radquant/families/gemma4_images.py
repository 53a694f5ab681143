"""Gemma 4 with images: an image has as many tokens as its shape asks for; in larger models they see
each other in both directions."""

from radquant.families.kind import Family, Images

MODULE = "transformers.models.gemma4.processing_gemma4"

FAMILY = Family(
    images=Images(
        known_from="Gemma 4",
        token_types="mm_token_type_ids",
        processor=(MODULE, "Gemma4Processor"),
        inputs=("image_position_ids",),
        joined=False,
    )
)
