"""Llama and Mistral."""

from radquant.families.architectures import separate_projections
from radquant.families.kind import Family, Lean

ARCHITECTURE = separate_projections("post_attention_layernorm")
CLASSES = ("LlamaForCausalLM", "MistralForCausalLM")

FAMILY = Family(
    architecture=ARCHITECTURE,
    lean=Lean(),
    tools=("autoawq", "gptqmodel", "llmcompressor"),
    layouts={"omniserve": CLASSES, "modelopt": CLASSES},
)
