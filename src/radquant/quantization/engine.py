"""Quantize a model one decoder layer at a time.

The calibration tokens pass through the original model's layers in turn. A layer's inputs give the
Gram matrices, its outputs feed the next layer, and only then is it scaled, checked and rounded: all
layers are calibrated on the original model's activations, as AWQ does, in a single pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from radquant.cli import progress
from radquant.errors import UserError
from radquant.files import read_json, read_table
from radquant.quantization.architectures import (
    Architecture,
    architecture_of,
    decoder_layers,
    layer_linears,
)
from radquant.quantization.awq import InputStatistics, output_error, scale_group, search_clip
from radquant.quantization.checkpoint import verify
from radquant.quantization.grid import Recipe, quantize
from radquant.quantization.packing import pack, unpack

CHECKED_SEQUENCES = 8
# Largest relative change of a layer's output through folding; layers are held in float32.
INVARIANCE_BOUND = 1e-4
GROUP_SIZES = (32, 64, 128)


@dataclass
class Quantization:
    """What `quantize_model` leaves: the tensors to store and the record of how they came about."""

    tensors: dict[str, Tensor]
    layers: list[dict[str, Any]] = field(default_factory=list)
    largest_change: float = 0.0  # of any layer's output by folding, before rounding


@dataclass
class LayerInputs:
    """The hidden states of every calibration sequence, and each one's other arguments."""

    hidden: list[Tensor]  # [1, tokens, channels] float32
    arguments: list[dict[str, Any]]


class _Captured(Exception):
    pass


def read_calibration(path: Path) -> list[Tensor]:
    """The token ids of every calibration sample, each [tokens] int64."""
    samples = read_table(path, require=["input_ids"])["input_ids"]
    if not len(samples) or any(len(ids) == 0 for ids in samples):
        raise UserError(f"{path} holds no samples or an empty one; make the calibration set again")
    return [torch.tensor(ids, dtype=torch.int64) for ids in samples]


def load_original(directory: Path, trust_remote_code: bool = False) -> nn.Module:
    """The model to quantize, on the CPU, in the dtype that it is stored in."""
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # it would fill the logs
    if not (directory / "config.json").is_file():
        raise UserError(f"{directory} has no config.json; it is not a model directory")
    if "quantization_config" in read_json(directory / "config.json"):
        raise UserError(f"{directory} is quantized already; give the original model")
    verify(directory)
    model: nn.Module = AutoModelForCausalLM.from_pretrained(
        directory, dtype="auto", use_safetensors=True, trust_remote_code=trust_remote_code
    )
    return model.eval().requires_grad_(False)


def check_recipe(model: nn.Module, architecture: Architecture, recipe: Recipe) -> int:
    """The number of linear layers to quantize; raises UserError if the recipe does not fit."""
    linears = [
        (f"{architecture.decoder_layers}.{index}.{name}", linear)
        for index, layer in enumerate(decoder_layers(model, architecture))
        for name, linear in layer_linears(layer, architecture).items()
    ]
    if not linears:
        raise UserError("the model has no linear layers to quantize")
    for name, linear in linears:
        if linear.in_features % recipe.group_size:
            widths = {each.in_features for _, each in linears}
            fitting = [g for g in GROUP_SIZES if all(width % g == 0 for width in widths)]
            raise UserError(
                f"group size {recipe.group_size} does not divide the {linear.in_features} inputs "
                f"of {name}; sizes that divide every layer: {fitting or 'none'}"
            )
        if linear.out_features % (32 // recipe.bits):
            raise UserError(
                f"{name} has {linear.out_features} outputs, which do not fill whole 32-bit words "
                f"at {recipe.bits} bits; this model cannot be packed"
            )
    return len(linears)


def as_float32(value: Any, device: torch.device) -> Any:
    """Move tensors inside `value` to `device`, floating ones to float32."""
    if isinstance(value, Tensor):
        return value.to(device, torch.float32 if value.is_floating_point() else value.dtype)
    if isinstance(value, tuple):
        return tuple(as_float32(each, device) for each in value)
    return value


@torch.inference_mode()
def first_layer_inputs(
    model: nn.Module, layer: nn.Module, sequences: Sequence[Tensor], device: torch.device
) -> LayerInputs:
    """What the first decoder layer gets for each calibration sequence, [tokens] int64."""
    inputs = LayerInputs([], [])

    def capture(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = args[0] if args else kwargs.pop("hidden_states")
        inputs.hidden.append(as_float32(hidden, device))
        inputs.arguments.append({name: as_float32(v, device) for name, v in kwargs.items()})
        raise _Captured

    handle = layer.register_forward_pre_hook(capture, with_kwargs=True)
    try:
        for sequence in sequences:
            try:
                model(input_ids=sequence[None], use_cache=False)
            except _Captured:
                continue
    finally:
        handle.remove()
    return inputs


def run_layer(layer: nn.Module, hidden: Tensor, arguments: dict[str, Any]) -> Tensor:
    output = layer(hidden, **arguments)
    return output[0] if isinstance(output, tuple) else output


def collect_statistics(
    layer: nn.Module, architecture: Architecture, inputs: LayerInputs, device: torch.device
) -> tuple[list[InputStatistics], list[Tensor]]:
    """Run every sequence through `layer`: the statistics of each group's input, and the outputs."""
    statistics, handles = [], []
    for group in architecture.groups:
        linear = layer.get_submodule(group.linears[0])
        assert isinstance(linear, nn.Linear)
        of_group = InputStatistics.empty(linear.in_features, device)
        statistics.append(of_group)
        handles.append(linear.register_forward_pre_hook(lambda _, args, s=of_group: s.add(args[0])))
    try:
        outputs = [
            run_layer(layer, hidden, arguments)
            for hidden, arguments in zip(inputs.hidden, inputs.arguments, strict=True)
        ]
    finally:
        for handle in handles:
            handle.remove()
    return statistics, outputs


def change_by_folding(layer: nn.Module, inputs: LayerInputs, outputs: list[Tensor]) -> float:
    """The largest relative difference between `layer`'s outputs now and `outputs`."""
    return max(
        float((run_layer(layer, hidden, arguments) - output).norm() / output.norm())
        for hidden, arguments, output in list(
            zip(inputs.hidden, inputs.arguments, outputs, strict=True)
        )[:CHECKED_SEQUENCES]
    )


def awq_layer(
    layer: nn.Module,
    name: str,
    architecture: Architecture,
    recipe: Recipe,
    inputs: LayerInputs,
    head_dim: int,
    storage: torch.dtype,
    device: torch.device,
) -> tuple[dict[str, Tensor], dict[str, Tensor], float, list[Tensor]]:
    """Scale one layer in place and search its clipping.

    Returns the kept range and the Gram matrix of each linear by name, the change by folding, and
    the original layer's outputs.
    """
    statistics, outputs = collect_statistics(layer, architecture, inputs, device)
    for group, of_group in zip(architecture.groups, statistics, strict=True):
        scale_group(layer, group, of_group, recipe, head_dim, storage)
    change = change_by_folding(layer, inputs, outputs)
    if not change <= INVARIANCE_BOUND:
        raise UserError(
            f"folding AWQ's scales changed the output of {name} by {change:.2g} relative to it "
            f"(at most {INVARIANCE_BOUND:g} is rounding); the table for this architecture is wrong"
        )
    keep, grams = {}, {}
    for group, of_group in zip(architecture.groups, statistics, strict=True):
        for linear_name in group.linears:
            grams[linear_name] = of_group.gram
            if linear_name in group.clip:
                weight = layer.get_parameter(f"{linear_name}.weight")
                keep[linear_name] = search_clip(weight, of_group.gram, recipe)
    return keep, grams, change, outputs


def pack_layer(
    layer: nn.Module,
    name: str,
    architecture: Architecture,
    recipe: Recipe,
    keep: dict[str, Tensor],
    grams: dict[str, Tensor],
    result: Quantization,
) -> None:
    """Round and pack one layer's linears into `result`, checking that unpacking gives them back."""
    for linear_name, linear in layer_linears(layer, architecture).items():
        full_name = f"{name}.{linear_name}"
        weight = linear.weight.float()
        quantized = quantize(weight, recipe, keep.get(linear_name))
        packed = {key: value.cpu() for key, value in pack(quantized, recipe.bits).items()}
        evaluated = quantized.dequantize()
        if not torch.equal(unpack(packed, recipe.bits).dequantize(), evaluated.cpu()):
            raise UserError(f"unpacking {full_name} does not give the quantized weights back")
        gram = grams.get(linear_name)
        delta = evaluated - weight
        record: dict[str, Any] = {
            "name": full_name,
            "in_features": linear.in_features,
            "out_features": linear.out_features,
            "weight_error": float(delta.norm() / weight.norm()),
        }
        if gram is not None:
            squared = output_error(delta, gram) / max(output_error(weight, gram), 1e-30)
            record["output_error"] = max(squared, 0.0) ** 0.5
        result.layers.append(record)
        result.tensors |= {f"{full_name}.{key}": value for key, value in packed.items()}


@torch.inference_mode()
def quantize_model(
    model: nn.Module,
    recipe: Recipe,
    sequences: Sequence[Tensor] | None,
    device: torch.device,
) -> Quantization:
    """Quantize every linear layer of `model`'s decoder layers; the model is used up.

    model: a Hugging Face causal language model on the CPU, in the dtype it is stored in.
    sequences: calibration token ids, each [tokens] int64; None for method "rtn".
    """
    config: Any = model.config
    architecture = architecture_of(config.model_type)
    expected = check_recipe(model, architecture, recipe)
    layers = decoder_layers(model, architecture)
    storage = next(layers.parameters()).dtype
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    result = Quantization({})
    inputs = LayerInputs([], [])
    if recipe.method == "awq":
        if not sequences:
            raise UserError("AWQ needs calibration samples; give --calibration a samples.parquet")
        inputs = first_layer_inputs(model, layers[0], sequences, device)
    numbers = progress(range(len(layers)), f"quantize {recipe.method}", len(layers), "layers")
    for number in numbers:
        name = f"{architecture.decoder_layers}.{number}"
        layer = layers[number].to(device, torch.float32)
        keep: dict[str, Tensor] = {}
        grams: dict[str, Tensor] = {}
        if recipe.method == "awq":
            keep, grams, change, outputs = awq_layer(
                layer, name, architecture, recipe, inputs, head_dim, storage, device
            )
            inputs.hidden = outputs
            result.largest_change = max(result.largest_change, change)
        pack_layer(layer, name, architecture, recipe, keep, grams, result)
        for linear_name in layer_linears(layer, architecture):
            parent, _, child = linear_name.rpartition(".")
            setattr(layer.get_submodule(parent), child, nn.Identity())
        layer.to("cpu", storage)
    if len(result.layers) != expected:
        raise UserError(f"{len(result.layers)} linear layers were quantized, {expected} expected")
    return result
