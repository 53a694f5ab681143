"""LLaVA (1.5): a tower whose tokens a projector makes words, and a text model of another type."""

from radquant.families.kind import Family, Images, Lean

FAMILY = Family(lean=Lean(), images=Images(known_from="LLaVA 1.5", joined=False, vllm=True))
