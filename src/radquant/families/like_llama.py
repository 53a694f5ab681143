"""Ministral 3 and SmolLM3: layers like Llama's, and no more was tried."""

from radquant.families.kind import Family
from radquant.families.llama import ARCHITECTURE

FAMILY = Family(architecture=ARCHITECTURE)
