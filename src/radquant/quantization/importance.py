"""An importance matrix for llama.cpp's own quantizer: how large the inputs of each channel are.

It weighs the squared error of each weight with the mean square of its input (llama.cpp,
tools/imatrix). That is the diagonal of the Gram matrix that AWQ and GPTQ use whole.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch

from radquant.checkpoints.loading import resolve_device
from radquant.checkpoints.streaming import fill
from radquant.cli import progress
from radquant.families.inspection import decoder_layers
from radquant.gguf.importance import Importance, write_importance
from radquant.gguf.names import gguf_architecture, to_gguf
from radquant.quantization.calibration_statistics import Inputs, collect_statistics
from radquant.quantization.hidden_states import Hidden, embed
from radquant.quantization.original_model import open_original, require_finite_original
from radquant.quantization.samples import read_samples


@torch.inference_mode()
def importance_of(
    model: Path,
    calibration: Path,
    device: str = "auto",
    trust_remote_code: bool = False,
    features: Path | None = None,
) -> Importance:
    """The squares of the inputs of every linear layer, summed over all calibration tokens.

    model: the original's directory. calibration: samples of scripts/calibration_set.py. features:
    of their images. Raises UserError for an architecture that is not known as GGUF.
    """
    where, samples = resolve_device(device), read_samples(calibration, features)
    source = open_original(model, trust_remote_code)
    require_finite_original(source)
    named = gguf_architecture(source.config.model_type)
    layers = decoder_layers(source.model, source.architecture)
    lengths, width = tuple(map(len, samples)), source.config.get_text_config().hidden_size
    sums: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as work:
        states = [Hidden(Path(work) / str(n), lengths, width) for n in range(len(layers) + 1)]
        arguments = embed(source, samples, states[0], where, None)
        for number in progress(range(len(layers)), "importance", len(layers), "layers"):
            layer, places = layers[number], source.layer_tensors(number)
            fill(layer, {own: source.stored[stored] for own, stored in places.items()}, where)
            layer.to(where)
            of_layer = [each[number] for each in arguments]
            inputs = Inputs(states[number], of_layer, 0, where, [each.weights for each in samples])
            statistics = collect_statistics(
                layer, source.architecture, inputs, states[number + 1], keep=False
            )
            for group, seen in zip(source.architecture.groups, statistics, strict=True):
                for linear in group.linears:
                    name = to_gguf(places[f"{linear}.weight"], named)
                    assert name is not None
                    sums[name] = seen.gram.diagonal().cpu().numpy().copy()
            layers[number] = torch.nn.Identity()  # frees its memory
            states[number].path.unlink()
    return Importance(sums, sum(lengths), len(samples))


def make_importance(
    model: Path,
    calibration: Path,
    output: Path,
    device: str = "auto",
    trust_remote_code: bool = False,
    features: Path | None = None,
) -> None:
    """Write the importance matrix of a model to `output`, `.gguf` or `.dat`."""
    found = importance_of(model, calibration, device, trust_remote_code, features)
    write_importance(found, output)
