"""The decoder layers of a loaded or empty model, by its family's table or by inspection.

Models of an unknown family are inspected: their linear layers are found, nothing is folded.
"""

import sys
from dataclasses import replace
from typing import Any

from torch import nn

from radquant.errors import UserError
from radquant.families.architectures import Architecture, Group, Rows
from radquant.families.lookup import family_of, model_types


def architecture_of(config: Any, model: nn.Module) -> Architecture:
    """The table for a transformers `config`, with the path of the decoder layers in its `model`.

    The model may be empty (on the meta device). An unknown architecture gets a table in which every
    linear layer stands alone and no scale is folded; a line on stderr says so. Raises UserError for
    a model whose decoder layers cannot be quantized whole.
    """
    path = find_decoder_layers(config, model)
    layers = model.get_submodule(path)
    assert isinstance(layers, nn.ModuleList)
    text = config.get_text_config()
    kind = text.model_type
    table = family_of(kind).architecture
    for key in table.unless if table else ():
        if getattr(text, key, None):
            raise UserError(
                f"the model's config.json says {key}: {getattr(text, key)}; models of type "
                f"{kind!r} with that cannot be quantized yet"
            )
    check_blocks(layers, path, table)
    if table is not None:
        return replace(table, decoder_layers=path)
    known = model_types(lambda family: family.architecture is not None)
    print(
        f"warning: nothing is known about models of type {kind!r}, so AWQ cannot scale weights by "
        f"their activations and only searches their ranges (known: {', '.join(known)})",
        file=sys.stderr,
    )
    return inspected(layers[0], path)


def find_decoder_layers(config: Any, model: nn.Module) -> str:
    """Path of the list of modules with linear layers in `model` that the text model runs through.

    Towers for images have such lists, too; the number of layers in the text model's config tells.
    """
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model  # type: ignore[operator]
    inside = set(decoder.modules())
    count = getattr(config.get_text_config(), "num_hidden_layers", None)
    found = [
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and module in inside and linears(module)
        if count in (None, len(module))
    ]
    if not found:
        raise UserError(
            f"{type(model).__name__} has no list of decoder layers made of linear layers, of the "
            f"length in its config ({count}); this model cannot be quantized yet"
        )
    return min(found, key=lambda path: path.count("."))


def check_blocks(layers: nn.ModuleList, path: str, table: Architecture | None = None) -> None:
    """Raise UserError unless all layers have the same linear layers and no other matrices.

    But for what the family's table says of either.
    """
    optional, kept = (set(table.optional), table.kept) if table else (set[str](), ())
    expected = linears(layers[0]).keys() - optional
    for number, layer in enumerate(layers):
        named = {f"{name}.weight" for name in (*linears(layer), *kept)}
        for name, parameter in layer.named_parameters():
            # Experts, for one, may be fused into a parameter of three dimensions.
            if parameter.ndim > 1 and name not in named:
                raise UserError(
                    f"{path}.{number}.{name} has shape {list(parameter.shape)} and is no linear "
                    "layer's weight; models with such weights (mixtures of experts among them) "
                    "cannot be quantized yet"
                )
        odd = sorted((linears(layer).keys() - optional) ^ expected)
        if odd:
            raise UserError(
                f"the linear layers of {path}.{number} and {path}.0 differ in {', '.join(odd)}; "
                "models with unequal decoder layers cannot be quantized yet"
            )


def inspected(layer: nn.Module, path: str) -> Architecture:
    """A table for decoder layers like `layer`, of which only the linear layers are known."""
    return Architecture(path, tuple(Group((name,), None) for name in linears(layer)))


def linears(module: nn.Module) -> dict[str, nn.Linear]:
    return {name: each for name, each in module.named_modules() if isinstance(each, nn.Linear)}


def decoder_layers(model: nn.Module, architecture: Architecture) -> nn.ModuleList:
    layers = model.get_submodule(architecture.decoder_layers)
    assert isinstance(layers, nn.ModuleList)
    return layers


def of_layer(layer: nn.Module, architecture: Architecture) -> Architecture:
    """The part of a table that is about one decoder layer: the groups of what it has."""
    lacking = set(architecture.optional) - linears(layer).keys()
    if not lacking:
        return architecture
    groups = []
    for group in architecture.groups:
        left = tuple(name for name in group.linears if name not in lacking)
        source = group.source
        if isinstance(source, Rows) and source.linear in lacking:
            source = None
        if left:
            groups.append(replace(group, linears=left, source=source))
    return replace(architecture, groups=tuple(groups))


def layer_linears(layer: nn.Module, architecture: Architecture) -> dict[str, nn.Linear]:
    """The linear layers to quantize of one decoder layer.

    Raises UserError unless the table names them all.
    """
    found = {name: each for name, each in linears(layer).items() if name not in architecture.kept}
    groups = of_layer(layer, architecture).groups
    named = {name for group in groups for name in group.linears}
    if found.keys() != named:
        odd = ", ".join(sorted(found.keys() ^ named))
        raise UserError(
            f"the decoder layer's linear layers differ from the architecture's table in {odd}; "
            "this variant of the model cannot be quantized yet"
        )
    return found


def row_range(layer: nn.Module, rows: Rows) -> slice:
    """Which output rows of its linear layer `rows` stands for."""
    count = linear_of(layer, rows.linear).out_features
    if not rows.fused:
        return slice(0, count)
    start = linear_of(layer, rows.queries).in_features if rows.queries else 0
    return slice(start + (count - start) // 2, count)


def linear_of(layer: nn.Module, name: str) -> nn.Linear:
    linear = layer.get_submodule(name)
    assert isinstance(linear, nn.Linear)
    return linear


def head_dim_of(config: Any) -> int:
    """Width of an attention head of the text model.

    0 where the config hides it or it differs between layers, as in no family with a table.
    """
    text = config.get_text_config()
    try:
        return getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    except (AttributeError, TypeError, RuntimeError):  # transformers' own for what differs
        return 0


def not_converted(model: nn.Module, architecture: Architecture) -> list[str]:
    """Names of the modules with matrices outside the decoder layers: what stays as it is.

    They are for `modules_to_not_convert`, whose readers look for them anywhere in a module's name
    (serving engines drop the leading "model."). Embeddings are never converted and are not named.
    """
    kept, parent = [], ""
    for child in architecture.decoder_layers.split("."):
        for name, module in model.get_submodule(parent).named_children():
            if name != child and not isinstance(module, nn.Embedding) and has_matrix(module):
                kept.append((parent, name))
        parent = f"{parent}.{child}".lstrip(".")
    inside = [
        f"{parent}.{number}.{name}"
        for number, layer in enumerate(decoder_layers(model, architecture))
        for name in linears(layer)
    ]
    packed = [name for name in inside if not name.endswith(architecture.kept)]
    ambiguous = {name for _, name in kept if any(name in each for each in packed)}
    return [
        *(f"{at}.{name}".lstrip(".") if name in ambiguous else name for at, name in kept),
        *(name for name in architecture.kept if any(each.endswith(name) for each in inside)),
    ]


def has_matrix(module: nn.Module) -> bool:
    return any(parameter.ndim > 1 for parameter in module.parameters())
