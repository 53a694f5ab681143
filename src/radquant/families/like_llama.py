"""Ministral 3, SmolLM3 and the text models inside Qwen 2.5 VL and Qwen 3 VL: layers like Llama's,
and no more was tried."""

from radquant.families.kind import Family
from radquant.families.llama import ARCHITECTURE

FAMILY = Family(architecture=ARCHITECTURE)
