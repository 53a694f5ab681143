"""How many weights a model has, by its config.json alone."""

from pathlib import Path

from radquant.checkpoints.fitting import empty_model, open_config
from radquant.checkpoints.parts import is_language
from radquant.families.inspection import architecture_of, decoder_layers, layer_linears
from radquant.memory_plan import Weights, Widths, widths_of


def weights_of(directory: Path, trust_remote_code: bool = False) -> tuple[Weights, Widths | None]:
    """Of the model whose config.json is in `directory`, which needs no weight files.

    Its class is built without memory for the weights. Raises UserError if it cannot be.
    """
    config = open_config(directory, trust_remote_code)
    model = empty_model(config, trust_remote_code)
    architecture = architecture_of(config, model)
    layers = decoder_layers(model, architecture)
    linears = [list(layer_linears(layer, architecture).values()) for layer in layers]
    language = is_language(model)
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    counted = {
        name: (language(name), each.numel())
        for name, each in model.named_parameters()
        if name not in tied
    }
    linear = sum(each.weight.numel() for layer in linears for each in layer)
    inside = sum(count for is_inside, count in counted.values() if is_inside)
    total = sum(count for _, count in counted.values())
    # Of three inputs of the hidden width (queries, output, MLP), and of the others.
    hidden = model.get_input_embeddings().weight.shape[1]  # type: ignore[operator]
    widths = [{each.in_features for each in layer} - {hidden} for layer in linears]
    return Weights(
        linear=linear,
        other=inside - linear,
        vision=total - inside,
        layer=max(sum(each.numel() for each in layer.parameters()) for layer in layers),
        matrix=max(each.weight.numel() for layer in linears for each in layer),
        grams=3 * hidden**2 + max(sum(width**2 for width in layer) for layer in widths),
        table=model.get_input_embeddings().weight.numel(),  # type: ignore[operator]
    ), widths_of(config)
