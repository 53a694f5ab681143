"""Granite: layers like Llama's. What it multiplies embeddings, attention, residuals and logits by
are numbers of its config.json, through which scales and rotations go."""

from radquant.families.kind import Family
from radquant.families.llama import ARCHITECTURE

FAMILY = Family(architecture=ARCHITECTURE)
