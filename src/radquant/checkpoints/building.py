"""The model of a packed checkpoint: its packed layers put where its linear layers were."""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from radquant.checkpoints.fitting import (
    check_fit,
    check_tied,
    empty_model,
    found_names,
    refuse_converted,
)
from radquant.errors import UserError
from radquant.model_checks import FLOATS, check_model
from radquant.model_files import CONFIG, StoredTensor
from radquant.packed.formats import (
    HEAD,
    Settings,
    check_tensors,
    field_bits,
    marks_of,
    settings_of,
    suffixes_of,
)
from radquant.packed.in_memory import quantized_layer
from radquant.packed.linear import PackedLinear, QuantizedLinear, ValueLinear
from radquant.packed.packing import WORD
from radquant.runtime.hadamard import rotate_input
from radquant.runtime.layer_names import ends_in
from radquant.runtime.runtime_file import online_rotations, weights_config


def packed_layers(names: Iterable[str], settings: Settings) -> dict[str, dict[str, str]]:
    """The packed linear layers among a checkpoint's tensors: {layer: {suffix: tensor's name}}."""
    layers: dict[str, dict[str, str]] = {}
    suffixes = sorted(suffixes_of(settings), key=len, reverse=True)  # a.b before b
    for name in names:
        for suffix in suffixes:
            layer = name.removesuffix(f".{suffix}")
            if layer != name:
                if settings.of(layer) is not None:
                    layers.setdefault(layer, {})[suffix] = name
                break
    return {
        layer: found
        for layer, found in sorted(layers.items())
        if any(mark in found for mark in marks_of(settings))
    }


def read_settings(directory: Path, quantization: Mapping[str, Any]) -> Settings:
    """The settings of a checkpoint; an error names its directory."""
    try:
        if not isinstance(quantization.get("weights", {}), dict):
            raise UserError("quantization_config has no table of weights; quantize again")
        return settings_of(weights_config({"weights": {}, **quantization}))
    except UserError as error:
        raise UserError(f"{directory / CONFIG}: {error}") from None


def check_packed(
    packed: Iterable[str], plain: Iterable[str], settings: Settings, directory: Path
) -> None:
    """Raise UserError unless the packed layers are those that a checkpoint's config.json says.

    Programs differ in whether they believe it or the tensors. plain: tensors that are not packed.
    """
    where, layers = directory / CONFIG, list(packed)
    if not layers:
        raise UserError(
            f"{where} has a quantization_config, and no layer in the weight files is packed; take "
            "it out if the weights are not quantized"
        )
    for pattern in settings.left_out:
        try:
            found = [layer for layer in layers if re.match(pattern, layer)]
        except re.error as error:
            raise UserError(f"{where} has a pattern {pattern!r} that is none ({error})") from None
        if found:
            raise UserError(
                f"{where} says that {found[0]} is not quantized, and in the weight files it is; "
                "fetch the checkpoint again"
            )
    if settings.packs_all and (dense := dense_like_packed(layers, plain, settings)):
        raise UserError(
            f"{where} does not say that {dense} is not quantized, and in the weight files it is "
            "not; fetch the checkpoint again"
        )
    if settings.packs_head and not any(layer.endswith(HEAD) for layer in layers):
        raise UserError(
            f"{where} says that {HEAD} is quantized, and in the weight files it is not; fetch the "
            "checkpoint again"
        )


def dense_like_packed(
    packed: Iterable[str], plain: Iterable[str], settings: Settings
) -> str | None:
    """A layer that is not packed, nor left out by name, though it is in other decoder layers."""

    def kind(name: str) -> str:
        return re.sub(r"\.\d+(?=\.)", ".N", name)

    kinds = set(map(kind, packed))
    layers = sorted(name.removesuffix(".weight") for name in plain if name.endswith(".weight"))
    for layer in layers:
        named = any(re.match(pattern, layer) for pattern in settings.left_out)
        named = named or settings.of(layer) is None
        if kind(layer) in kinds and not named:
            return layer
    return None


Part = Callable[[Any], Callable[[str], bool]]  # of a model: which of its tensors, by their names


def whole(model: Any) -> Callable[[str], bool]:
    return lambda name: True


def build_original(
    config: Any,
    directory: Path,
    dtype: torch.dtype,
    trust_remote_code: bool = False,
    part: Part = whole,
) -> nn.Module:
    """Build the `part` of an original model on the CPU in `dtype`; the rest is on the meta device.

    config: its transformers config. Nothing but the part's tensors is read.
    """
    config.dtype = dtype
    stored = check_model(directory)
    model = empty_model(config, trust_remote_code)
    check_fit(model, stored, directory)
    names, _, converted = found_names(model, stored, directory)
    wanted = part(model)
    converted = {name: own for name, own in converted.items() if wanted(own)}
    refuse_converted(model, converted, directory)
    chosen = {own: stored[name] for name, own in names.items() if wanted(own)}
    assign(model, chosen, dtype, directory)
    use_generation_config(model, directory)
    return model


def build_packed_model(
    config: Any,
    directory: Path,
    dtype: torch.dtype,
    trust_remote_code: bool = False,
    part: Part = whole,
) -> nn.Module:
    """Build the model of a packed checkpoint on the CPU; packed layers stay packed.

    config: the checkpoint's transformers config. Tensors that are not packed get `dtype`, and so do
    values of layers without a kernel. part: what is read; the rest is on the meta device.
    """
    settings = read_settings(directory, config.quantization_config)
    online = online_rotations(config.quantization_config)
    del config.quantization_config
    config.dtype = dtype
    stored = check_model(directory)
    stored, cache_scales = without_cache_scales(stored, settings, directory)
    model = empty_model(config, trust_remote_code)
    model.cache_scales = cache_scales  # type: ignore[assignment]
    packed = packed_layers(stored, settings)
    plain = stored.keys() - {name for layer in packed.values() for name in layer.values()}
    check_packed(packed, plain, settings, directory)
    # The original stored each packed layer as one weight; that is the name to look up.
    asked = [*plain, *(f"{layer}.weight" for layer in packed)]
    spare = zero_biases(packed, stored)
    names, doubles, converted = found_names(model, asked, directory, spare)
    refuse_converted(model, converted, directory)
    check_tied(model, stored, names, doubles)
    wanted = part(model)
    for layer, suffixes in packed.items():
        if not wanted(names.get(f"{layer}.weight", "")):
            continue
        tensors = {suffix: stored[name] for suffix, name in suffixes.items()}
        own = settings.of(layer)
        assert own is not None
        where = f"{directory}: layer {layer}"
        place(model, names.get(f"{layer}.weight"), tensors, own, dtype, where)
    for name, module in model.named_modules():
        if isinstance(module, QuantizedLinear) and ends_in(name, online):
            module.register_forward_pre_hook(rotate_input)
    chosen = {names[name]: stored[name] for name in plain if name in names and wanted(names[name])}
    assign(model, chosen, dtype, directory)
    use_generation_config(model, directory)
    return model


def without_cache_scales(
    stored: Mapping[str, StoredTensor], settings: Settings, directory: Path
) -> tuple[dict[str, StoredTensor], dict[int, tuple[float, float]]]:
    """The tensors but for the fixed scales of a rounded cache, and those by decoder layer.

    Where a checkpoint that rounds its cache has none for a layer, its scales are 1, as in vLLM.
    """
    rest, found = dict(stored), dict[int, dict[str, float]]()
    for name in stored if settings.kv_cache is not None else ():
        place = re.search(r"\.(\d+)\.self_attn\.(k|v)(_proj\.output)?_scale$", name)
        if place is None:
            continue
        value = rest.pop(name).load()
        if value.numel() != 1 or not float(value) > 0 or not bool(value.isfinite().all()):
            raise UserError(
                f"{directory}: {name} is no positive number; fetch the checkpoint again"
            )
        found.setdefault(int(place[1]), {})[place[2]] = float(value)
    return rest, {
        layer: (scales.get("k", 1.0), scales.get("v", 1.0)) for layer, scales in found.items()
    }


def zero_biases(packed: Iterable[str], stored: Mapping[str, StoredTensor]) -> set[str]:
    """Biases of packed layers that change nothing.

    Early AutoGPTQ gave one to every layer, also of models that have none.
    """
    biases = [f"{layer}.bias" for layer in packed if f"{layer}.bias" in stored]
    return {name for name in biases if not bool(stored[name].load().any())}


def place(
    model: nn.Module,
    weight: str | None,
    stored: Mapping[str, StoredTensor],
    settings: Settings,
    dtype: torch.dtype,
    where: str,
) -> None:
    """Put a packed layer in the place of the linear layer whose weight is `weight` in `model`.

    dtype: the model's, in which values lie that no kernel multiplies by as they are stored.
    """
    name = (weight or "").removesuffix(".weight")
    linear = model.get_submodule(name)
    if not isinstance(linear, nn.Linear):
        raise UserError(f"{where} is packed but is no linear layer of the model of its own")
    try:
        tensors = {suffix: tensor.load() for suffix, tensor in stored.items()}
        check_tensors(tensors, settings, linear.in_features, linear.out_features)
        size = (linear.in_features, linear.out_features)
        layer = quantized_layer(tensors, settings, *size, linear.bias is not None, dtype)
        if isinstance(layer, PackedLinear):
            check_zeros(layer.qzeros, settings)
    except UserError as error:
        raise UserError(f"{where} cannot be read: {error}") from None
    above, _, child = name.rpartition(".")
    parent = model.get_submodule(above)
    # PyTorch's own attention reads the weight of its last layer, and does not call it.
    if isinstance(parent, nn.MultiheadAttention) and isinstance(layer, PackedLinear):
        layer = ValueLinear(layer.dequantize().T.to(dtype), linear.bias is not None)
    setattr(parent, child, layer)


def check_zeros(words: Tensor, settings: Settings) -> None:
    """Raise UserError unless the zeros of a symmetric grid lie in its middle.

    Programs differ in whether they read them there. words: in memory's form, [groups, words].
    """
    bits = field_bits(settings.bits)
    middle = sum(2 ** (settings.bits - 1) << place for place in range(0, WORD, bits))
    if settings.symmetric and bool((words.long() % 2**WORD != middle).any()):
        raise UserError(
            "its zeros are not in the middle, and quantization_config says that the grid is "
            "symmetric"
        )


def assign(
    model: nn.Module, stored: Mapping[str, StoredTensor], dtype: torch.dtype, directory: Path
) -> None:
    """Put the stored tensors, by the model's own names, in the place of the model's own."""
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    parameters = {name for name, _ in model.named_parameters()}
    tensors = {}
    for name, tensor in stored.items():
        if shapes[name] != tensor.shape:
            raise UserError(
                f"{directory}: {name} has shape {list(tensor.shape)}, "
                f"the configuration says {list(shapes[name])}"
            )
        if name in parameters and tensor.dtype not in FLOATS:
            raise UserError(
                f"{tensor.file}: {tensor.key} is stored as {tensor.dtype}, and quantization_config "
                "does not say how to read it; the checkpoint cannot be read"
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
