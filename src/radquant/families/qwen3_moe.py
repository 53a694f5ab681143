"""Qwen 3's mixtures of experts: a router sends each token to some of many small MLPs.

What router and experts read is not scaled: one scale would have to do for all of them. What makes
an expert's product is, and so is attention. The router stays as it is.
"""

from radquant.families.architectures import Architecture, Group, K, Norm, O, Q, Rows, V
from radquant.families.kind import Family

EXPERTS = "mlp.experts"
GATE, UP, DOWN = (f"{EXPERTS}.{{}}.{name}_proj" for name in ("gate", "up", "down"))

FAMILY = Family(
    architecture=Architecture(
        "model.layers",
        (
            Group((Q, K, V), Norm("input_layernorm")),
            Group((O,), Rows(V)),
            Group((GATE, UP), None),
            Group((DOWN,), Rows(UP)),
        ),
        final_norm=Norm("norm"),
        experts=EXPERTS,
        unless=("mlp_only_layers",),
        kept=("mlp.gate",),
    )
)
