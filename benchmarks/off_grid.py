"""The same model with other weights, for originals that come from a quantized file.

A quantizer whose grid such weights already lie on gives them back, which says nothing of it. Here
each channel between two layers is multiplied by a random factor and divided again in what reads it,
as AWQ's folding does. The model computes the same, and its weights lie on no grid.
"""

from pathlib import Path

import torch
import transformers

from radquant.families.architectures import Norm
from radquant.families.inspection import (
    architecture_of,
    decoder_layers,
    head_dim_of,
    linear_of,
    row_range,
)
from radquant.files import atomic_directory
from radquant.quantization.awq import fold_into_linear, fold_into_norm, source_channels

LEAST, MOST = 0.75, 1.35


@torch.inference_mode()
def write_off_grid(original: Path, output: Path) -> None:
    """Write the model in `original` so, in float32, with its tokenizer."""
    generator = torch.Generator().manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_pretrained(original, dtype=torch.float32)
    table = architecture_of(model.config, model)
    for layer in decoder_layers(model, table):
        for group in table.groups:
            source = group.source
            if source is None:
                continue
            if isinstance(source, Norm):
                rows, width = None, len(layer.get_submodule(source.name).weight)
            else:
                rows = row_range(layer, source)
                width = rows.stop - rows.start
            scale = torch.empty(width).uniform_(LEAST, MOST, generator=generator)
            if isinstance(source, Norm):
                norm = layer.get_submodule(source.name)
                scale = fold_into_norm(norm, scale, torch.float32, source.offset)
            else:
                linear = linear_of(layer, source.linear)
                scale = fold_into_linear(linear, rows, scale, torch.float32)
            weights = [linear_of(layer, name).weight for name in group.linears]
            inputs = weights[0].shape[1]
            expanded = scale[source_channels(width, inputs, head_dim_of(model.config))]
            for weight in weights:
                weight.mul_(expanded)
    with atomic_directory(output) as part:
        model.save_pretrained(part)
        transformers.AutoTokenizer.from_pretrained(original).save_pretrained(part)
