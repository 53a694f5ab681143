"""Gemma 3 with images (Gemma3ForConditionalGeneration, MedGemma's class): a text model inside."""

from radquant.families.kind import Family, Images, Lean

FAMILY = Family(
    overflows_float16=True,
    lean=Lean(both_ways=True),
    tools=("gptqmodel",),
    images=Images(
        known_from="MedGemma",
        token_types="token_type_ids",  # an image's tokens see each other in both directions
        # Crops of an image would have tokens of their own; no released model asks for them.
        processing={"do_pan_and_scan": False},
        vllm=True,
    ),
)
