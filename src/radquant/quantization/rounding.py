"""Rounding and packing the linear layers of one decoder layer, and what is recorded of them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from radquant.errors import UserError
from radquant.families.architectures import Architecture
from radquant.finite import OVERFLOWING, norm, relative
from radquant.packed.formats import StoredFormat, settings_for, unpack
from radquant.packed.gguf_blocks import recipe_for_width
from radquant.packed.grid import (
    QuantizedWeight,
    StoredValues,
    by_group,
    quantize,
    require_fine_enough,
    shared_by_rows,
)
from radquant.quantization.awq import output_error, rows_for_loss
from radquant.quantization.calibration_statistics import (
    InputStatistics,
    RoundedStatistics,
    best_weights,
    rounded_error,
)
from radquant.quantization.clipping import search_clip
from radquant.quantization.gptq import quantize_gptq
from radquant.quantization.onednn import rounded_products
from radquant.settings.precision import INT
from radquant.settings.recipe import Recipe, uses_gptq_rounding

COMPARED_ROWS = 1024


@contextmanager
def naming(linear: str) -> Iterator[None]:
    """Put the name of a linear layer before what a UserError says."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{linear}: {error}") from None


def round_layer(
    layer: nn.Module,
    name: str,
    architecture: Architecture,
    recipe: Recipe,
    form: StoredFormat,
    statistics: Sequence[InputStatistics],
    rounded_inputs: Sequence[RoundedStatistics | None],
    recipes: Mapping[str, Recipe] | None = None,
    rough: bool = False,
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Round and pack one layer's linears, checking that unpacking gives them back.

    Their weights and statistics are freed, each group's behind it.

    statistics: of each group's input; empty without calibration. rounded_inputs: of those that are
    rounded; empty if none is, or if the method does not look at them. recipes: of each linear
    layer, by its whole name, where they differ; the layers of a group have the same. rough: whether
    ranges are searched with `rounded_products`.
    Returns the tensors by the names inside the layer, and a record of each linear.
    """
    tensors: dict[str, Tensor] = {}
    records = []
    for place, group in enumerate(architecture.groups):
        if recipes:
            recipe = recipes[f"{name}.{group.linears[0]}"]
        settings = settings_for(recipe, form)
        exact = statistics[place].gram if statistics else None
        inputs = rounded_inputs[place] if rounded_inputs else None
        gram = None if recipe.method == "rtn" else exact
        weights: dict[str, Tensor] = {
            each: layer.get_parameter(f"{each}.weight") for each in group.linears
        }
        aims = weights
        if inputs is not None:
            gram = inputs.gram
            with naming(f"{name}.{group.linears[0]}"):
                aims = {
                    each: best_weights(weight, inputs, recipe.damp_percent)
                    for each, weight in weights.items()
                }
        width = next(iter(weights.values())).shape[1]
        own = recipe_for_width(recipe, width)
        for linear_name, rounded in round_group(aims, name, gram, own, rough):
            weight, full_name = weights[linear_name], f"{name}.{linear_name}"
            packed = form.pack(rounded, own)
            packed = {key: value.cpu().contiguous() for key, value in packed.items()}
            evaluated = rounded.dequantize()
            with naming(full_name):
                require_fine_enough(weight, evaluated, own)
            if not stands_for(unpack(packed, settings), evaluated):
                raise UserError(f"unpacking {full_name} does not give the quantized weights back")
            record = linear_record(full_name, weight, evaluated, exact, inputs)
            if recipes:
                record |= {"bits": recipe.bits, "group_size": recipe.group_size}
            records.append(record)
            tensors |= {f"{linear_name}.{key}": value for key, value in packed.items()}
            del rounded, packed, evaluated, weight
        # Most of the memory is the last group's, and no longer needs that of those before.
        del weights, aims, gram, exact, inputs
        for linear_name in group.linears:
            layer.get_parameter(f"{linear_name}.weight").data = torch.empty(0)
        if statistics:
            statistics[place].gram, statistics[place].sample = torch.empty(0), []
        if held := rounded_inputs[place] if rounded_inputs else None:
            held.gram = held.cross = torch.empty(0)
    return tensors, records


def round_group(
    weights: Mapping[str, Tensor],
    layer: str,
    gram: Tensor | None,
    recipe: Recipe,
    rough: bool = False,
) -> Iterator[tuple[str, QuantizedWeight]]:
    """Round the linear layers that share an input, [out, in] float32 each, by name.

    layer: their decoder layer, for messages. rough: as of `round_layer`.
    """

    def kept(weight: Tensor, outer: Tensor | None = None) -> Tensor | None:
        if gram is None or not recipe.clip or recipe.desc_act:  # whose groups are not known yet
            return None
        with rounded_products(rough):
            return search_clip(weight, gram, recipe, outer)

    if gram is None or not uses_gptq_rounding(recipe):
        shared = shared_by_layers(weights, recipe)
        for name, weight in weights.items():
            with naming(f"{layer}.{name}"):
                rounded = quantize(weight, recipe, kept(weight, shared.get(name)), shared.get(name))
            yield name, rounded
        return
    # The weights are rounded together, as they have the same factor and each row is rounded by
    # itself.
    joined = torch.cat(list(weights.values()))
    with naming(" or ".join(f"{layer}.{name}" for name in weights)):
        rounded = quantize_gptq(joined, gram, recipe, kept(joined))
    start = 0
    for name, weight in weights.items():
        rows = slice(start, start + len(weight))
        yield name, rounded.rows(rows)
        start = rows.stop


def shared_by_layers(weights: Mapping[str, Tensor], recipe: Recipe) -> dict[str, Tensor]:
    """What the groups of layers that share an input share, by the layers' names; {}: nothing.

    Of all their rows together: some of it (NVFP4's global scale) is one number of them all, and
    engines multiply such layers in one product.
    """
    if recipe.type == INT:  # whose rows share nothing with other rows
        return {}
    outer = shared_by_rows(by_group(torch.cat(list(weights.values())), recipe.group_size), recipe)
    if outer is None:
        return {}
    parts = outer.split([len(weight) for weight in weights.values()])
    return dict(zip(weights, parts, strict=True))


def stands_for(unpacked: QuantizedWeight | StoredValues, evaluated: Tensor) -> bool:
    """Whether codes are these weights, [out, in], to the bit; looked at a few rows at a time."""
    if isinstance(unpacked, StoredValues):
        return torch.equal(unpacked.values, evaluated.cpu())
    starts = range(0, len(evaluated), COMPARED_ROWS)
    parts = [slice(start, start + COMPARED_ROWS) for start in starts]
    return all(torch.equal(unpacked.rows(p).dequantize(), evaluated[p].cpu()) for p in parts)


def distance(one: Tensor, other: Tensor) -> float:
    """The length of the difference of two matrices, which is never in memory as a whole."""
    parts = zip(one.split(COMPARED_ROWS), other.split(COMPARED_ROWS), strict=True)
    lengths = [norm(part - beside) for part, beside in parts]
    return math.sqrt(sum(length * length for length in lengths))


def linear_record(
    name: str,
    weight: Tensor,
    evaluated: Tensor,
    gram: Tensor | None,
    inputs: RoundedStatistics | None,
) -> dict[str, Any]:
    """What quantization.json says of one linear layer.

    Its output error is relative, counts the rounding of inputs that are known, and is taken from
    sampled rows if the layer is large. It is left out where the exact outputs are all zero, and the
    others are not.
    """
    record: dict[str, Any] = {
        "name": name,
        "in_features": weight.shape[1],
        "out_features": weight.shape[0],
        "weight_error": relative(distance(evaluated, weight), norm(weight)),
    }
    if gram is not None:
        whole = output_error(rows_for_loss(weight)[0], gram)
        if inputs is None:
            error = output_error(rows_for_loss(evaluated)[0] - rows_for_loss(weight)[0], gram)
        else:
            sampled = rows_for_loss(weight)[0], rows_for_loss(evaluated)[0]
            error = rounded_error(*sampled, gram, inputs)
        share = max(relative(error, whole), 0.0) ** 0.5
        if math.isnan(share) or math.isinf(error):
            raise UserError(f"{name}: {OVERFLOWING}")
        if math.isfinite(share):
            record["output_error"] = share
    return record
