"""The words in which a model family's table is written: nothing here needs PyTorch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Norm:
    """A norm that multiplies by `offset` + weight."""

    name: str
    offset: float = 0.0


@dataclass(frozen=True)
class Rows:
    """Output rows of a linear layer: all of them or, where several are fused into one, the last.

    A fused layer's last part is the second half of the rows that follow the queries. `queries`
    names the layer that reads the attention's output: there are as many queries as it has inputs.
    """

    linear: str
    fused: bool = False
    queries: str = ""
    # Whether the channels are multiplied by something else before they are read. A scale of each
    # channel can be moved through that, a rotation cannot.
    gated: bool = False


@dataclass(frozen=True)
class Group:
    """Linear layers of one decoder layer that read the same tensor.

    Dividing that tensor by s per channel and multiplying the linears' columns by s changes nothing.
    The division is folded into `source`, or is not done where there is none.
    """

    linears: tuple[str, ...]
    source: Norm | Rows | None
    # Modules with a weight [out, in] that read the tensor, too, and are not quantized. Their
    # columns are multiplied as well; `Architecture.kept` names them again.
    beside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Architecture:
    decoder_layers: str  # path of the list of decoder layers in the causal language model
    groups: tuple[Group, ...]
    # Linear layers whose output is added to the residual stream as it is. There are none if a norm
    # with weights comes between, as no rotation of the stream can be moved through it.
    writers: tuple[str, ...] = ()
    # Beside the decoder layers, before the head; None where no norm comes before their parts.
    final_norm: Norm | None = None
    # Linear layers that some decoder layers lack. Where layers differ (attention of two kinds), the
    # table has the groups of all, and a layer has those whose linear layers it has.
    optional: tuple[str, ...] = ()
    # The module of a mixture's experts in a decoder layer; "{}" in a group's names is each expert's
    # number.
    experts: str = ""
    # Keys of config.json that must not be set: with them, layers are called in other ways.
    unless: tuple[str, ...] = ()
    # Modules inside a decoder layer whose matrices stay as they are, as embeddings and heads do.
    kept: tuple[str, ...] = ()


Q, K, V, O = (f"self_attn.{name}_proj" for name in "qkvo")  # noqa: E741
GATE, UP, DOWN = (f"mlp.{name}_proj" for name in ("gate", "up", "down"))


def separate_projections(
    mlp_norm: str, offset: float = 0.0, scale_queries: bool = True, post_norms: bool = False
) -> Architecture:
    """One linear layer for each projection; `mlp_norm` is the norm that gate and up read.

    post_norms: whether what attention and MLP make is normalized, too.
    """
    return Architecture(
        "model.layers",
        (
            Group((Q, K, V), Norm("input_layernorm", offset) if scale_queries else None),
            Group((O,), Rows(V)),
            Group((GATE, UP), Norm(mlp_norm, offset)),
            Group((DOWN,), Rows(UP)),
        ),
        () if post_norms else (O, DOWN),
        Norm("norm", offset),
    )
