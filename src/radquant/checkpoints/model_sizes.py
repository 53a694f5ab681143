"""How many weights a model has, by its config.json alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from radquant.checkpoints.fitting import empty_model, open_config
from radquant.checkpoints.parts import is_language
from radquant.families.inspection import architecture_of, decoder_layers, layer_linears
from radquant.families.lookup import family_of
from radquant.memory_plan import Sight, Weights, Widths, widths_of

ASSUMED_EDGE = 1024  # pixels of an image whose size the model leaves to the image itself
USUAL_ITEM = 2  # bytes of a number in a file: float16 or bfloat16


@dataclass(frozen=True)
class Sizes:
    """Of a model; None for what its configuration does not say."""

    weights: Weights
    widths: Widths | None
    sight: Sight | None
    lean: bool  # whether the lean engine knows models of its type


def sizes_of(directory: Path, trust_remote_code: bool = False) -> Sizes:
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
    # The channels of three inputs of the hidden width (queries, output, MLP), and of the others.
    hidden = model.get_input_embeddings().weight.shape[1]  # type: ignore[operator]
    widths = [{each.in_features for each in layer} - {hidden} for layer in linears]
    weights = Weights(
        linear=linear,
        other=inside - linear,
        vision=total - inside,
        layer=max(sum(each.numel() for each in layer.parameters()) for layer in layers),
        matrix=max(each.weight.numel() for layer in linears for each in layer),
        grams=3 * hidden**2 + max(sum(width**2 for width in layer) for layer in widths),
        table=model.get_input_embeddings().weight.numel(),  # type: ignore[operator]
        stored=stored_item(directory, config, total),
        dtype=str(getattr(config, "dtype", None) or torch.bfloat16).removeprefix("torch."),
    )
    kinds = (config.model_type, config.get_text_config().model_type)
    lean = all(family_of(kind).lean is not None for kind in kinds)
    return Sizes(weights, widths_of(config), sight_of(config), lean)


def stored_item(directory: Path, config: Any, total: int) -> int:
    """Bytes of a weight in a model's files, or as its configuration says where there are none."""
    files = sum(path.stat().st_size for path in directory.glob("*.safetensors"))
    said = getattr(config, "dtype", None)
    if files:
        return max(1, round(files / total))
    return said.itemsize if isinstance(said, torch.dtype) else USUAL_ITEM


def sight_of(config: Any) -> Sight | None:
    """Sizes of the part that sees; None where there is none, or its configuration says too little.

    An image counts as large as the configuration says, or as ASSUMED_EDGE each way.
    """
    seeing = getattr(config, "vision_config", None)

    def said(*names: str) -> Any:
        found = [getattr(seeing, name, None) for name in names]
        return next((each for each in found if each is not None), None)

    layers, inner = said("num_hidden_layers", "depth"), said("intermediate_size")
    hidden, patch, edge = said("hidden_size"), said("patch_size"), said("image_size")
    sides = [each if isinstance(each, list | tuple) else [each] * 2 for each in (edge, patch)]
    if edge is None:
        sides[0] = [ASSUMED_EDGE] * 2
    if not all(isinstance(each, int) for each in (layers, inner, hidden, *sides[0], *sides[1])):
        return None
    patches = (sides[0][0] // sides[1][0]) * (sides[0][1] // sides[1][1])
    return Sight(patches, layers, hidden, inner, assumed=edge is None)
