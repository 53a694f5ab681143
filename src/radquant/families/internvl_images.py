"""InternVL 3: an image is cut into tiles, and each has equally many tokens."""

from radquant.families.kind import Family, Images, Lean

MODULE = "transformers.models.internvl.processing_internvl"

FAMILY = Family(
    lean=Lean(),
    images=Images(known_from="InternVL 3", processor=(MODULE, "InternVLProcessor")),
)
