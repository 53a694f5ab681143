"""OLMo 2 and 3: norms follow attention and MLP, and none comes before them.

So nothing can be folded for what reads the residual stream. Queries and keys are normalized over
all heads together, and values are not.
"""

from radquant.families.architectures import (
    DOWN,
    GATE,
    UP,
    Architecture,
    Group,
    K,
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
            Group((O,), Rows(V)),
            Group((GATE, UP), None),
            Group((DOWN,), Rows(UP)),
        ),
    )
)
