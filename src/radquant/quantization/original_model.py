"""The original model that is to be quantized: its files, its empty module, what fits it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from radquant.checkpoints.finite_weights import require_finite_files
from radquant.checkpoints.fitting import check_fit, empty_model, names_in_model, open_config
from radquant.checkpoints.writing import verify
from radquant.errors import UserError
from radquant.families.architectures import Architecture
from radquant.families.inspection import architecture_of, decoder_layers, layer_linears
from radquant.model_checks import check_model
from radquant.model_files import StoredTensor, quantization_of, read_config
from radquant.settings.recipe import (
    AUTO,
    INT,
    INTEGER_GROUP_SIZES,
    NONE,
    WHOLE_ROW,
    Recipe,
    mixture,
    widths,
)


@dataclass(frozen=True)
class Original:
    """The original model: its files, its empty module, and what is where in both."""

    model: nn.Module
    config: Any
    architecture: Architecture  # of the model as it is quantized
    stored: dict[str, StoredTensor]
    own_names: dict[str, str]  # stored name -> the model's own

    def layer_tensors(self, number: int) -> dict[str, str]:
        """{name inside decoder layer `number`: stored name}"""
        prefix = f"{self.architecture.decoder_layers}.{number}."
        return {
            own.removeprefix(prefix): stored
            for stored, own in self.own_names.items()
            if own.startswith(prefix)
        }


def open_original(
    directory: Path, trust_remote_code: bool = False, dtype: torch.dtype | None = torch.float32
) -> Original:
    """The model to quantize, without its weights.

    dtype: of constants that its class makes (Gemma's scale of embedded tokens). The default is the
    one in which its layers compute here, and None takes the one in its config.json.
    """
    if quantization_of(read_config(directory), directory):
        raise UserError(f"{directory} is quantized already; give the original model")
    verify(directory)
    stored = check_model(directory)
    config = open_config(directory, trust_remote_code)
    if dtype is not None:
        config.dtype = dtype
    model = empty_model(config, trust_remote_code)
    check_fit(model, stored, directory)
    own_names = names_in_model(model, stored, directory)
    return Original(model, config, architecture_of(config, model), stored, own_names)


def require_finite_original(source: Original) -> None:
    """Raise UserError with file, tensor and place of a weight that is an infinity or NaN.

    A weight also counts that is one in float32, in which layers are quantized.
    """
    parameters = dict(source.model.named_parameters())
    stored = [source.stored[name] for name, own in source.own_names.items() if own in parameters]
    require_finite_files(stored, torch.float32)


def check_recipe(model: nn.Module, architecture: Architecture, recipe: Recipe) -> int:
    """The number of linear layers to quantize; raises UserError if the recipe does not fit."""
    linears = [
        (f"{architecture.decoder_layers}.{index}.{name}", linear)
        for index, layer in enumerate(decoder_layers(model, architecture))
        for name, linear in layer_linears(layer, architecture).items()
    ]
    if architecture.experts:
        check_of_experts(recipe)
    if not linears:
        raise UserError("the model has no linear layers to quantize")
    for name, linear in linears:
        if recipe.group_size != WHOLE_ROW and linear.in_features % recipe.group_size:
            found = {each.in_features for _, each in linears}
            sizes = [size for size in INTEGER_GROUP_SIZES if size != WHOLE_ROW]
            fitting = [g for g in sizes if all(width % g == 0 for width in found)]
            raise UserError(
                f"group size {recipe.group_size} does not divide the {linear.in_features} inputs "
                f"of {name}; sizes that divide every layer: {fitting or 'none'}"
            )
        for side, width in (("inputs", linear.in_features), ("outputs", linear.out_features)):
            for bits in widths(recipe) if mixture(recipe) else (recipe.bits,):
                if recipe.type == INT and width * bits % 32:
                    raise UserError(
                        f"{name} has {width} {side}, which do not fill whole 32-bit words at "
                        f"{bits} bits; this model cannot be packed"
                    )
    return len(linears)


def check_of_experts(recipe: Recipe) -> None:
    """Raise UserError for what is not known of experts, which see tokens of many texts at once."""
    asked = {
        "activations": recipe.activations is not None,
        "prefix": recipe.prefix == AUTO,
        "transform": recipe.transform != NONE,
        "an average of bits": mixture(recipe) is not None,
    }
    for key, set_ in asked.items():
        if set_:
            raise UserError(
                f"{key} is not known for mixtures of experts; leave it out of the recipe"
            )
