"""What an original's decoder layers make of samples, as calibration follows it."""

from collections.abc import Sequence
from pathlib import Path

import torch

from radquant.checkpoints.streaming import fill
from radquant.families.inspection import decoder_layers
from radquant.quantization.hidden_states import Hidden, append, embed, run_layer
from radquant.quantization.original_model import open_original
from radquant.quantization.samples import Sample

CPU = torch.device("cpu")


@torch.inference_mode()
def last_states(directory: Path, samples: Sequence[Sample], folder: Path) -> list[torch.Tensor]:
    """The last layer's output of each sample, [1, tokens, width], with one layer in memory."""
    source = open_original(directory)
    width = source.config.get_text_config().hidden_size
    states = Hidden(folder / "states", tuple(map(len, samples)), width)
    arguments = embed(source, samples, states, CPU)
    for number, layer in enumerate(decoder_layers(source.model, source.architecture)):
        places = source.layer_tensors(number)
        fill(layer, {own: source.stored[name] for own, name in places.items()}, CPU)
        with states.writing() as file:
            for index in range(len(samples)):
                append(file, run_layer(layer, states.read(index, CPU), arguments[index][number]))
    return [states.read(index, CPU) for index in range(len(samples))]
