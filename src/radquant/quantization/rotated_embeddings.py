"""What lies outside the decoder layers of a rotated model: embedding, final norm and head."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from radquant.errors import UserError
from radquant.families.architectures import Architecture
from radquant.families.inspection import decoder_layers
from radquant.files import atomic_path
from radquant.finite import is_finite, relative_change
from radquant.model_files import StoredTensor, read_header
from radquant.quantization.original_model import Original
from radquant.quantization.rotation import Rotation, head_of_rotated, rotate_layer, rotate_residual

FILE = "outside.safetensors"
ROWS = 8192  # of the vocabulary at a time, so that float32 copies stay small
CHECKED_STATES = 16
BOUND = 1e-4


def own_name(model: nn.Module, module: nn.Module) -> str:
    """The name of a module's weight in the model."""
    return next(f"{name}.weight" for name, each in model.named_modules() if each is module)


@torch.inference_mode()
def rotated_outside(
    source: Original, rotation: Rotation, work: Path
) -> tuple[dict[str, StoredTensor], dict[str, Any]]:
    """Embedding, final norm and head for a rotated stream, and what changes in config.json.

    The final norm's weights go into the head, so a head that was tied to the embedding becomes one
    of its own. Nothing changes where the stream is not rotated.
    """
    if rotation.signs is None:
        return {}, {}
    model, architecture = source.model, source.architecture
    assert architecture.final_norm is not None
    parent = architecture.decoder_layers.rpartition(".")[0]
    stored_names = {own: stored for stored, own in source.own_names.items()}
    embedding = own_name(model, model.get_input_embeddings())  # type: ignore[operator]
    head = own_name(model, model.get_output_embeddings())  # type: ignore[operator]
    norm = f"{parent}.{architecture.final_norm.name}.weight"
    head_stored = stored_names.get(head, stored_names[embedding])
    norm_stored = source.stored[stored_names[norm]].load()
    words = source.stored[stored_names[embedding]].load()
    scores = source.stored[head_stored].load()
    turned_words, turned_scores = torch.empty_like(words), torch.empty_like(scores)
    for start in range(0, len(words), ROWS):
        rows = slice(start, start + ROWS)
        turned_words[rows] = rotate_residual(words[rows].float(), rotation).to(words.dtype)
        turned = head_of_rotated(
            scores[rows], norm_stored.float(), architecture.final_norm, rotation
        )
        turned_scores[rows] = turned.to(scores.dtype)
        if not start:
            expected = scores[rows].float() * (norm_stored.float() + architecture.final_norm.offset)
            check_head(expected, turned, rotation)
    tensors = {
        stored_names[embedding]: turned_words,
        stored_names.get(head, head): turned_scores,
        stored_names[norm]: torch.full_like(norm_stored, 1 - architecture.final_norm.offset),
    }
    for name, tensor in tensors.items():
        if not is_finite(tensor):
            raise UserError(
                f"{name} is too large for {str(tensor.dtype).removeprefix('torch.')} once it is "
                "rotated; save the model in bfloat16 or float32 first"
            )
    with atomic_path(work / FILE) as part:
        save_file(tensors, part)
    return read_header(work / FILE), {"tie_word_embeddings": False}


@torch.inference_mode()
def rotate_model(model: Any, architecture: Architecture, rotation: Rotation) -> None:
    """Rotate a whole model in memory, in place and in its own dtype, to hold a checkpoint against.

    architecture: the table of the model as it is.
    """
    for layer in decoder_layers(model, architecture):
        dtype = next(layer.parameters()).dtype
        layer.float()
        rotate_layer(layer, architecture, rotation)
        layer.to(dtype)
    if rotation.signs is None:
        return
    assert architecture.final_norm is not None
    parent = model.get_submodule(architecture.decoder_layers.rpartition(".")[0])
    norm = parent.get_submodule(architecture.final_norm.name).weight
    words, head = model.get_input_embeddings(), model.get_output_embeddings()
    scores = head_of_rotated(head.weight, norm.float(), architecture.final_norm, rotation)
    turned = rotate_residual(words.weight.float(), rotation)
    for module, weight in ((words, turned), (head, scores)):  # no longer one, where they were tied
        module.weight = nn.Parameter(weight.to(module.weight.dtype), requires_grad=False)
    norm.fill_(1 - architecture.final_norm.offset)


def check_head(expected: Tensor, turned: Tensor, rotation: Rotation) -> None:
    """Raise UserError unless a head's rows score rotated states as they did the states."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(CHECKED_STATES, expected.shape[1], generator=generator)
    before = states @ expected.T
    change = relative_change(rotate_residual(states, rotation) @ turned.T, before)
    if not change <= BOUND:
        raise UserError(
            f"rotating the head changed its scores by {change:.2g} relative; leave transform out, "
            "and report the model"
        )
