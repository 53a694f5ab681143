"""Qwen 2, 2.5 and 3: layers like Llama's, with biases or norms of queries and keys."""

from radquant.families.kind import Family, Lean
from radquant.families.llama import ARCHITECTURE

FAMILY = Family(
    architecture=ARCHITECTURE,
    lean=Lean(),
    tools=("autoawq", "gptqmodel", "llmcompressor"),
    layouts={"modelopt": ("Qwen2ForCausalLM", "Qwen3ForCausalLM")},
)
