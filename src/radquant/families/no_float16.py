"""Gemma 3n, GLM-4 and PLaMo 2: no more is known than that float16 overflows.

The last two are in vLLM's list (`_FLOAT16_NOT_SUPPORTED_MODELS` in vllm/config/model.py).
"""

from radquant.families.kind import Family

FAMILY = Family(overflows_float16=True)
