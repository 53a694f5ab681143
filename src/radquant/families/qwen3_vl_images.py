"""Qwen 3 VL: as Qwen 2.5 VL, and images are added again behind the first decoder layers."""

from radquant.families.kind import Family, Images

MODULE = "transformers.models.qwen3_vl.processing_qwen3_vl"

FAMILY = Family(
    images=Images(
        known_from="Qwen 3 VL",
        token_types="mm_token_type_ids",
        positions=True,
        processor=(MODULE, "Qwen3VLProcessor"),
        inputs=("image_grid_thw",),
        joined=False,
    )
)
