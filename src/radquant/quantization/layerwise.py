"""Quantize a model one decoder layer at a time, from the files it is stored in.

The calibration tokens pass through the original model's layers in turn. A layer's inputs give the
Gram matrices, its outputs feed the next layer, and only then is it scaled, checked and rounded. So
all layers are calibrated on the original model's activations, as AWQ does, in a single pass. Only
one layer is in memory. Hidden states and finished layers are files in a working directory, from
which a run that was killed goes on.
"""

import sys
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from radquant.checkpoints.streaming import fill
from radquant.cli import progress
from radquant.errors import UserError
from radquant.families.architectures import Architecture, K
from radquant.families.inspection import (
    decoder_layers,
    head_dim_of,
    layer_linears,
    not_converted,
    of_layer,
)
from radquant.files import atomic_path, read_json
from radquant.finite import is_finite, largest_of, relative_change, require_finite
from radquant.model_files import StoredTensor, read_header
from radquant.packed.formats import StoredFormat
from radquant.quantization import resuming, smoothing
from radquant.quantization.awq import scale_group
from radquant.quantization.calibration_statistics import (
    Inputs,
    InputStatistics,
    RoundedStatistics,
    collect_rounded,
    collect_statistics,
    place_of_broken,
    static_ranges,
)
from radquant.quantization.hidden_states import Hidden, LayerArguments, embed, run_layer
from radquant.quantization.invariance import (
    change_by_folding,
    check_change,
    checked_sequences,
    refuse_broken,
    rotation_change,
)
from radquant.quantization.original_model import Original, check_recipe
from radquant.quantization.rotated_embeddings import rotated_outside
from radquant.quantization.rotation import (
    Rotation,
    plan_rotation,
    rotate_layer,
    rotate_residual,
    rotated_architecture,
)
from radquant.quantization.rounding import naming, round_layer
from radquant.quantization.samples import Sample, read_samples
from radquant.runtime import runtime_file
from radquant.settings.precision import FP8, NVFP4
from radquant.settings.recipe import HADAMARD, SMOOTH, Recipe, needs_calibration, uses_gptq_rounding

STATIC_SCALES = {FP8: "input_scale", NVFP4: "input_global_scale"}
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass
class Quantization:
    """What `quantize_model` leaves: where every tensor lies, and how it came about."""

    tensors: dict[str, StoredTensor]  # by the names that go into the checkpoint
    not_converted: list[str]  # modules outside of the decoder layers
    runtime: dict[str, StoredTensor] = field(default_factory=dict)  # for radquant.runtime
    config: dict[str, Any] = field(default_factory=dict)  # what changes in the original's config
    online: tuple[str, ...] | None = None  # layers whose input is rotated; None: not rotated at all
    layers: list[dict[str, Any]] = field(default_factory=list)
    largest_change: float = 0.0  # of any layer's output by folding, before rounding


def count(samples: Sequence[Sample]) -> dict[str, int]:
    """How many calibration samples, tokens and images were used."""
    images = sum(len(sample.images) for sample in samples)
    found = {"samples": len(samples), "tokens": sum(map(len, samples))}
    return {**found, "images": images} if images else found


def check_calibration(
    recipe: Recipe, path: Path | None, features: Path | None = None
) -> list[Sample] | None:
    """The samples at `path` if `recipe` needs any. features: the folder of images' features."""
    if not needs_calibration(recipe):
        return None
    if path is None:
        raise UserError(
            f"method {recipe.method} needs --calibration; scripts/calibration_set.py makes one"
        )
    return read_samples(path, features)


@dataclass(frozen=True)
class Work:
    """What every layer is quantized with."""

    source: Original  # with the table of the rotated model, if it is rotated
    table: Architecture  # of the original
    recipe: Recipe
    form: StoredFormat
    rotation: Rotation | None
    prefix: int  # tokens at the start of each calibration sequence that are the stored prefix
    device: torch.device
    recipes: Mapping[str, Recipe] | None = None  # of each linear layer, where they differ
    # What each token of each calibration sequence counts for, as in `Inputs`.
    weights: Sequence[Tensor | None] = ()

    def layer_name(self, number: int) -> str:
        return f"{self.source.architecture.decoder_layers}.{number}"

    def recipe_of(self, linear: str) -> Recipe:
        """The recipe of a linear layer, by its whole name."""
        return self.recipes[linear] if self.recipes else self.recipe


@torch.inference_mode()
def quantize_layer(
    work: Work, number: int, states: Sequence[Hidden], arguments: LayerArguments
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    """Quantize decoder layer `number`: its tensors by stored names, those for run time, its record.

    states: the hidden states before the layer, and where those after it go; empty without
    calibration.
    """
    source = work.source
    name = work.layer_name(number)
    layer = decoder_layers(source.model, source.architecture)[number]
    architecture = of_layer(layer, source.architecture)
    places = source.layer_tensors(number)
    fill(layer, {own: source.stored[stored] for own, stored in places.items()}, work.device)
    layer.to(work.device)
    fitted, rough = Fitted(), False
    if states:
        inputs, outputs = states
        given = [each[number] for each in arguments]
        seen = Inputs(inputs, given, work.prefix, work.device, work.weights)
        storage = narrowest(source.stored[stored].dtype for stored in places.values())
        linears = [places[f"{linear}.weight"] for linear in layer_linears(layer, architecture)]
        rough = may_be_rough(work.recipe, {source.stored[linear].dtype for linear in linears})
        fitted = fit_layer(work, layer, number, seen, outputs, storage, rough)
    tensors, records = round_layer(
        layer,
        name,
        architecture,
        work.recipe,
        work.form,
        fitted.statistics,
        fitted.rounded_inputs,
        work.recipes,
        rough,
    )
    named = {}
    for own, tensor in (tensors | fitted.beside).items():
        linear_name, _, suffix = own.rpartition(".")
        named[f"{places[f'{linear_name}.weight'].removesuffix('weight')}{suffix}"] = tensor
    weights = {f"{linear}.weight" for linear in layer_linears(layer, architecture)}
    state = layer.state_dict()
    for own, stored in places.items():
        if own not in weights:
            kept = DTYPES.get(source.stored[stored].dtype, state[own].dtype)
            named[stored] = state[own].to("cpu", kept).contiguous()
            if not is_finite(named[stored]):
                raise UserError(
                    f"{name}.{own} is too large for {str(kept).removeprefix('torch.')} once it is "
                    "transformed; save the model in bfloat16 or float32 first"
                )
    decoder_layers(source.model, source.architecture)[number] = nn.Identity()  # frees its memory
    return named, fitted.runtime, {"layers": records, "change": fitted.change}


def may_be_rough(recipe: Recipe, stored: Collection[str]) -> bool:
    """Whether AWQ may look at a layer by `rounded_products`. stored: dtypes of its linear weights.

    Weights of 16 bits lose little by it, beside what 4 or 8 bits leave. Rounded activations are
    told by the difference of nearly equal sums, and GPTQ makes up for each error: these are of
    float32.
    """
    exact = recipe.method != "awq" or uses_gptq_rounding(recipe) or recipe.activations is not None
    return not exact and set(stored) <= {"BF16", "F16"}


@dataclass
class Fitted:
    """What calibration made of one layer."""

    statistics: list[InputStatistics] = field(default_factory=list)
    rounded_inputs: list[RoundedStatistics | None] = field(default_factory=list)
    runtime: dict[str, Tensor] = field(default_factory=dict)  # ranges and prefix, to be stored
    # Scales of inputs that the weights' format itself has a place for, by names inside the layer.
    beside: dict[str, Tensor] = field(default_factory=dict)
    change: float = 0.0  # of the layer's output, before anything is rounded


def fit_layer(
    work: Work,
    layer: nn.Module,
    number: int,
    inputs: Inputs,
    outputs: Hidden,
    storage: torch.dtype,
    rough: bool,
) -> Fitted:
    """Transform and scale a layer in place, and look at its inputs as they then are.

    rough: whether `rounded_products` do, but for the sequences by which folding is checked.
    """
    recipe, name = work.recipe, work.layer_name(number)
    architecture = of_layer(layer, work.source.architecture)
    fitted = Fitted()
    if work.rotation is not None:
        original = deepcopy(layer)
        rotate_layer(layer, work.table, work.rotation)
        fitted.change = rotation_change(original, layer, inputs, work.rotation)
        refuse_broken(fitted.change, original, work.table, inputs, name)
        check_change(fitted.change, name, "rotating the layer")
        del original
    if recipe.smooth_attention:
        change = divide_keys(work, layer, number, inputs)
        refuse_broken(change, layer, architecture, inputs, name)
        check_change(change, name, "dividing the keys", "leave smooth_attention out")
        fitted.change = max(fitted.change, change)
    exact = checked_sequences(inputs) if rough else None
    fitted.statistics = collect_statistics(
        layer, architecture, inputs, outputs, recipe.activations is not None, exact
    )
    for group, of_group in zip(architecture.groups, fitted.statistics, strict=True):
        first = group.linears[0]
        where = partial(place_of_broken, layer, first, inputs)
        require_finite(f"{name}.{first}", *of_group.sums(), where=where)
    if recipe.method == "awq" or recipe.transform == SMOOTH:
        head_dim = head_dim_of(work.source.config)
        for group, of_group in zip(architecture.groups, fitted.statistics, strict=True):
            with naming(" or ".join(f"{name}.{each}" for each in group.linears)):
                own = work.recipe_of(f"{name}.{group.linears[0]}")
                scale_group(layer, group, of_group, own, head_dim, storage, rough)
        change = change_by_folding(layer, inputs, outputs)
        refuse_broken(change, layer, architecture, inputs, name)
        check_change(change, name, "folding scales")
        fitted.change = max(fitted.change, change)
    if recipe.activations is not None:
        ranges = static_ranges(architecture, fitted.statistics, recipe.activations)
        for group, grid in zip(architecture.groups, ranges, strict=True):
            for linear in group.linears if grid is not None else ():
                assert grid is not None
                if (place := STATIC_SCALES.get(recipe.activations.type)) is not None:
                    fitted.beside[f"{linear}.{place}"] = grid.scale.cpu().clone()
                else:
                    fitted.runtime |= runtime_file.grid_tensors(f"{name}.{linear}", grid)
        if recipe.method != "rtn":
            fitted.rounded_inputs = collect_rounded(
                layer, architecture, inputs, recipe.activations, ranges
            )
            for group, rounded in zip(architecture.groups, fitted.rounded_inputs, strict=True):
                if rounded is not None:
                    require_finite(f"{name}.{group.linears[0]}", *rounded.sums())
    if work.prefix:
        fitted.runtime |= prefix_states(work, layer, number, inputs)
    return fitted


def divide_keys(work: Work, layer: nn.Module, number: int, inputs: Inputs) -> float:
    """SmoothAttention, by the largest keys of the calibration tokens.

    Returns the largest relative change of the layer's outputs. It is not small where rotary
    embeddings turn other pairs of channels than Llama's (a part of them, neighbours).
    """
    head_dim = head_dim_of(work.source.config)
    maker = smoothing.key_maker(layer)
    largest = torch.zeros(maker.out_features, device=work.device)

    def observe(_: Any, args: Any, keys: Tensor) -> None:
        keys = keys[:, inputs.prefix :]
        if keys.shape[1]:
            lengths = smoothing.pair_lengths(keys, head_dim)
            largest.copy_(torch.maximum(largest, lengths))

    handle = maker.register_forward_hook(observe)
    outputs = []
    for index in range(len(inputs.arguments)):
        output = inputs.run(layer, index)
        if index < checked_sequences(inputs):
            outputs.append(output)
    handle.remove()
    require_finite(f"{work.layer_name(number)}.{K}", largest)
    smoothing.divide_keys(layer, smoothing.key_scale(largest, head_dim), head_dim)
    return largest_of(
        relative_change(inputs.run(layer, index), output) for index, output in enumerate(outputs)
    )


def prefix_states(work: Work, layer: nn.Module, number: int, inputs: Inputs) -> dict[str, Tensor]:
    """The keys and values that a layer makes of the prefix, which is the first sequence."""
    from transformers import DynamicCache

    cache = DynamicCache(config=work.source.config.get_text_config())
    arguments = {**inputs.arguments[0], "past_key_values": cache}
    run_layer(layer, inputs.hidden.read(0, inputs.device), arguments)
    found = cache.layers[number]
    if getattr(found, "keys", None) is None or found.keys.shape[2] != work.prefix:
        raise UserError(
            f"{work.layer_name(number)} does not keep keys and values in the usual way; "
            "leave prefix out"
        )
    require_finite(f"{work.layer_name(number)}.self_attn", found.keys, found.values)
    return runtime_file.prefix_tensors(
        number, found.keys.float().cpu().contiguous(), found.values.float().cpu().contiguous()
    )


def narrowest(dtypes: Any) -> torch.dtype:
    """The floating dtype with the fewest bits among safetensors' names of dtypes."""
    floating = [DTYPES[name] for name in dtypes if name in DTYPES]
    return min(floating, key=lambda dtype: (dtype.itemsize, dtype == torch.bfloat16))


def quantize_model(
    source: Original,
    work: Path,
    recipe: Recipe,
    form: StoredFormat,
    samples: Sequence[Sample] | None,
    device: torch.device,
    prefix: Sequence[int] = (),
    recipes: Mapping[str, Recipe] | None = None,
) -> Quantization:
    """Quantize every linear layer of the decoder layers; `source` is used up.

    work: directory of finished layers and of what the next one needs (see resuming.prepare).
    samples: of calibration; None where none are needed. prefix: tokens whose keys and values are
    stored; each sample begins with them, and the first sample is no more than them. recipes: of
    each linear layer by its name, where they differ.
    """
    expected = check_recipe(source.model, source.architecture, recipe)
    layers = decoder_layers(source.model, source.architecture)
    outside = not_converted(source.model, source.architecture)
    table, rotation = source.architecture, None
    if recipe.transform == HADAMARD:
        head_dim = head_dim_of(source.config)
        rotation = plan_rotation(table, source.config, head_dim)
        source = replace(source, architecture=rotated_architecture(table, rotation))
    weights = [sample.weights for sample in samples or ()]
    job = Work(source, table, recipe, form, rotation, len(prefix), device, recipes, weights)
    first = resuming.finished_layers(work)
    arguments: LayerArguments = []
    states: list[Hidden] = []
    if needs_calibration(recipe):
        assert samples is not None
        if all(len(sample) <= len(prefix) for sample in samples):
            raise UserError(
                "no calibration sample is longer than the prefix, so nothing would be calibrated; "
                "make the calibration set of longer texts"
            )
        lengths, width = tuple(map(len, samples)), source.config.get_text_config().hidden_size
        files = [work / resuming.hidden_name(number) for number in range(len(layers) + 1)]
        states = [Hidden(file, lengths, width) for file in files]
        enter = None if rotation is None else partial(rotate_residual, rotation=rotation)
        arguments = embed(source, samples, states[0], device, enter)
    if first:
        print(f"going on after {first} finished layers", file=sys.stderr, flush=True)
    numbers = range(first, len(layers))
    for number in progress(numbers, f"quantize {recipe.method}", len(numbers), "layers"):
        tensors, extra, record = quantize_layer(job, number, states[number : number + 2], arguments)
        resuming.finish_layer(work, number, tensors, extra, record)
    return collect(job, work, len(layers), expected, outside, prefix)


def collect(
    job: Work,
    work: Path,
    layers: int,
    expected: int,
    outside: list[str],
    prefix: Sequence[int],
) -> Quantization:
    """Put together what the finished layers left and what was never touched."""
    source = job.source
    inside = f"{source.architecture.decoder_layers}."
    tensors = {
        stored: source.stored[stored]
        for stored, own in source.own_names.items()
        if not own.startswith(inside)
    }
    result = Quantization(tensors, outside)
    if job.rotation is not None:
        changed, result.config = rotated_outside(source, job.rotation, work)
        result.tensors |= changed
        result.online = job.rotation.online
    for number in range(layers):
        # Results are read from the files alone. So a run that went on after a stop gives the same
        # as one that never stopped.
        record = read_json(work / resuming.record_name(number))
        result.layers += record["layers"]
        result.largest_change = max(result.largest_change, record["change"])
        result.tensors |= read_header(work / resuming.tensors_name(number))
        extra = work / resuming.runtime_name(number)
        if extra.is_file():
            result.runtime |= read_header(extra)
    if prefix:
        ids = work / "prefix.safetensors"
        with atomic_path(ids) as part:
            save_file({runtime_file.PREFIX_IDS: torch.tensor(prefix)}, part)
        result.runtime |= read_header(ids)
    if len(result.layers) != expected:
        raise UserError(f"{len(result.layers)} linear layers were quantized, {expected} expected")
    return result
