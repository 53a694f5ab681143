"""Gemma 1: layers like Llama's, whose norms multiply by 1 + weight."""

from radquant.families.architectures import separate_projections
from radquant.families.kind import Family

FAMILY = Family(
    architecture=separate_projections("post_attention_layernorm", offset=1.0),
    tools=("autoawq", "gptqmodel", "llmcompressor"),
)
