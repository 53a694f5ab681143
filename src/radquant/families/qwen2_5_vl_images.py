"""Qwen 2.5 VL (Lingshu, RadVLM): an image has as many tokens as its size asks for, in a grid."""

from radquant.families.kind import Family, Images

MODULE = "transformers.models.qwen2_5_vl.processing_qwen2_5_vl"

FAMILY = Family(
    images=Images(
        known_from="Lingshu",
        token_types="mm_token_type_ids",
        positions=True,
        processor=(MODULE, "Qwen2_5_VLProcessor"),
        inputs=("image_grid_thw",),
        joined=False,
        vllm=True,
    )
)
