"""Qwen 3.5: most layers have a gated delta net (linear attention) where others have attention.

Norms of the residual stream multiply by 1 + weight, those inside a delta net by their weight. What
makes a delta net's decay and step size stays as it is: two small layers, whose errors add up over
all tokens. Attention's output is gated channel by channel.
"""

from radquant.families.architectures import (
    DOWN,
    GATE,
    UP,
    Architecture,
    Group,
    K,
    Norm,
    O,
    Q,
    Rows,
    V,
)
from radquant.families.kind import Family

QKV, Z, OUT = (f"linear_attn.{name}" for name in ("in_proj_qkv", "in_proj_z", "out_proj"))
DECAY_AND_STEP = ("linear_attn.in_proj_a", "linear_attn.in_proj_b")

ARCHITECTURE = Architecture(
    "model.layers",
    (
        Group((QKV, Z), Norm("input_layernorm", 1.0), beside=DECAY_AND_STEP),
        Group((OUT,), Norm("linear_attn.norm")),
        Group((Q, K, V), Norm("input_layernorm", 1.0)),
        Group((O,), Rows(V, gated=True)),
        Group((GATE, UP), Norm("post_attention_layernorm", 1.0)),
        Group((DOWN,), Rows(UP)),
    ),
    final_norm=Norm("norm", 1.0),
    optional=(QKV, Z, OUT, *DECAY_AND_STEP, Q, K, V, O),
    kept=(*DECAY_AND_STEP, "linear_attn.conv1d"),
)

FAMILY = Family(architecture=ARCHITECTURE)
