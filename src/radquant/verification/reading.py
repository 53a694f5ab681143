"""The weights of a checkpoint one by one, by the names of the model's own modules.

No model is built in memory: a layer is read when it is asked for, and then forgotten.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from radquant.checkpoints.building import check_packed, packed_layers, read_settings, zero_biases
from radquant.checkpoints.finite_weights import load_finite
from radquant.checkpoints.fitting import (
    check_tied,
    empty_model,
    found_names,
    open_config,
    refuse_converted,
)
from radquant.checkpoints.writing import verify
from radquant.errors import UserError
from radquant.finite import first_not_finite, is_finite
from radquant.model_checks import check_model
from radquant.model_files import StoredTensor
from radquant.packed.formats import Settings, check_tensors, unpack
from radquant.packed.grid import QuantizedWeight, StoredValues
from radquant.settings.recipe import INT, WHOLE_ROW

BLOCK = 32  # neighbouring weights that share a scale where nothing else is known


@dataclass(frozen=True)
class Linear:
    """A quantized linear layer as it was stored."""

    weight: Tensor  # [out, in] float32
    step: Tensor  # [out, in] float32: about how far neighbouring values of its grid are apart
    bits: int


@dataclass(frozen=True)
class Checkpoint:
    """A quantized checkpoint: its empty model, and where its tensors lie by the model's names."""

    directory: Path
    model: nn.Module
    config: Any  # of transformers, without what it says of quantization
    quantization: dict[str, Any]
    settings: Settings
    packed: dict[str, dict[str, StoredTensor]]  # {linear layer: {suffix: tensor}}
    plain: dict[str, StoredTensor]  # {parameter: tensor}

    @cached_property
    def names(self) -> set[str]:
        return {*self.plain, *(f"{layer}.weight" for layer in self.packed)}

    def tensor(self, name: str) -> Tensor:
        """A parameter that is not packed, float32; UserError if it is not finite."""
        return load_finite(self.plain[name]).float()

    def linear(self, name: str) -> Linear:
        """A packed linear layer; UserError if its tensors do not fit it or are not finite."""
        module, settings = self.model.get_submodule(name), self.settings_of(name)
        assert isinstance(module, nn.Linear)
        stored = self.packed[name]
        try:
            tensors = {suffix: tensor.load() for suffix, tensor in stored.items()}
            check_tensors(tensors, settings, module.in_features, module.out_features)
            tensors.pop("bias", None)
            weight = unpack(tensors, settings)
            values = weight.dequantize().float()
        except UserError as error:
            raise UserError(f"{self.directory}: layer {name} cannot be read: {error}") from None
        if not is_finite(values):
            raise UserError(
                f"{self.directory}: layer {name} holds {first_not_finite(values)} once it is "
                "unpacked; fetch the checkpoint again"
            )
        return Linear(values, step_of(weight, values, settings), settings.bits)

    def settings_of(self, name: str) -> Settings:
        stored = next(iter(self.packed[name].values())).key.rpartition(".")[0]
        settings = self.settings.of(stored)
        assert settings is not None
        return settings


def step_of(weight: QuantizedWeight | StoredValues, values: Tensor, settings: Settings) -> Tensor:
    """How far neighbouring values are apart, [out, in] float32; about, where it depends on them.

    values: [out, in], what `weight` stands for.
    """
    if isinstance(weight, QuantizedWeight) and weight.type == INT:
        ones = weight.zeros.long().add(1)[:, group_of_columns(weight, values.shape[1])]
        one_more = QuantizedWeight(
            ones, weight.scales, weight.zeros, weight.group_index, weight.channel_scales
        )
        return one_more.dequantize().float().abs()
    width = values.shape[1]
    size = settings.group_size if settings.group_size != WHOLE_ROW else width
    if width % size:
        size = BLOCK if width % BLOCK == 0 else width
    largest = values.abs().unflatten(1, (-1, size)).amax(-1) / (2 ** (settings.bits - 1) - 1)
    return largest.repeat_interleave(size, 1)


def group_of_columns(weight: QuantizedWeight, width: int) -> Tensor:
    """The group of each input channel, [in] int64."""
    if weight.group_index is not None:
        return weight.group_index.long()
    groups = weight.scales.shape[1]
    return torch.arange(groups).repeat_interleave(width // groups)


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
    settings = read_settings(directory, quantization)
    del config.quantization_config
    model = empty_model(config, trust_remote_code)
    packed = packed_layers(stored, settings)
    plain = stored.keys() - {name for layer in packed.values() for name in layer.values()}
    check_packed(packed, plain, settings, directory)
    asked = [*plain, *(f"{layer}.weight" for layer in packed)]
    names, doubles, converted = found_names(model, asked, directory, zero_biases(packed, stored))
    refuse_converted(model, converted, directory)
    check_tied(model, stored, names, doubles)
    return Checkpoint(
        directory,
        model,
        config,
        quantization,
        settings,
        {
            names[f"{layer}.weight"].removesuffix(".weight"): {
                suffix: stored[name] for suffix, name in suffixes.items()
            }
            for layer, suffixes in packed.items()
            if f"{layer}.weight" in names
        },
        {names[name]: stored[name] for name in plain if name in names},
    )
