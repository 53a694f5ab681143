"""Which layers get how many bits, so that a size is kept and the model's output moves least.

A first pass through the layers rounds each to every number of bits that it can get, as the recipe
says, and measures what that moves (`sensitivity`). The moves of different layers add up, to second
order; so bits go where the most divergence is saved for a bit of a weight, until the average is
reached. Layers that serving engines fuse (queries, keys and values; gate and up) get the same bits.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from radquant.cli import progress
from radquant.families.architectures import Group
from radquant.families.inspection import decoder_layers, head_dim_of, layer_linears
from radquant.files import read_json, write_json
from radquant.finite import require_finite
from radquant.packed.formats import StoredFormat
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
from radquant.settings.recipe import Recipe, mixture, widths, with_bits

CHOSEN = "bits.json"
# The layers that serving engines fuse, by the names of their last part.
FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
SEARCHED_BITS = 4  # of more, plain rounding loses a three hundredth of what 4 bits do


@dataclass(frozen=True)
class Unit:
    """Linear layers that get the same bits."""

    layers: tuple[str, ...]  # their names
    weights: int  # how many they have together
    moved: Mapping[int, float]  # nats a token that rounding to so many bits moves the model by


def choose(
    open_source: Callable[[], Original],
    recipe: Recipe,
    form: StoredFormat,
    sequences: Sequence[Tensor],
    work: Path,
    device: torch.device,
) -> dict[str, int]:
    """The bits of every linear layer, by its name; work: where what was measured is kept."""
    mixed = mixture(recipe)
    assert mixed is not None
    if not (work / CHOSEN).is_file():
        units = measure(open_source, recipe, widths(recipe, form.BITS), sequences, work, device)
        chosen = allocate(units, mixed.average)
        bits = {layer: chosen[place] for place, unit in enumerate(units) for layer in unit.layers}
        write_json(work / CHOSEN, bits)
    for name in ("state", "gradient", "measured"):
        for file in (*work.glob(f"{name}-*"), *work.glob(f".{name}-*")):
            file.unlink()
    return dict(read_json(work / CHOSEN))


def allocate(units: Sequence[Unit], average: float) -> list[int]:
    """The bits of each unit: at most `average` for a weight, and the least divergence for it.

    Each unit begins with the fewest bits. Steps to more are taken in the order of what they save
    for a bit of a weight, the largest first; of a unit's steps only those on the lower convex hull
    of its divergences are worth one. What is left at the end goes to the steps that still fit.
    """
    chosen = [min(unit.moved) for unit in units]
    left = average * sum(unit.weights for unit in units)
    left -= sum(bits * unit.weights for bits, unit in zip(chosen, units, strict=True))
    steps = [step for place, unit in enumerate(units) for step in steps_of(place, unit)]
    for _, place, before, after in sorted(steps, key=lambda step: (-step[0], step[1:])):
        cost = (after - before) * units[place].weights
        if chosen[place] == before and cost <= left:
            chosen[place], left = after, left - cost
    return chosen


def steps_of(place: int, unit: Unit) -> Iterable[tuple[float, int, int, int]]:
    """(what a bit of a weight saves, the unit's place, bits before, bits after), steepest first."""
    bits = min(unit.moved)
    while True:
        saved = [
            ((unit.moved[bits] - unit.moved[more]) / ((more - bits) * unit.weights), more)
            for more in unit.moved
            if more > bits
        ]
        most, more = max(saved, default=(0.0, bits))
        if most <= 0:
            return
        yield most, place, bits, more
        bits = more


def measure(
    open_source: Callable[[], Original],
    recipe: Recipe,
    able: Sequence[int],
    sequences: Sequence[Tensor],
    work: Path,
    device: torch.device,
) -> list[Unit]:
    """What rounding every unit to each of the bits in `able` moves; goes on where it was."""
    found = sensitivity.look(open_source, sequences, work, device)
    source = open_source()
    layers = decoder_layers(source.model, source.architecture)
    width, count = source.config.get_text_config().hidden_size, len(layers)
    head_dim = head_dim_of(source.config)
    lengths = tuple(map(len, sequences))
    states = [Hidden(work / f"measured-{n:04d}.f32", lengths, width) for n in range(count + 1)]
    records = [work / f"measured-{number:04d}.json" for number in range(count)]
    done = next((n for n, file in enumerate(records) if not file.is_file()), count)
    arguments = embed(source, sequences, states[0], device)
    for number in progress(range(done, count), "weigh layers", count - done, "layers"):
        layer = sensitivity.filled(source, number, device)
        name = f"{source.architecture.decoder_layers}.{number}"
        seen = sensitivity.see(layer, source.architecture, number, found, arguments, device)
        inputs = Inputs(states[number], [arguments[n][number] for n in lengths], 0, device)
        with torch.inference_mode():
            statistics = collect_statistics(
                layer, source.architecture, inputs, states[number + 1], keep=False
            )
            moved: dict[str, dict[int, float]] = {}
            for group, of_group in zip(source.architecture.groups, statistics, strict=True):
                require_finite(f"{name}.{group.linears[0]}", *of_group.sums())
                for bits in able:
                    own = with_bits(recipe, bits)
                    errors = rounding_errors(layer, name, group, of_group, own, head_dim)
                    for linear, delta in errors.items():
                        divergence = seen[linear].divergence(delta) / found.tokens
                        moved.setdefault(linear, {})[bits] = divergence
        write_json(
            records[number], units_of(name, layer_linears(layer, source.architecture), moved)
        )
        states[number].remove()
        sensitivity.free(source, number)
    return [
        Unit(tuple(each["layers"]), each["weights"], {int(b): m for b, m in each["moved"].items()})
        for file in records
        for each in read_json(file)
    ]


def units_of(
    layer: str, linears: Mapping[str, nn.Linear], moved: Mapping[str, Mapping[int, float]]
) -> list[dict[str, Any]]:
    """The units of one decoder layer, as JSON. moved: of each linear layer, by its name inside."""
    units: dict[str, list[str]] = {}
    for name in linears:
        parent, _, last = name.rpartition(".")
        fused = next((names[0] for names in FUSED if last in names), last)
        units.setdefault(f"{parent}.{fused}", []).append(name)
    return [
        {
            "layers": [f"{layer}.{name}" for name in names],
            "weights": sum(linears[name].weight.numel() for name in names),
            "moved": {bits: sum(moved[name][bits] for name in names) for bits in moved[names[0]]},
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
    """The weight errors, [out, in] float32, that `recipe` leaves in the linear layers of a group,
    by their names inside decoder layer `name`, which stays as it is."""
    weights = {each: layer.get_parameter(f"{each}.weight") for each in group.linears}
    gram: Tensor | None = statistics.gram
    scale = torch.ones(statistics.gram.shape[0], device=statistics.gram.device)
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


def told(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the record says of a mixture: the average that came of it, and how many layers and what
    share of the weights have how many bits.

    layers: the records of the linear layers.
    """
    weights: dict[int, int] = {}
    for each in layers:
        size = each["in_features"] * each["out_features"]
        weights[each["bits"]] = weights.get(each["bits"], 0) + size
    total = sum(weights.values())
    return {
        "average": sum(bits * size for bits, size in weights.items()) / total,
        "share": {str(bits): size / total for bits, size in sorted(weights.items())},
        "layers": {str(b): sum(each["bits"] == b for each in layers) for b in sorted(weights)},
    }
