"""Gemma 4's dense text models: norms multiply by their weight, as they follow parts, too.

Layers that see all tokens have wider heads than those with a window. Where the configuration says
so (attention_k_eq_v), their values are made of what makes their keys. Values are normalized, so
that nothing goes through them. What makes queries, keys and values is not scaled, as in Gemma 3.
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
            Group((Q, K, V), None),
            Group((O,), None),
            Group((GATE, UP), Norm("pre_feedforward_layernorm")),
            Group((DOWN,), Rows(UP)),
        ),
        final_norm=Norm("norm"),
        optional=(V,),
        unless=("num_kv_shared_layers", "hidden_size_per_layer_input"),  # E2B and E4B
    )
)
