"""Gemma 2: norms multiply by 1 + weight, and post_attention_layernorm follows the attention."""

from radquant.families.architectures import separate_projections
from radquant.families.kind import Family

FAMILY = Family(
    architecture=separate_projections("pre_feedforward_layernorm", offset=1.0, post_norms=True),
    overflows_float16=True,
    tools=("autoawq", "gptqmodel", "llmcompressor"),
)
