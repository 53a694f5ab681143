"""The weights of a checkpoint one by one, by the names of the model's own modules.

No model is built in memory: a tensor is read when it is asked for, and then forgotten.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from radquant.checkpoints.building import (
    check_packed,
    packed_layers,
    read_settings,
    without_cache_scales,
    zero_biases,
)
from radquant.checkpoints.finite_weights import load_finite
from radquant.checkpoints.fitting import (
    check_tied,
    empty_model,
    found_names,
    open_config,
    refuse_converted,
)
from radquant.checkpoints.gguf_model import LANGUAGE, fit_vocabulary
from radquant.checkpoints.writing import verify
from radquant.errors import UserError
from radquant.families.inspection import find_decoder_layers, linears
from radquant.finite import first_not_finite, is_finite
from radquant.gguf.keys import check_keys
from radquant.gguf.reading import (
    ALL,
    FLOAT_TYPES,
    GGUFModel,
    GGUFTensor,
    hugging_face_values,
    read_model,
)
from radquant.model_checks import check_model
from radquant.model_files import CONFIG, StoredTensor, gguf_file, is_gguf, stored_tensors
from radquant.packed.formats import Settings, check_tensors, torchao, unpack
from radquant.packed.grid import QuantizedWeight, StoredValues
from radquant.settings.precision import STATIC, Activations
from radquant.settings.recipe import INT, WHOLE_ROW
from radquant.verification.blocks import row_blocks

# Of floating-point types: bits of the fraction, exponent of the least normal number, largest one.
FLOATING = {"fp8": (3, -6, 448.0), "mxfp4": (1, 0, 6.0), "nvfp4": (1, 0, 6.0)}
# Of llama.cpp's K types (ggml-quants.c): weights that share a scale of scales, and its multiples.
SUPER_BLOCK, LARGEST_MULTIPLE = 256, 63
INPUT_SCALES = ("input_scale", "input_global_scale", "activation_scale")
BLOCK = 32  # neighbouring weights that share a scale where nothing else is known


@dataclass(frozen=True)
class Linear:
    """A quantized matrix as it was stored."""

    weight: Tensor  # [out, in] float32
    # About how far neighbouring values of its grid are apart, float32: [out, in], or [out, groups]
    # where groups are neighbours.
    step: Tensor
    bits: int
    input_scale: float | None = None  # of a static range that is stored beside the weights


@dataclass(frozen=True)
class Table:
    """A matrix that is read some rows at a time: that of a large vocabulary takes gigabytes."""

    count: int  # of rows
    read: Callable[[slice], Tensor]  # [rows, in] float32, as `Checkpoint` reads all of them
    bits: int | None = None  # of a quantized one


@dataclass(frozen=True)
class Checkpoint:
    """A quantized checkpoint: its empty model, and how its tensors are read by the model's names.

    What is read is float32; UserError for what does not fit the model or is not finite.
    """

    directory: Path
    model: nn.Module
    quantization: dict[str, Any]
    about: str  # how its weights are stored, for the reader
    packed: Mapping[str, Callable[[], Linear]]  # {module: its weights}
    plain: Mapping[str, Callable[[], Tensor]]  # {parameter: its values}
    tables: Mapping[str, Table]  # {parameter: the same}, of matrices whose rows are stored apart
    # Of each decoder layer, the scales of its keys and values in a cache, where they are fixed.
    cache_scales: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    activations: Activations | None = None  # what it says of the rounding of inputs

    @property
    def has_static_ranges(self) -> bool:
        return self.activations is not None and self.activations.range == STATIC


def open_checkpoint(directory: Path, trust_remote_code: bool = False) -> Checkpoint:
    """What is where in a quantized checkpoint.

    Raises UserError unless its files go together and hold what its config.json says.
    """
    stored = check_model(directory)
    config = open_config(directory, trust_remote_code)
    quantization = getattr(config, "quantization_config", None)
    if not quantization:
        raise UserError(f"{directory} holds no packed layer; name a quantized checkpoint")
    verify(directory)
    del config.quantization_config
    if is_gguf(quantization):
        return open_gguf(directory, quantization, config, trust_remote_code)
    settings = read_settings(directory, quantization)
    stored, cache_scales = without_cache_scales(stored, settings, directory)
    model = empty_model(config, trust_remote_code)
    packed = packed_layers(stored, settings)
    plain = stored.keys() - {name for layer in packed.values() for name in layer.values()}
    check_packed(packed, plain, settings, directory)
    asked = [*plain, *(f"{layer}.weight" for layer in packed)]
    names, doubles, converted = found_names(model, asked, directory, zero_biases(packed, stored))
    refuse_converted(model, converted, directory)
    check_tied(model, stored, names, doubles)
    layers = {}
    for layer, suffixes in packed.items():
        own = names.get(f"{layer}.weight", "").removesuffix(".weight")
        of_layer = settings.of(layer)
        assert of_layer is not None
        tensors = {suffix: stored[name] for suffix, name in suffixes.items()}
        where = f"{directory}: layer {layer}"
        module = model.get_submodule(own)
        if not isinstance(module, nn.Linear):
            raise UserError(f"{where} is packed but is no linear layer of the model of its own")
        layers[own] = partial(read_linear, where, module, tensors, of_layer)
    check_claims(model, layers, {own: name for name, own in names.items()}, settings, directory)
    group = "whole rows" if settings.group_size == WHOLE_ROW else f"groups of {settings.group_size}"
    unpacked = {names[name]: stored[name] for name in plain if name in names}
    return Checkpoint(
        directory,
        model,
        quantization,
        f"{settings.format}, {settings.bits} bits, {group}, {len(layers)} packed layers",
        layers,
        {own: partial(read_plain, each) for own, each in unpacked.items()},
        {own: plain_table(each) for own, each in unpacked.items() if len(each.shape) > 1},
        cache_scales,
        settings.activations,
    )


def read_plain(stored: StoredTensor) -> Tensor:
    return load_finite(stored).float()


def plain_table(stored: StoredTensor) -> Table:
    def read(rows: slice) -> Tensor:
        found = stored.load_rows(rows)
        return found.float() if is_finite(found) else read_plain(stored)  # which tells the place

    return Table(stored.shape[0], read)


def read_linear(
    where: str, module: nn.Linear, stored: Mapping[str, StoredTensor], settings: Settings
) -> Linear:
    """A packed linear layer, as loading a model reads it. where: for messages."""
    try:
        tensors = {suffix: tensor.load() for suffix, tensor in stored.items()}
        check_tensors(tensors, settings, module.in_features, module.out_features)
        weight = unpack(tensors, settings)
        values = weight.dequantize().float()
    except UserError as error:
        raise UserError(f"{where} cannot be read: {error}") from None
    if not is_finite(values):
        raise UserError(
            f"{where} holds {first_not_finite(values)} once it is unpacked; fetch the checkpoint "
            "again, or quantize again"
        )
    bits = used_bits(tensors, settings)
    step = step_of(weight, values, replace(settings, bits=bits))
    return Linear(values, step, bits, input_scale_of(where, tensors, settings))


def input_scale_of(where: str, tensors: Mapping[str, Tensor], settings: Settings) -> float | None:
    """The static scale of a layer's inputs, or None. UserError for one that is no scale."""
    activations = settings.activations
    if activations is None or activations.range != STATIC or settings.keeps_inputs:
        return None
    for name in INPUT_SCALES:
        if name in tensors:
            value = float(tensors[name].float().reshape(-1)[0])
            if not (value > 0 and math.isfinite(value)):
                raise UserError(
                    f"{where}: its {name} is {value:g}, and a scale is a positive number; fetch "
                    "the checkpoint again, or quantize again"
                )
            return value
    return None


def used_bits(tensors: Mapping[str, Tensor], settings: Settings) -> int:
    """The bits of a layer's numbers; torchao stores integers of fewer in bytes."""
    data = tensors.get(torchao.DATA)
    if data is None or data.dtype != torch.int8:
        return settings.bits
    return min(max(int(data.max()) - int(data.min()), 3).bit_length(), settings.bits)


def check_claims(
    model: nn.Module,
    packed: Mapping[str, Any],
    stored: Mapping[str, str],
    settings: Settings,
    directory: Path,
) -> None:
    """Raise UserError for a linear layer of the decoder that is neither packed nor said not to be.

    stored: {parameter: its name in the files}.
    """
    if not settings.packs_all:
        return
    path = find_decoder_layers(model.config, model)
    for name in linears(model.get_submodule(path)):
        own = f"{path}.{name}"
        layer = stored.get(f"{own}.weight", own).removesuffix(".weight")
        said = any(re.match(pattern, layer) for pattern in settings.left_out)
        if own not in packed and not said and settings.of(layer) is not None:
            raise UserError(
                f"{directory / CONFIG} does not say that {layer} is not quantized, and in the "
                "weight files it is not; fetch the checkpoint again, or quantize again"
            )


# -------------------------------------------------------------------------------------- steps


def step_of(weight: QuantizedWeight | StoredValues, values: Tensor, settings: Settings) -> Tensor:
    """How far neighbouring values are apart, as `Linear` has it; about, where it depends on them.

    values: [out, in], what `weight` stands for.
    """
    if isinstance(weight, QuantizedWeight) and weight.type == INT:
        scales = weight.scales.float().abs()
        if weight.channel_scales is not None:
            scales = scales * weight.channel_scales.float().abs()[:, None]
        return scales if weight.group_index is None else scales[:, weight.group_index.long()]
    if isinstance(weight, QuantizedWeight) and weight.type in FLOATING:
        return step_of_floats(weight, values)
    size = settings.group_size if settings.group_size != WHOLE_ROW else values.shape[1]
    return step_of_values(values, size, settings.bits)


def step_of_floats(weight: QuantizedWeight, values: Tensor) -> Tensor:
    """How far a floating-point number is from the next larger one, [out, in] float32."""
    fraction_bits, least_exponent, largest = FLOATING[weight.type]
    step = torch.empty_like(values)
    for rows in row_blocks(values):
        scales = weight.scales[rows].float()[..., None]
        magnitude = values[rows].abs().unflatten(1, (scales.shape[1], -1))
        magnitude = (magnitude / scales.clamp(min=1e-30)).clamp(2.0**least_exponent, largest)
        exponent = magnitude.log2_().floor_()
        step[rows] = (scales * torch.exp2(exponent - fraction_bits)).flatten(1)
    return step


def step_of_values(values: Tensor, size: int, bits: int, in_super_blocks: bool = False) -> Tensor:
    """The same where only values are known, [out, in]; groups of `size` share a scale.

    Steps of floating-point numbers of 8 bits grow with the numbers: three bits of a mantissa.
    in_super_blocks: whether scales and minima are whole multiples of one each of a `SUPER_BLOCK`.
    """
    width = values.shape[1]
    if width % size:
        size = BLOCK if width % BLOCK == 0 else width
    step, most = torch.empty_like(values), max(2 ** (bits - 1) - 1, 1)
    for rows in row_blocks(values):
        magnitude = values[rows].abs()
        found = at_least(magnitude / 8, magnitude, size, most)
        if in_super_blocks:
            found = at_least(found, magnitude, SUPER_BLOCK, LARGEST_MULTIPLE)
        step[rows] = found
    return step


def at_least(step: Tensor, magnitude: Tensor, size: int, most: int) -> Tensor:
    """Steps, or the largest magnitude of each group of `size` over `most`. Both are [rows, in]."""
    largest = magnitude.unflatten(1, (-1, size)).amax(-1, keepdim=True) / most
    return torch.maximum(step.unflatten(1, (-1, size)), largest).flatten(1)


# ---------------------------------------------------------------------------------- GGUF files


def open_gguf(
    directory: Path, quantization: dict[str, Any], config: Any, trust_remote_code: bool
) -> Checkpoint:
    """What is where in a directory whose weights are a GGUF file; as `build_gguf_model` reads it.

    Raises UserError unless the file holds what the directory's config.json says.
    """
    file = read_model(gguf_file(directory, quantization))
    check_keys(file, config)
    names = file.hugging_face_names()
    fit_vocabulary(file, names, config)
    model = empty_model(config, trust_remote_code)
    before = LANGUAGE if getattr(config, "vision_config", None) is not None else ""
    asked = {f"{before}{name}": stored for stored, name in names.items()}
    beside = stored_tensors(directory)
    own, _, converted = found_names(model, [*asked, *beside], file.path)
    refuse_converted(model, converted, file.path)
    text = config.get_text_config()
    heads = (text.num_attention_heads, text.num_key_value_heads)
    packed: dict[str, Callable[[], Linear]] = {}
    plain: dict[str, Callable[[], Tensor]] = {}
    tables: dict[str, Table] = {}
    for name, stored in asked.items():
        if name not in own:
            continue
        tensor, layer = file.tensors[stored], own[name].removesuffix(".weight")
        if tensor.type in FLOAT_TYPES:
            plain[own[name]] = partial(read_gguf, file, tensor, heads)
        else:
            packed[layer] = partial(read_gguf_linear, file, tensor, heads)
        if len(tensor.shape) > 1:
            bits = None if tensor.type in FLOAT_TYPES else bits_of_type(tensor.type)
            read = partial(read_gguf, file, tensor, heads)
            tables[own[name]] = Table(tensor.shape[0], read, bits)
    seeing = {own[name]: each for name, each in beside.items() if name in own}
    plain |= {name: partial(read_plain, each) for name, each in seeing.items()}
    tables |= {name: plain_table(each) for name, each in seeing.items() if len(each.shape) > 1}
    types = sorted({file.tensors[each].type for each in asked.values()} - set(FLOAT_TYPES))
    about = f"gguf, {', '.join(types)}, {len(packed)} quantized tensors"
    return Checkpoint(directory, model, quantization, about, packed, plain, tables)


def read_gguf(
    file: GGUFModel, tensor: GGUFTensor, heads: tuple[int, int], rows: slice = ALL
) -> Tensor:
    return torch.from_numpy(hugging_face_values(file, tensor, *heads, rows))


def read_gguf_linear(file: GGUFModel, tensor: GGUFTensor, heads: tuple[int, int]) -> Linear:
    """A quantized tensor of a GGUF file."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    values = read_gguf(file, tensor, heads)
    count, _ = GGML_QUANT_SIZES[GGMLQuantizationType[tensor.type]]
    bits = bits_of_type(tensor.type)
    return Linear(values, step_of_values(values, BLOCK, bits, count == SUPER_BLOCK), bits)


def bits_of_type(name: str) -> int:
    """Of a weight in one of llama.cpp's types, without what scales take: 5 for Q5_1."""
    found = re.search(r"\d", name)
    return min(int(found[0]), 8) if found else 4
