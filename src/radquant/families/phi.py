"""Phi-3 and Phi-4: q, k and v are rows of one linear layer, gate and up of another."""

from radquant.families.architectures import DOWN, Architecture, Group, Norm, O, Rows
from radquant.families.kind import Family

QKV, GATE_UP = "self_attn.qkv_proj", "mlp.gate_up_proj"

FAMILY = Family(
    architecture=Architecture(
        "model.layers",
        (
            Group((QKV,), Norm("input_layernorm")),
            Group((O,), Rows(QKV, fused=True, queries=O)),
            Group((GATE_UP,), Norm("post_attention_layernorm")),
            Group((DOWN,), Rows(GATE_UP, fused=True)),
        ),
        (O, DOWN),
        Norm("norm"),
    ),
    # GPTQModel takes the fused layers apart, and what it stores then is no Phi-3.
    tools=("autoawq", "llmcompressor"),
)
