"""Packing and activation quantization against closed forms, on layers small enough to read by hand.

Every integer, zero and scale of a test layer is a formula of its place, and scales are powers of
two. Packed words are read bit by bit in plain Python from the formats' definitions, by each
format's `plain_values`. So nothing here shares code with what it checks, and every comparison is
exact.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from radquant.packed.formats import StoredFormat, all_formats, in_memory, settings_for, unpack
from radquant.packed.grid import QuantizedWeight, quantize
from radquant.packed.in_memory import packed_layer
from radquant.runtime.activations import quantize_activations
from radquant.settings.precision import TENSOR, Activations
from radquant.settings.recipe import INT, Recipe, in_order_of_activation

SHAPES = ((64, 64), (32, 96), (96, 32))  # [out, in]
GROUP_SIZE = 32


@dataclass(frozen=True)
class Check:
    """Something measured, and the most that it may be."""

    name: str
    measured: float
    bound: float

    @property
    def holds(self) -> bool:
        return self.measured <= self.bound  # not so for NaN


def integer_at(out: int, channel: int, bits: int) -> int:
    return int((7 * out + 3 * channel + out * channel) % 2**bits)


def zero_at(out: int, group: int, recipe: Recipe) -> int:
    levels = 2**recipe.bits
    return (5 * out + group) % levels if recipe.zero_point else levels // 2


def scale_at(out: int, group: int, recipe: Recipe) -> float:
    place = (out + 2 * group) % 5
    return place + 1 if recipe.progressive else 2.0**-place


def channel_scale_at(out: int) -> float:
    return 2.0 ** -(out % 3)


def group_at(channel: int, groups: int, recipe: Recipe) -> int:
    return channel % groups if recipe.desc_act else channel // GROUP_SIZE


def table(rows: int, columns: int, value: Callable[[int, int], float]) -> list[list[float]]:
    return [[value(row, column) for column in range(columns)] for row in range(rows)]


def layer_of(shape: tuple[int, int], recipe: Recipe) -> QuantizedWeight:
    """The layer that the formulas describe."""
    out, channels = shape
    groups = channels // GROUP_SIZE
    index = torch.tensor([group_at(c, groups, recipe) for c in range(channels)])
    scales = torch.tensor(table(out, groups, lambda o, g: scale_at(o, g, recipe)))
    channel = torch.tensor([channel_scale_at(o) for o in range(out)], dtype=torch.float16)
    return QuantizedWeight(
        torch.tensor(table(*shape, lambda o, c: integer_at(o, c, recipe.bits)), dtype=torch.uint8),
        scales.to(torch.uint8 if recipe.progressive else torch.float16),
        torch.tensor(table(out, groups, lambda o, g: zero_at(o, g, recipe)), dtype=torch.uint8),
        index.to(torch.int32) if recipe.desc_act else None,
        channel if recipe.progressive else None,
    )


def weight_at(out: int, channel: int, groups: int, recipe: Recipe) -> float:
    group = group_at(channel, groups, recipe)
    offset = integer_at(out, channel, recipe.bits) - zero_at(out, group, recipe)
    scale = scale_at(out, group, recipe) * (channel_scale_at(out) if recipe.progressive else 1)
    return offset * scale


def recipes_of(form: StoredFormat) -> Iterator[Recipe]:
    """What the format can hold of all integers that are to be tried."""
    if INT not in form.TYPES:
        return
    grids = [(bits, zero_point) for bits in form.BITS for zero_point in (True, False)]
    recipes = [
        *(
            Recipe(method="rtn", bits=bits, group_size=GROUP_SIZE, zero_point=zero_point)
            for bits, zero_point in grids
        ),
        Recipe(method="rtn", bits=4, group_size=GROUP_SIZE, progressive=True),
        Recipe(method="gptq", bits=4, group_size=GROUP_SIZE, rounding="gptq", desc_act=True),
    ]
    for recipe in recipes:
        fits = recipe.bits in form.BITS and recipe.type in form.TYPES
        if fits and form.problem(recipe) is None:
            yield recipe


def packing_checks() -> Iterator[Check]:
    """How many values differ from the closed form, for every format, recipe and shape."""
    for form in all_formats():
        for recipe in recipes_of(form):
            grid = "asymmetric" if recipe.zero_point else "symmetric"
            order = ", in order of activation" if in_order_of_activation(recipe) else ""
            for shape in SHAPES:
                label = f"{shape[0]}x{shape[1]}: {form.NAME} {recipe.bits} bits {grid}{order}"
                yield Check(label, different_values(form, recipe, shape), 0)


def different_values(form: StoredFormat, recipe: Recipe, shape: tuple[int, int]) -> int:
    """Values that packing, unpacking or multiplying get wrong in one test layer."""
    (out, channels), groups = shape, shape[1] // GROUP_SIZE
    packed = form.pack(layer_of(shape, recipe), recipe)
    settings = settings_for(recipe, form)
    integers = table(*shape, lambda o, c: integer_at(o, c, recipe.bits))
    zeros = table(out, groups, lambda o, g: zero_at(o, g, recipe))
    weights = torch.tensor(table(*shape, lambda o, c: weight_at(o, c, groups, recipe)))
    layer = packed_layer(in_memory(packed, settings), settings, channels, out)
    x = torch.tensor(table(3, channels, lambda t, c: float((t + 5 * c) % 7 - 3)))
    read_integers, read_zeros = form.plain_values(packed, recipe)
    return int(
        (torch.tensor(read_integers) != torch.tensor(integers)).sum()
        + (torch.tensor(read_zeros) != torch.tensor(zeros)).sum()
        + (unpack(packed, settings).dequantize() != weights).sum()
        + (weights != layer.dequantize().T).sum()
        # Sums of a few small multiples of powers of two are exact in float32.
        + (layer(x) != (x.double() @ weights.double().T)).sum()
    )


def rounding_checks() -> Iterator[Check]:
    """Weights on a grid's points stay as they are; others move by half a step at most."""
    for zero_point in (True, False):
        for bits in (2, 3, 4, 8):
            recipe = Recipe(method="rtn", bits=bits, group_size=GROUP_SIZE, zero_point=zero_point)
            lowest = 0 if zero_point else 1  # a symmetric grid about 0 has one point less
            steps = torch.arange(lowest, 2**bits) - 2 ** (bits - 1)
            weight = steps.repeat(-(-4 * GROUP_SIZE // len(steps)))[: 4 * GROUP_SIZE] / 16
            if len(steps) > GROUP_SIZE:  # every group needs both ends of the range
                weight[::GROUP_SIZE], weight[1::GROUP_SIZE] = steps[0] / 16, steps[-1] / 16
            error = quantize(weight[None], recipe).dequantize()[0] - weight
            grid = "asymmetric" if zero_point else "symmetric"
            yield Check(f"on its grid: rounding {bits} bits {grid}", float(error.abs().max()), 0)


def activation_checks() -> Iterator[Check]:
    """Quantized activations against their definition."""
    for bits in (4, 8):
        settings = Activations(bits=bits, granularity=TENSOR)
        largest = 2 ** (bits - 1) - 1
        for shape in ((2, 16, 16), (3, 5, 48)):
            count = shape[0] * shape[1] * shape[2]
            steps = (torch.arange(count) * 5 % (2 * largest + 1) - largest).view(shape).float()
            steps[:, 0, 0] = largest  # every sequence reaches the end of its grid
            scale = torch.tensor([2.0**-n for n in range(shape[0])])[:, None, None]
            size, label = "x".join(map(str, shape)), f"{bits}-bit activations"
            error = quantize_activations(steps * scale, settings) - steps * scale
            yield Check(f"{size}: {label}, on the grid", float(error.abs().max()), 0)
            between = steps * scale + 0.25 * scale * (steps < largest) * (steps > -largest)
            error = (quantize_activations(between, settings) - steps * scale).abs()
            yield Check(f"{size}: {label}, a quarter step off it", float(error.max()), 0)
            real = torch.ones(shape[:2], dtype=torch.bool)
            real[:, -1] = False
            padded = torch.cat([(steps * scale)[:, :-1], torch.full_like(steps[:, :1], 9e9)], 1)
            error = (quantize_activations(padded, settings, real) - steps * scale)[:, :-1]
            yield Check(f"{size}: {label}, beside padding", float(error.abs().max()), 0)


def synthetic_checks() -> list[Check]:
    """All of them."""
    return [*packing_checks(), *rounding_checks(), *activation_checks()]
