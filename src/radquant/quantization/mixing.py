"""Which layers get how many bits, so that a size is kept and the model's output moves least.

A first pass rounds each layer to every number of bits, and in groups of every size, that it can
get, as the recipe says. It measures how much that moves the output (`sensitivity`). The moves of
different layers add up, to second order; so bits go where one more saves the most divergence, until
the size is reached. Layers that serving engines fuse (queries, keys and values; gate and up) get
the same.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from radquant.cli import progress
from radquant.families.architectures import Group
from radquant.families.inspection import decoder_layers, head_dim_of, layer_linears, of_layer
from radquant.files import read_json, write_json
from radquant.finite import require_finite
from radquant.packed.formats import StoredFormat, settings_for
from radquant.packed.formats.kind import WORD
from radquant.quantization import sensitivity
from radquant.quantization.awq import group_scale
from radquant.quantization.calibration_statistics import (
    Inputs,
    InputStatistics,
    collect_statistics,
)
from radquant.quantization.hidden_states import Hidden, embed
from radquant.quantization.original_model import Original
from radquant.quantization.rounding import naming, round_group
from radquant.quantization.samples import Sample
from radquant.settings.recipe import Recipe, candidates, mixture, with_bits

CHOSEN = "bits.json"
SCALE = 16  # bits of one that is stored
# The layers that serving engines fuse, by the names of their last part.
FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
SEARCHED_BITS = 4  # of more, plain rounding loses a three hundredth of what 4 bits do


@dataclass(frozen=True)
class Unit:
    """Linear layers that get the same recipe, and what each of the candidates makes of them."""

    layers: tuple[str, ...]  # their names
    sizes: tuple[int, ...]  # bits that they are stored in
    moved: tuple[float, ...]  # nats a token that rounding them moves the model by


def choose(
    open_source: Callable[[], Original],
    recipe: Recipe,
    form: StoredFormat,
    samples: Sequence[Sample],
    work: Path,
    device: torch.device,
) -> dict[str, Recipe]:
    """The recipe of every linear layer, by its name; work: where what was measured is kept."""
    mixed, able = mixture(recipe), candidates(recipe, form.BITS)
    assert mixed is not None
    if not (work / CHOSEN).is_file():
        source = open_source()
        sizes = [
            (linear.in_features, linear.out_features)
            for layer in decoder_layers(source.model, source.architecture)
            for linear in layer_linears(layer, source.architecture).values()
        ]
        least, a_bit = room(sizes, recipe, form)
        units = measure(open_source, able, form, samples, work, device)
        chosen = allocate(units, least + (mixed.average - able[0].bits) * a_bit)
        places = {name: chosen[n] for n, unit in enumerate(units) for name in unit.layers}
        write_json(work / CHOSEN, places)
    for name in ("state", "gradient", "measured"):
        for file in (*work.glob(f"{name}-*"), *work.glob(f".{name}-*")):
            file.unlink()
    return {name: able[place] for name, place in read_json(work / CHOSEN).items()}


def stored_bits(size: tuple[int, int], recipe: Recipe, form: StoredFormat) -> int:
    """What a linear layer of (inputs, outputs) takes in a format, in bits, its bias apart."""
    tensors = form.layer_tensors(settings_for(recipe, form), *size).values()
    return sum(
        math.prod(each.shape or ()) * (SCALE if each.floating else WORD)
        for each in tensors
        if not each.optional and each.values is None and each.shape is not None
    )


def room(sizes: Sequence[tuple[int, int]], recipe: Recipe, form: StoredFormat) -> tuple[int, float]:
    """What linear layers of these sizes take with the fewest bits in groups of the recipe's size.

    Beside it stands what one bit more of every weight takes.
    """
    able = candidates(recipe, form.BITS)
    fewest, most = able[0], able[-1]
    least = sum(stored_bits(size, fewest, form) for size in sizes)
    largest = sum(stored_bits(size, most, form) for size in sizes)
    return least, (largest - least) / (most.bits - fewest.bits)


def allocate(units: Sequence[Unit], largest: float) -> list[int]:
    """The candidate of each unit: all in `largest` bits, and the least divergence for it.

    Each unit begins with the smallest. Steps to larger ones are taken in the order of what they
    save for a bit that is stored, the largest first. Of a unit's steps only those on the lower
    convex hull of its divergences are worth one. What is left at the end goes to the steps that
    still fit.
    """
    chosen = [min(range(len(unit.sizes)), key=unit.sizes.__getitem__) for unit in units]
    left = largest - sum(unit.sizes[each] for each, unit in zip(chosen, units, strict=True))
    steps = [
        step for place, unit in enumerate(units) for step in steps_of(place, unit, chosen[place])
    ]
    for _, place, before, after in sorted(steps, key=lambda step: (-step[0], step[1:])):
        cost = units[place].sizes[after] - units[place].sizes[before]
        if chosen[place] == before and cost <= left:
            chosen[place], left = after, left - cost
    return chosen


def steps_of(place: int, unit: Unit, first: int) -> Iterable[tuple[float, int, int, int]]:
    """(what a stored bit saves, the unit's place, candidate before, candidate after), the largest
    saving first."""
    now, sizes, moved = first, unit.sizes, unit.moved
    while True:
        saved = [
            ((moved[now] - moved[larger]) / (sizes[larger] - sizes[now]), larger)
            for larger in range(len(sizes))
            if sizes[larger] > sizes[now]
        ]
        most, larger = max(saved, default=(0.0, now))
        if most <= 0:
            return
        yield most, place, now, larger
        now = larger


def measure(
    open_source: Callable[[], Original],
    able: Sequence[Recipe],
    form: StoredFormat,
    samples: Sequence[Sample],
    work: Path,
    device: torch.device,
) -> list[Unit]:
    """What each of the candidates `able` makes of every unit; goes on where it was."""
    found = sensitivity.look(open_source, samples, work, device)
    source = open_source()
    architecture, head_dim = source.architecture, head_dim_of(source.config)
    count = len(decoder_layers(source.model, architecture))
    lengths, width = tuple(map(len, samples)), source.config.get_text_config().hidden_size
    states = [Hidden(work / f"measured-{n:04d}.f32", lengths, width) for n in range(count + 1)]
    records = [work / f"measured-{number:04d}.json" for number in range(count)]
    done = next((n for n, file in enumerate(records) if not file.is_file()), count)
    arguments = embed(source, samples, states[0], device)
    for number in progress(range(done, count), "weigh layers", count - done, "layers"):
        layer = sensitivity.filled(source, number, device)
        name = f"{architecture.decoder_layers}.{number}"
        seen = sensitivity.see(layer, architecture, number, found, arguments, device)
        given, weights = [each[number] for each in arguments], [each.weights for each in samples]
        inputs = Inputs(states[number], given, 0, device, weights)
        moved: dict[str, list[float]] = {}
        table = of_layer(layer, architecture)
        with torch.inference_mode():
            statistics = collect_statistics(layer, table, inputs, states[number + 1], keep=False)
            for group, of_group in zip(table.groups, statistics, strict=True):
                require_finite(f"{name}.{group.linears[0]}", *of_group.sums())
                for recipe in able:
                    errors = rounding_errors(layer, name, group, of_group, recipe, head_dim)
                    for linear, delta in errors.items():
                        divergence = seen[linear].divergence(delta) / found.tokens
                        moved.setdefault(linear, []).append(divergence)
        units = units_of(name, layer_linears(layer, architecture), moved, able, form)
        write_json(records[number], units)
        states[number].remove()
        sensitivity.free(source, number)
    return [
        Unit(tuple(each["layers"]), tuple(each["sizes"]), tuple(each["moved"]))
        for file in records
        for each in read_json(file)
    ]


def units_of(
    layer: str,
    linears: Mapping[str, nn.Linear],
    moved: Mapping[str, Sequence[float]],
    able: Sequence[Recipe],
    form: StoredFormat,
) -> list[dict[str, Any]]:
    """The units of one decoder layer, as JSON. moved: by each of the candidates, of each linear
    layer, by its name inside."""
    units: dict[str, list[str]] = {}
    for name in linears:
        parent, _, last = name.rpartition(".")
        fused = next((names[0] for names in FUSED if last in names), last)
        units.setdefault(f"{parent}.{fused}", []).append(name)
    sizes = {name: (each.in_features, each.out_features) for name, each in linears.items()}
    return [
        {
            "layers": [f"{layer}.{name}" for name in names],
            "sizes": [sum(stored_bits(sizes[n], each, form) for n in names) for each in able],
            "moved": [sum(moved[n][place] for n in names) for place in range(len(able))],
        }
        for names in units.values()
    ]


def rounding_errors(
    layer: nn.Module,
    name: str,
    group: Group,
    statistics: InputStatistics,
    recipe: Recipe,
    head_dim: int,
) -> dict[str, Tensor]:
    """The weight errors, [out, in] float32, that `recipe` leaves in the linear layers of a group.

    Keys are their names inside decoder layer `name`, which stays as it is.
    """
    weights = {each: layer.get_parameter(f"{each}.weight") for each in group.linears}
    gram: Tensor | None = statistics.gram
    scale = torch.ones(len(statistics.gram), device=statistics.gram.device)
    if recipe.bits > SEARCHED_BITS:
        recipe = recipe.model_copy(update={"method": "rtn", "rounding": "nearest"})
    if recipe.method == "awq" and group.source is not None:
        with naming(" or ".join(f"{name}.{each}" for each in group.linears)):
            of_source, channels = group_scale(layer, group, statistics, recipe, head_dim)
        scale = of_source[channels]
        gram = statistics.gram / scale[:, None] / scale
    if recipe.method == "rtn":
        gram = None
    scaled = {each: weight * scale for each, weight in weights.items()}
    return {
        each: rounded.dequantize() / scale - weights[each]
        for each, rounded in round_group(scaled, name, gram, recipe)
    }


def told(layers: Sequence[Mapping[str, Any]], recipe: Recipe, form: StoredFormat) -> dict[str, Any]:
    """What the record says of a mixture.

    That is the average that its size comes to, and how many layers have how many bits. It is also
    the bits that a weight is stored in, scales and zero points included.

    layers: the records of the linear layers.
    """
    sizes = [(each["in_features"], each["out_features"]) for each in layers]
    stored = sum(
        stored_bits(size, with_bits(recipe, each["bits"], each["group_size"]), form)
        for size, each in zip(sizes, layers, strict=True)
    )
    least, a_bit = room(sizes, recipe, form)
    kinds = sorted({each["bits"] for each in layers})
    return {
        "average": candidates(recipe, form.BITS)[0].bits + (stored - least) / a_bit,
        "stored": stored / sum(math.prod(size) for size in sizes),
        "layers": {str(bits): sum(each["bits"] == bits for each in layers) for bits in kinds},
    }
