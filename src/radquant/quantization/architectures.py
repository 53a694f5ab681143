"""Which linear layers share an input, and what their scales fold into, for each architecture."""

from dataclasses import dataclass

from torch import nn

from radquant.errors import UserError


@dataclass(frozen=True)
class Group:
    """Linear layers of one decoder layer that read the same tensor.

    Dividing that tensor by s per channel and multiplying the linears' columns by s changes nothing;
    the division is folded into `source`: a norm's weight, or a linear layer's output channels.
    """

    linears: tuple[str, ...]
    source: str
    source_is_norm: bool
    clip: tuple[str, ...]  # linears whose range may be clipped


@dataclass(frozen=True)
class Architecture:
    decoder_layers: str  # path of the list of decoder layers in the causal language model
    groups: tuple[Group, ...]


ATTENTION, MLP = "self_attn", "mlp"

# q and k are not clipped: their errors multiply in the attention's logits (as in AutoAWQ).
LLAMA = Architecture(
    decoder_layers="model.layers",
    groups=(
        Group(
            linears=(f"{ATTENTION}.q_proj", f"{ATTENTION}.k_proj", f"{ATTENTION}.v_proj"),
            source="input_layernorm",
            source_is_norm=True,
            clip=(f"{ATTENTION}.v_proj",),
        ),
        Group(
            linears=(f"{ATTENTION}.o_proj",),
            source=f"{ATTENTION}.v_proj",
            source_is_norm=False,
            clip=(f"{ATTENTION}.o_proj",),
        ),
        Group(
            linears=(f"{MLP}.gate_proj", f"{MLP}.up_proj"),
            source="post_attention_layernorm",
            source_is_norm=True,
            clip=(f"{MLP}.gate_proj", f"{MLP}.up_proj"),
        ),
        Group(
            linears=(f"{MLP}.down_proj",),
            source=f"{MLP}.up_proj",
            source_is_norm=False,
            clip=(f"{MLP}.down_proj",),
        ),
    ),
)

ARCHITECTURES = {"llama": LLAMA, "mistral": LLAMA}


def architecture_of(model_type: str) -> Architecture:
    """The table for a config's `model_type`."""
    if model_type not in ARCHITECTURES:
        raise UserError(
            f"models of type {model_type!r} cannot be quantized yet; "
            f"the types that can are {', '.join(sorted(ARCHITECTURES))}"
        )
    return ARCHITECTURES[model_type]


def decoder_layers(model: nn.Module, architecture: Architecture) -> nn.ModuleList:
    layers = model.get_submodule(architecture.decoder_layers)
    assert isinstance(layers, nn.ModuleList)
    return layers


def layer_linears(layer: nn.Module, architecture: Architecture) -> dict[str, nn.Linear]:
    """The linear layers of one decoder layer; raises UserError unless the table names them all."""
    found = {
        name: module for name, module in layer.named_modules() if isinstance(module, nn.Linear)
    }
    named = {name for group in architecture.groups for name in group.linears}
    if found.keys() != named:
        odd = ", ".join(sorted(found.keys() ^ named))
        raise UserError(
            f"the decoder layer's linear layers differ from the architecture's table in {odd}; "
            "this variant of the model cannot be quantized yet"
        )
    return found
