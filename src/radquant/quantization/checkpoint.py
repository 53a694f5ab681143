"""Packed checkpoints on disk: writing them whole, and building the model back from them.

A checkpoint is a Hugging Face directory in one of the formats of `formats`, plus a model card and
`quantization.json`, which holds the recipe, the error of each layer, and the sha256 of every other
file.
"""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from radquant.errors import UserError
from radquant.files import (
    HASH_SUFFIX,
    atomic_directory,
    hash_directory,
    read_json,
    verify_hashes,
    write_json,
)
from radquant.kernels.progressive import ProgressiveLinear
from radquant.kernels.reference import PackedLinear
from radquant.quantization.activations import ends_in
from radquant.quantization.card import model_card
from radquant.quantization.formats import (
    SUFFIXES,
    Settings,
    check_tensors,
    field_bits,
    in_memory,
    settings_of,
)
from radquant.quantization.hadamard import rotate_input
from radquant.quantization.runtime import FILE as RUNTIME
from radquant.quantization.runtime import online_rotations, weights_config
from radquant.quantization.streaming import (
    StoredTensor,
    empty_model,
    join_tensors,
    names_in_model,
    stored_tensors,
)

RECORD = "quantization.json"
CARD = "README.md"
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack")
NOT_COPIED = ("source.json", "config.json", "model.safetensors.index.json", CARD, RECORD)


def write_checkpoint(
    source: Path,
    output: Path,
    tensors: Mapping[str, StoredTensor],
    quantization: Mapping[str, Any],
    record: Mapping[str, Any],
    runtime: Mapping[str, StoredTensor] | None = None,
    metadata: Mapping[str, str] | None = None,
    changed: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint whole: `tensors`, wherever they lie, and the rest (see `write_rest`).

    runtime: what it brings for run time, if anything, with the `metadata` of that file.
    """
    with atomic_directory(output) as part:
        join_tensors(part / "model.safetensors", tensors)
        if runtime:
            join_tensors(part / RUNTIME, runtime, metadata)
        write_rest(source, part, quantization, record, changed)


def write_rest(
    source: Path,
    part: Path,
    quantization: Mapping[str, Any],
    record: Mapping[str, Any],
    changed: Mapping[str, Any] | None = None,
) -> None:
    """Write everything but the weights of a checkpoint into `part`, where the weights lie already.

    source: the original's directory, whose configuration, tokenizer and licence files are taken
    over. quantization: the `quantization_config` for config.json. record: for quantization.json
    and the model card. changed: other keys of config.json.
    """
    config = read_json(source / "config.json") | {"quantization_config": dict(quantization)}
    write_json(part / "config.json", config | dict(changed or {}))
    copy_rest(source, part)
    (part / CARD).write_text(model_card(source, quantization, record), encoding="utf-8")
    write_json(part / RECORD, {**record, "files": hash_directory(part, exclude=[RECORD])})


def copy_rest(source: Path, part: Path) -> None:
    """Copy what a new checkpoint takes over as it is: the tokenizer, the license and the like."""
    for path in sorted(source.iterdir()):
        own = path.suffix in (*WEIGHT_SUFFIXES, HASH_SUFFIX)
        if path.is_file() and not own and path.name not in NOT_COPIED:
            shutil.copyfile(path, part / path.name)


def verify(directory: Path, weights: bool = True) -> None:
    """Check the sha256 of every file that this program wrote or fetched into `directory`.

    weights: of those of weights, too. A directory that it did not make carries no record and is
    taken as it is.
    """
    for record, remedy in (
        (RECORD, "delete the directory and quantize again"),
        ("source.json", "delete the directory and fetch the model again"),
    ):
        if (directory / record).is_file():
            files = read_json(directory / record)["files"]
            chosen = {
                name: digest
                for name, digest in files.items()
                if weights or not name.endswith(WEIGHT_SUFFIXES)
            }
            verify_hashes(directory, chosen, remedy)


def packed_layers(names: Iterable[str], settings: Settings) -> dict[str, dict[str, str]]:
    """The packed linear layers among a checkpoint's tensors: {layer: {suffix: tensor's name}}."""
    suffixes = SUFFIXES[settings.format]
    layers: dict[str, dict[str, str]] = {}
    for name in names:
        layer, _, suffix = name.rpartition(".")
        if suffix in suffixes:
            layers.setdefault(layer, {})[suffix] = name
    return {layer: found for layer, found in sorted(layers.items()) if suffixes[0] in found}


def read_settings(directory: Path, quantization: Mapping[str, Any]) -> Settings:
    """The settings of a checkpoint; an error names its directory."""
    try:
        return settings_of(weights_config(quantization))
    except UserError as error:
        raise UserError(f"{directory}: {error}") from None


def build_packed_model(
    config: Any, directory: Path, dtype: torch.dtype, trust_remote_code: bool = False
) -> nn.Module:
    """Build the model of a packed checkpoint on the CPU; packed layers stay packed.

    config: the checkpoint's transformers config. Tensors that are not packed get `dtype`.
    """
    settings = read_settings(directory, config.quantization_config)
    online = online_rotations(config.quantization_config)
    del config.quantization_config
    config.dtype = dtype
    model = empty_model(config, trust_remote_code)
    stored = stored_tensors(directory)
    packed = packed_layers(stored, settings)
    plain = stored.keys() - {name for layer in packed.values() for name in layer.values()}
    try:
        # The original stored each packed layer as one weight; that is the name to look up.
        names = names_in_model(model, [*plain, *(f"{layer}.weight" for layer in packed)])
    except UserError as error:
        raise UserError(f"{directory}: {error}") from None
    for layer, suffixes in packed.items():
        tensors = {suffix: stored[name] for suffix, name in suffixes.items()}
        place(model, names.get(f"{layer}.weight"), tensors, settings, f"{directory}: layer {layer}")
    for name, module in model.named_modules():
        if isinstance(module, PackedLinear) and ends_in(name, online):
            module.register_forward_pre_hook(rotate_input)
    assign(model, {names[name]: stored[name] for name in plain if name in names}, dtype, directory)
    use_generation_config(model, directory)
    return model


def place(
    model: nn.Module,
    weight: str | None,
    stored: Mapping[str, StoredTensor],
    settings: Settings,
    where: str,
) -> None:
    """Put a packed layer in the place of the linear layer whose weight is `weight` in `model`."""
    name = (weight or "").removesuffix(".weight")
    linear = model.get_submodule(name)
    if not isinstance(linear, nn.Linear):
        raise UserError(f"{where} is packed but is no linear layer of the model of its own")
    try:
        tensors = {suffix: tensor.load() for suffix, tensor in stored.items()}
        check_tensors(tensors, settings, linear.in_features, linear.out_features)
        tensors = in_memory(tensors, settings)
    except UserError as error:
        raise UserError(f"{where} cannot be read: {error}") from None
    kind = ProgressiveLinear if "channel_scales" in tensors else PackedLinear
    layer = kind(
        linear.in_features,
        linear.out_features,
        field_bits(settings.bits),
        settings.group_size,
        linear.bias is not None,
        "order" in tensors,
    )
    layer.load_state_dict(tensors, strict=False, assign=True)
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)


def assign(
    model: nn.Module, stored: Mapping[str, StoredTensor], dtype: torch.dtype, directory: Path
) -> None:
    """Put the stored tensors, by the model's own names, in the place of the model's own."""
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    tensors = {}
    for name, tensor in stored.items():
        if shapes[name] != tensor.shape:
            raise UserError(
                f"{directory}: {name} has shape {list(tensor.shape)}, "
                f"the configuration says {list(shapes[name])}"
            )
        loaded = tensor.load()
        tensors[name] = loaded.to(dtype) if loaded.is_floating_point() else loaded
    model.load_state_dict(tensors, strict=False, assign=True)
    model.tie_weights()  # type: ignore[operator]


def use_generation_config(model: Any, directory: Path) -> None:
    """Take over what ends an answer; `from_pretrained` does so for original models."""
    from transformers import GenerationConfig

    if (directory / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(directory)
