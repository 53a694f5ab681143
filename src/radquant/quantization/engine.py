"""Quantize a model one decoder layer at a time, from the files it is stored in.

The calibration tokens pass through the original model's layers in turn. A layer's inputs give the
Gram matrices, its outputs feed the next layer, and only then is it scaled, checked and rounded: all
layers are calibrated on the original model's activations, as AWQ does, in a single pass. Only one
layer is in memory; hidden states and finished layers are files in a working directory, from which a
run that was killed goes on.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from radquant.cli import progress
from radquant.errors import UserError
from radquant.files import read_json, read_table
from radquant.quantization import resuming
from radquant.quantization.architectures import (
    Architecture,
    decoder_layers,
    head_dim_of,
    layer_linears,
    not_converted,
)
from radquant.quantization.awq import (
    InputStatistics,
    output_error,
    rows_for_loss,
    scale_group,
    search_clip,
)
from radquant.quantization.formats import Format, settings_of, unpack
from radquant.quantization.gptq import quantize_gptq
from radquant.quantization.grid import QuantizedWeight, quantize
from radquant.quantization.hidden import Hidden, LayerArguments, append, first_inputs, run_layer
from radquant.quantization.original import Original, check_recipe
from radquant.quantization.recipe import (
    Recipe,
    needs_calibration,
    uses_gptq_rounding,
)
from radquant.quantization.streaming import (
    StoredTensor,
    fill,
    read_header,
)

CHECKED_SEQUENCES = 8
# Largest relative change of a layer's output through folding; layers are held in float32.
INVARIANCE_BOUND = 1e-4
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass
class Quantization:
    """What `quantize_model` leaves: where every tensor lies, and how it came about."""

    tensors: dict[str, StoredTensor]  # by the names that go into the checkpoint
    not_converted: list[str]  # modules outside of the decoder layers
    layers: list[dict[str, Any]] = field(default_factory=list)
    largest_change: float = 0.0  # of any layer's output by folding, before rounding


def read_calibration(path: Path) -> list[Tensor]:
    """The token ids of every calibration sample, each [tokens] int64."""
    samples = read_table(path, require=["input_ids"])["input_ids"]
    if not len(samples) or any(len(ids) == 0 for ids in samples):
        raise UserError(f"{path} holds no samples or an empty one; make the calibration set again")
    return [torch.tensor(ids, dtype=torch.int64) for ids in samples]


def count(samples: Sequence[Tensor]) -> dict[str, int]:
    """How many calibration samples and tokens were used."""
    return {"samples": len(samples), "tokens": sum(map(len, samples))}


def check_calibration(recipe: Recipe, path: Path | None) -> list[Tensor] | None:
    """The samples at `path` if `recipe` needs any."""
    if not needs_calibration(recipe):
        return None
    if path is None:
        raise UserError(
            f"method {recipe.method} needs --calibration; scripts/calibration_set.py makes one"
        )
    return read_calibration(path)


def collect_statistics(
    layer: nn.Module,
    architecture: Architecture,
    inputs: Hidden,
    arguments: list[dict[str, Any]],
    outputs: Hidden,
    device: torch.device,
) -> list[InputStatistics]:
    """Run every sequence through `layer`: the statistics of each group's input, outputs to disk.

    arguments: the layer's keyword arguments for each sequence.
    """
    statistics, handles = [], []
    for group in architecture.groups:
        linear = layer.get_submodule(group.linears[0])
        assert isinstance(linear, nn.Linear)
        of_group = InputStatistics.empty(linear.in_features, device)
        statistics.append(of_group)
        handles.append(linear.register_forward_pre_hook(lambda _, args, s=of_group: s.add(args[0])))
    try:
        with outputs.writing() as file:
            for hidden, named in zip(inputs.read_all(device), arguments, strict=True):
                append(file, run_layer(layer, hidden, named))
    finally:
        for handle in handles:
            handle.remove()
    return statistics


def change_by_folding(
    layer: nn.Module,
    inputs: Hidden,
    arguments: list[dict[str, Any]],
    outputs: Hidden,
    device: torch.device,
) -> float:
    """The largest relative difference between `layer`'s outputs now and `outputs`."""
    changes = []
    for index in range(min(CHECKED_SEQUENCES, len(arguments))):
        output = outputs.read(index, device)
        now = run_layer(layer, inputs.read(index, device), arguments[index])
        changes.append(float((now - output).norm() / output.norm()))
    return max(changes)


def round_layer(
    layer: nn.Module,
    name: str,
    architecture: Architecture,
    recipe: Recipe,
    form: Format,
    statistics: Sequence[InputStatistics],
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Round and pack one layer's linears, checking that unpacking gives them back.

    Returns the tensors by the names inside the layer, and a record of each linear.
    """
    tensors: dict[str, Tensor] = {}
    records = []
    settings = settings_of(form.config(recipe, []))
    for place, group in enumerate(architecture.groups):
        gram = statistics[place].gram if statistics else None
        weights = {each: layer.get_parameter(f"{each}.weight") for each in group.linears}
        for linear_name, rounded in round_group(weights, name, gram, recipe):
            weight, full_name = weights[linear_name], f"{name}.{linear_name}"
            packed = form.pack(rounded, recipe)
            packed = {key: value.cpu().contiguous() for key, value in packed.items()}
            evaluated = rounded.dequantize()
            if not torch.equal(unpack(packed, settings).dequantize(), evaluated.cpu()):
                raise UserError(f"unpacking {full_name} does not give the quantized weights back")
            records.append(linear_record(full_name, weight, evaluated, gram))
            tensors |= {f"{linear_name}.{key}": value for key, value in packed.items()}
    return tensors, records


@contextmanager
def naming(linear: str) -> Iterator[None]:
    """Put the name of a linear layer before what a UserError says."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{linear}: {error}") from None


def round_group(
    weights: Mapping[str, Tensor], layer: str, gram: Tensor | None, recipe: Recipe
) -> Iterator[tuple[str, QuantizedWeight]]:
    """Round the linear layers that share an input, [out, in] float32 each, by name.

    layer: their decoder layer, for messages.
    """

    def kept(weight: Tensor) -> Tensor | None:
        if gram is None or not recipe.clip or recipe.desc_act:  # whose groups are not known yet
            return None
        return search_clip(weight, gram, recipe)

    if gram is None or not uses_gptq_rounding(recipe):
        for name, weight in weights.items():
            yield name, quantize(weight, recipe, kept(weight))
        return
    # Together: they have the same factor, and rows are rounded each by itself.
    joined = torch.cat(list(weights.values()))
    with naming(f"{layer}.{next(iter(weights))}"):
        rounded = quantize_gptq(joined, gram, recipe, kept(joined))
    start = 0
    for name, weight in weights.items():
        rows = slice(start, start + len(weight))
        # Copies: a tensor that goes into a file may not be a part of another.
        yield (
            name,
            QuantizedWeight(
                rounded.integers[rows],
                rounded.scales[rows].clone(),
                rounded.zeros[rows].clone(),
                rounded.group_index.clone() if rounded.group_index is not None else None,
                rounded.channel_scales[rows].clone()
                if rounded.channel_scales is not None
                else None,
            ),
        )
        start = rows.stop


def linear_record(
    name: str, weight: Tensor, evaluated: Tensor, gram: Tensor | None
) -> dict[str, Any]:
    """What quantization.json says of one linear layer; its output error is that of a large layer's
    sampled rows, relative to theirs."""
    delta = evaluated - weight
    record: dict[str, Any] = {
        "name": name,
        "in_features": weight.shape[1],
        "out_features": weight.shape[0],
        "weight_error": float(delta.norm() / weight.norm()),
    }
    if gram is not None:
        whole = max(output_error(rows_for_loss(weight)[0], gram), 1e-30)
        error = output_error(rows_for_loss(delta)[0], gram)
        record["output_error"] = max(error / whole, 0.0) ** 0.5
    return record


@torch.inference_mode()
def quantize_layer(
    source: Original,
    number: int,
    recipe: Recipe,
    form: Format,
    states: Sequence[Hidden],
    arguments: LayerArguments,
    device: torch.device,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Quantize decoder layer `number`: its tensors by stored names, and its record.

    states: the hidden states before the layer, and where those after it go; empty for "rtn".
    """
    architecture = source.architecture
    name = f"{architecture.decoder_layers}.{number}"
    layer = decoder_layers(source.model, architecture)[number]
    places = source.layer_tensors(number)
    fill(layer, {own: source.stored[stored] for own, stored in places.items()}, device)
    layer.to(device)
    statistics: list[InputStatistics] = []
    change = 0.0
    if states:
        inputs, outputs = states
        of_layer = [arguments[length][number] for length in inputs.lengths]
        statistics = collect_statistics(layer, architecture, inputs, of_layer, outputs, device)
        if recipe.method == "awq":
            storage = narrowest(source.stored[stored].dtype for stored in places.values())
            for group, of_group in zip(architecture.groups, statistics, strict=True):
                with naming(f"{name}.{group.linears[0]}"):
                    scale_group(layer, group, of_group, recipe, head_dim_of(source.config), storage)
            change = change_by_folding(layer, inputs, of_layer, outputs, device)
        if not change <= INVARIANCE_BOUND:
            raise UserError(
                f"folding AWQ's scales changed the output of {name} by {change:.2g} relative to it "
                f"(at most {INVARIANCE_BOUND:g} is rounding); the table for this architecture is "
                "wrong"
            )
    tensors, records = round_layer(layer, name, architecture, recipe, form, statistics)
    named = {}
    for own, tensor in tensors.items():
        linear_name, _, suffix = own.rpartition(".")
        named[f"{places[f'{linear_name}.weight'].removesuffix('weight')}{suffix}"] = tensor
    weights = {f"{linear}.weight" for linear in layer_linears(layer, architecture)}
    state = layer.state_dict()
    for own, stored in places.items():
        if own not in weights:
            kept = DTYPES.get(source.stored[stored].dtype, state[own].dtype)
            named[stored] = state[own].to("cpu", kept).contiguous()
    decoder_layers(source.model, architecture)[number] = nn.Identity()  # frees its memory
    return named, {"layers": records, "change": change}


def narrowest(dtypes: Any) -> torch.dtype:
    """The floating dtype with the fewest bits among safetensors' names of dtypes."""
    floating = [DTYPES[name] for name in dtypes if name in DTYPES]
    return min(floating, key=lambda dtype: (dtype.itemsize, dtype == torch.bfloat16))


def quantize_model(
    source: Original,
    work: Path,
    recipe: Recipe,
    form: Format,
    sequences: Sequence[Tensor] | None,
    device: torch.device,
) -> Quantization:
    """Quantize every linear layer of the decoder layers; `source` is used up.

    work: directory of finished layers and of what the next one needs (see resuming.prepare).
    sequences: calibration token ids, each [tokens] int64; None for method "rtn".
    """
    architecture = source.architecture
    expected = check_recipe(source.model, architecture, recipe)
    layers = decoder_layers(source.model, architecture)
    outside = not_converted(source.model, architecture)
    first = resuming.finished_layers(work)
    arguments: LayerArguments = {}
    states: list[Hidden] = []
    if needs_calibration(recipe):
        assert sequences is not None
        lengths, width = tuple(map(len, sequences)), source.config.get_text_config().hidden_size
        files = [work / resuming.hidden_name(number) for number in range(len(layers) + 1)]
        states = [Hidden(file, lengths, width) for file in files]
        arguments = calibration_inputs(source, layers, sequences, states[0], device)
    if first:
        print(f"going on after {first} finished layers", file=sys.stderr, flush=True)
    numbers = range(first, len(layers))
    for number in progress(numbers, f"quantize {recipe.method}", len(numbers), "layers"):
        tensors, record = quantize_layer(
            source, number, recipe, form, states[number : number + 2], arguments, device
        )
        resuming.finish_layer(work, number, tensors, record)
    return collect(source, work, len(layers), expected, outside)


def calibration_inputs(
    source: Original,
    layers: nn.ModuleList,
    sequences: Sequence[Tensor],
    hidden: Hidden,
    device: torch.device,
) -> LayerArguments:
    """Write the first decoder layer's inputs and return all layers' other arguments.

    The embedding may be large: it keeps the dtype it is stored in.
    """
    parent = source.architecture.decoder_layers.rpartition(".")[0]
    decoder = source.model.get_submodule(parent)
    inside = f"{source.architecture.decoder_layers}."
    outside = {
        own.removeprefix(f"{parent}."): source.stored[stored]
        for stored, own in source.own_names.items()
        if own.startswith(f"{parent}.") and not own.startswith(inside)
    }
    embedding = decoder.get_input_embeddings()  # type: ignore[operator]
    fill(decoder, outside, torch.device("cpu"), keep=embedding)
    arguments = first_inputs(decoder, layers, sequences, hidden, device)
    for module in decoder.children():
        if module is not layers:
            module.to("meta")
    return arguments


def collect(
    source: Original, work: Path, layers: int, expected: int, outside: list[str]
) -> Quantization:
    """Put together what the finished layers left and what was never touched."""
    inside = f"{source.architecture.decoder_layers}."
    tensors = {
        stored: source.stored[stored]
        for stored, own in source.own_names.items()
        if not own.startswith(inside)
    }
    result = Quantization(tensors, outside)
    for number in range(layers):
        # Of the files alone, so that a run that went on and one that never stopped are the same.
        record = read_json(work / resuming.record_name(number))
        result.layers += record["layers"]
        result.largest_change = max(result.largest_change, record["change"])
        result.tensors |= read_header(work / resuming.tensors_name(number))
    if len(result.layers) != expected:
        raise UserError(f"{len(result.layers)} linear layers were quantized, {expected} expected")
    return result
