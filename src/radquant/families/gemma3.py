"""Gemma 3's text models: Gemma 2's norms, and queries and keys are normalized."""

from radquant.families.architectures import separate_projections
from radquant.families.kind import Family, Lean

FAMILY = Family(
    # Scaling what makes queries, keys and values could be folded. But it costs Gemma 3 270M 3.5 %
    # in perplexity (two calibration sets; AWQ in groups of 64).
    architecture=separate_projections(
        "pre_feedforward_layernorm", offset=1.0, scale_queries=False, post_norms=True
    ),
    overflows_float16=True,
    lean=Lean(rotary_by_layer_type=True),
    tools=("gptqmodel", "llmcompressor"),
)
