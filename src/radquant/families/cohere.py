"""Command R (Cohere) and Command R7B (Cohere 2): one norm, which attention and MLP both read.

It takes off the mean before it divides (LayerNorm without a bias). Scales can be folded into its
weights; no rotation of the residual stream goes through it. Command R+ normalizes queries and keys,
each head with weights of its own, which are a matrix and no linear layer's.
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

FAMILY = Family(
    architecture=Architecture(
        "model.layers",
        (
            Group((Q, K, V, GATE, UP), Norm("input_layernorm")),
            Group((O,), Rows(V)),
            Group((DOWN,), Rows(UP)),
        ),
        final_norm=Norm("norm"),
        kept=("self_attn.q_norm", "self_attn.k_norm"),
    )
)
