"""The part of a model that sees, without its language model: loaded alone, and known by a hash."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from radquant.checkpoints.building import build_original, build_packed_model, packed_layers
from radquant.checkpoints.building import read_settings as quantized_as
from radquant.checkpoints.finite_weights import require_finite_model
from radquant.checkpoints.fitting import drop_unknown_padding, empty_model, found_names, open_config
from radquant.checkpoints.gguf_model import build_beside_gguf, names_beside_gguf
from radquant.checkpoints.loading import stored_beside
from radquant.checkpoints.parts import is_vision, vision_to
from radquant.failures import loading
from radquant.families.images import check_takes_images
from radquant.families.lookup import check_dtype
from radquant.model_checks import check_model
from radquant.model_files import StoredTensor, is_gguf, quantization_of, read_config
from radquant.packed.linear import QuantizedLinear
from radquant.runtime import activations
from radquant.settings.precision import STATIC
from radquant.vision.processors import load_processor, processor_hash

PIECE = 1 << 24  # bytes hashed at a time


@dataclass(frozen=True)
class Vision:
    """What makes the features of images: towers and projector in eval mode, on their device."""

    model: Any  # a transformers model whose language model is on the meta device
    processor: Any
    sha256: str  # of its weights, as they are stored
    processor_sha256: str
    device: torch.device
    dtype: torch.dtype
    directory: Path  # of the model


def open_vision(
    directory: str | Path,
    device: torch.device,
    dtype: torch.dtype,
    trust_remote_code: bool = False,
    processor: Any = None,
) -> Vision:
    """Load the part of a model or checkpoint that sees, and no more, in `dtype`.

    processor: the model's own, where it is loaded already. Raises UserError for a model that is
    shown no images, and as `checkpoints.loading.load` does.
    """
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # it would fill the logs
    directory = Path(directory)
    check_takes_images(directory)
    check_model(directory)
    config = open_config(directory, trust_remote_code)
    drop_unknown_padding(config)
    check_dtype(directory, config.to_dict(), str(dtype).removeprefix("torch."))
    quantization = quantization_of(read_config(directory), directory)
    with loading(directory):
        if is_gguf(quantization):
            model = build_beside_gguf(config, directory, dtype, trust_remote_code)
        else:
            build = build_packed_model if quantization else build_original
            model = build(config, directory, dtype, trust_remote_code, is_vision)
    require_finite_model(model, directory, dtype)
    model = model.eval().requires_grad_(False)
    vision_to(model, device)
    if quantization and not is_gguf(quantization):
        round_inputs(model, quantization, directory)
    if processor is None:
        from radquant.checkpoints.loading import load_tokenizer

        processor = load_processor(directory, load_tokenizer(directory, trust_remote_code))
    return Vision(
        model=model,
        processor=processor,
        sha256=vision_hash(directory, trust_remote_code),
        processor_sha256=processor_hash(processor),
        device=device,
        dtype=dtype,
        directory=directory,
    )


def round_inputs(model: Any, quantization: Mapping[str, Any], directory: Path) -> None:
    """Let the packed layers that see round what they read, where their checkpoint says so."""
    rounding = quantized_as(directory, quantization).activations
    packed = {name: m for name, m in model.named_modules() if isinstance(m, QuantizedLinear)}
    packed = {name: layer for name, layer in packed.items() if not layer.keeps_input}
    if rounding is None or not packed:
        return
    static = stored_beside(packed, rounding, directory) if rounding.range == STATIC else None
    activations.attach(model, packed, rounding, static)


def vision_hash(directory: str | Path, trust_remote_code: bool = False) -> str:
    """sha256 of the weights of a model's part that sees: names, types, shapes, bytes as stored.

    A checkpoint that leaves the original's as they are has the original's. If some of them are
    packed, what its config.json says of packing counts, too.
    """
    directory = Path(directory)
    config = open_config(directory, trust_remote_code)
    quantization = quantization_of(read_config(directory), directory)
    stored = check_model(directory)
    weights = {name: name for name in stored}  # as the model without packing has them
    if quantization:
        del config.quantization_config
    model = empty_model(config, trust_remote_code)
    if is_gguf(quantization):
        names = names_beside_gguf(model, stored, directory)
    elif quantization:
        for layer, parts in packed_layers(stored, quantized_as(directory, quantization)).items():
            weights |= dict.fromkeys(parts.values(), f"{layer}.weight")
    if not is_gguf(quantization):
        asked = set(weights.values())
        names, _, _ = found_names(model, sorted(asked), directory, asked)
    sees = is_vision(model)
    found, packed = hashlib.sha256(), False
    for name in sorted(stored, key=lambda name: (names.get(weights[name], ""), name)):
        own = names.get(weights[name])
        if own is None or not sees(own):
            continue
        tensor, suffix = stored[name], ""
        if weights[name] != name:
            packed, suffix = True, name.rpartition(".")[2]
        found.update(f"{own}\0{suffix}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        hash_bytes(found, tensor)
    if packed:
        found.update(json.dumps(quantization, sort_keys=True).encode())
    return found.hexdigest()


def hash_bytes(found: Any, tensor: StoredTensor) -> None:
    with open(tensor.file, "rb") as file:
        file.seek(tensor.begin)
        left = tensor.end - tensor.begin
        while left:
            piece = file.read(min(PIECE, left))
            found.update(piece)
            left -= len(piece)
