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
    counted = {id(each): (language(name), each.numel()) for name, each in model.named_parameters()}
    linear = sum(each.weight.numel() for layer in linears for each in layer)
    inside = sum(count for is_inside, count in counted.values() if is_inside)
    total = sum(count for _, count in counted.values())
    # Linears of one input have one Gram matrix; how many inputs there are, their widths tell.
    widths = [sorted({each.in_features for each in layer}) for layer in linears]
    return Weights(
        linear=linear,
        other=inside - linear,
        vision=total - inside,
        layer=max(sum(each.numel() for each in layer.parameters()) for layer in layers),
        matrix=max(each.weight.numel() for layer in linears for each in layer),
        grams=max(2 * sum(width * width for width in layer) for layer in widths),
        table=model.get_input_embeddings().weight.numel(),  # type: ignore[operator]
    ), widths_of(config)
