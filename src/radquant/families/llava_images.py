"""LLaVA (1.5): a tower whose tokens a projector makes words, and a text model of another type."""

from radquant.families.kind import Family, Images

FAMILY = Family(images=Images(known_from="LLaVA 1.5", joined=False))
