"""AWQ (Lin et al., 2023, arXiv:2306.00978): the scale search, from Gram matrices.

For linear layers that share an input X ([in, tokens]) the loss of a scale s is

    ‖Q(W·diag(s))·diag(s)⁻¹·X − W·X‖² = tr(ΔW·H·ΔWᵀ),   ΔW = Q(W·diag(s))·diag(s)⁻¹ − W,   H = X·Xᵀ

so with H accumulated once over every calibration token the search needs no further forward pass.
The same H gives the loss of clipping the groups' ranges (`clipping`).

Where activations are rounded, too, a scale changes how. The loss is then taken from the inputs of
some calibration sequences, rounded as they will be: ‖Q(W·diag(s))·Qₐ(diag(s)⁻¹·X) − W·X‖².
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from radquant.errors import UserError
from radquant.families.architectures import Group, Norm
from radquant.families.inspection import linear_of, row_range
from radquant.finite import OVERFLOWING
from radquant.packed.gguf_blocks import recipe_for_width
from radquant.packed.grid import by_group, find_grid, round_to_grid
from radquant.quantization.calibration_statistics import (
    InputStatistics,
    activations_for,
    search_range,
)
from radquant.quantization.gptq import factorize, processing_order, round_scaled
from radquant.quantization.onednn import rounded_products
from radquant.quantization.smoothing import smooth_scale
from radquant.quantization.threads import side_by_side
from radquant.runtime.activations import quantize_activations
from radquant.settings.precision import STATIC, Activations
from radquant.settings.recipe import SMOOTH, Recipe, uses_gptq_rounding

SCALE_STEPS = 20  # exponents 0, 1/20 … 19/20, as in AutoAWQ
GPTQ_SCALE_STEPS = 10  # under GPTQ's rounding, where a trial costs more
COARSE = 4  # every so many of the exponents are tried first, then those beside the best of them
# The scale search's loss is a sum over output rows, and costs rows · in². Of large layers it takes
# some rows, evenly spaced, and counts each for those it stands for. It takes so many values of the
# weight, but no fewer rows than the second number. With 256 of SmolLM2's 1,536 rows its perplexity
# on held-out reports rose from 86.04 to 88.69, and none of 47 CPU seconds was saved.
LOSS_VALUES = 1536 * 1536
LOSS_ROWS = 512
GPTQ_ROWS = 256
MAGNITUDE_ROWS = 256  # of a weight that are looked at together
ERROR_COLUMNS = 512  # of a Gram matrix that are multiplied at a time
RANGE_STEPS_LEFT_OUT = 5  # a static range is searched roughly for every scale that is tried


def output_error(delta: Tensor, gram: Tensor) -> float:
    """tr(Δ·H·Δᵀ): the squared error of the outputs for a weight error Δ, [out, in].

    H is symmetric. Each block of columns is multiplied with the rows of H up to the diagonal, and
    what stands left of the diagonal counts twice. Products with rows of H take half the time of
    those with columns where they are long.
    """
    linear, total = nn.functional.linear, 0.0
    for start in range(0, delta.shape[1], ERROR_COLUMNS):
        columns = slice(start, start + ERROR_COLUMNS)
        own = delta[:, columns]
        product = linear(own, gram[columns, columns])
        if start:
            product.add_(linear(delta[:, :start], gram[columns, :start]), alpha=2)
        total += float((product * own).sum())
    return total


def source_channels(source_width: int, width: int, head_dim: int) -> Tensor:
    """The source's output channel that each input channel comes from, [width] int64.

    They are the same unless the source is v_proj under grouped-query attention, where each value
    head is read by width / source_width query heads in turn.
    """
    if source_width == width:
        return torch.arange(width)
    channels = torch.arange(source_width).unflatten(0, (-1, head_dim))
    return channels.repeat_interleave(width // source_width, dim=0).flatten()


def mean_by_source(values: Tensor, channels: Tensor, source_width: int) -> Tensor:
    """Average [in] values over the input channels that share a source channel: [source_width]."""
    total = torch.zeros(source_width, device=values.device).index_add_(0, channels, values)
    return total * (source_width / len(channels))


def some_rows(weight: Tensor, most: int) -> tuple[Tensor, float]:
    """At most so many rows of [out, in], evenly spaced, and how many rows each stands for."""
    count = len(weight)
    if count <= most:
        return weight, 1.0
    index = torch.arange(most, device=weight.device) * count // most
    return weight[index], count / most


def rows_for_loss(weight: Tensor) -> tuple[Tensor, float]:
    """Rows of a weight, [out, in], for the search, and how many rows each stands for."""
    return some_rows(weight, max(LOSS_ROWS, LOSS_VALUES // weight.shape[1]))


def relative_magnitude(weights: Sequence[Tensor], recipe: Recipe) -> Tensor:
    """Each input channel's mean share of its groups' largest magnitude, [in]."""
    total = torch.zeros(weights[0].shape[1], device=weights[0].device)
    for weight in weights:
        for some in weight.split(MAGNITUDE_ROWS):
            groups = by_group(some.abs(), recipe.group_size)
            largest = groups.amax(-1, keepdim=True).clamp_(min=1e-8)
            total += groups.div_(largest).flatten(-2).sum(0)
    return total / sum(map(len, weights))


def candidates(
    weights: Sequence[Tensor],
    statistics: InputStatistics,
    channels: Tensor,
    source_width: int,
    recipe: Recipe,
) -> list[Tensor]:
    """Scales to try, [source_width] float32 each, by rising exponent.

    As in AutoAWQ, a source channel's mean magnitude to the power r over the mean relative one of
    its weights to the power 1 − r. Arguments as of `search_scale`.
    """
    activation = mean_by_source(statistics.magnitude / statistics.tokens, channels, source_width)
    weight = mean_by_source(relative_magnitude(weights, recipe), channels, source_width)
    steps = GPTQ_SCALE_STEPS if uses_gptq_rounding(recipe) else SCALE_STEPS
    found = []
    for step in range(steps):
        ratio = step / steps
        scale = activation.clamp(min=1e-8) ** ratio / (weight ** (1 - ratio) + 1e-4)
        scale = scale.clamp(min=1e-4)
        found.append(scale / (scale.max() * scale.min()).sqrt())
    return found


def scaled_rounding(gram: Tensor, recipe: Recipe) -> Callable[[Tensor, Tensor], Tensor]:
    """The function Q(W·diag(s))·diag(s)⁻¹ of W, [out, in], and s, [in], as `recipe` rounds."""
    if uses_gptq_rounding(recipe):
        columns = processing_order(gram).flip(0)
        factor = factorize(gram, columns, recipe.damp_percent)
        return lambda weight, scale: round_scaled(weight, scale, columns, factor, recipe)

    def nearest(weight: Tensor, scale: Tensor) -> Tensor:
        groups = by_group(weight * scale, recipe.group_size)
        rounded = round_to_grid(groups, *find_grid(groups, recipe), recipe)
        return rounded.flatten(-2).div_(scale)

    return nearest


def search_scale(
    weights: Sequence[Tensor],
    statistics: InputStatistics,
    channels: Tensor,
    source_width: int,
    recipe: Recipe,
    activations: Activations | None = None,
) -> Tensor:
    """The scale of each source channel with the least summed output error, [source_width] float32.

    weights: the [out, in] float32 weights that share the input. The error is that of the rounding
    which the recipe asks for, and of the input if `activations` are rounded, too. No scaling is a
    candidate, and SmoothQuant's with rounded activations.
    """
    gram = statistics.gram
    sampled = [rows_for_loss(w) for w in weights]
    if uses_gptq_rounding(recipe):  # whose time grows with the columns more than with the rows
        sampled = [some_rows(w, GPTQ_ROWS) for w in weights]
    rounded = scaled_rounding(gram, recipe)

    def loss(scale: Tensor) -> float:
        return rounded_weight_loss(sampled, gram, rounded, scale[channels])

    others = [torch.ones(source_width, device=gram.device)]
    if activations is not None:
        others.append(smooth_scale(weights, statistics.largest, channels, source_width))
        of_both = rounded_input_loss(sampled, statistics.sample, rounded, activations)
        loss = lambda scale: of_both(scale[channels])  # noqa: E731
    losses = side_by_side(loss, others)
    if not math.isfinite(losses[0]):  # or no candidate would seem better than it
        raise UserError(OVERFLOWING)
    found, least = least_along(
        candidates(weights, statistics, channels, source_width, recipe), loss
    )
    for scale, error in zip(others, losses, strict=True):
        if not error > least:
            found, least = scale, error
    return found


def least_along(values: Sequence[Tensor], loss: Callable[[Tensor], float]) -> tuple[Tensor, float]:
    """The value with the least loss, and that loss, where losses fall and then rise along `values`.

    Some evenly spaced values are tried, then the ones half as far from the best so far, and so on.
    """
    found: dict[int, float] = {}

    def look(places: Sequence[int]) -> None:
        new = [place for place in places if 0 <= place < len(values) and place not in found]
        errors = side_by_side(lambda place: loss(values[place]), new)
        found.update(
            (place, error if math.isfinite(error) else math.inf)
            for place, error in zip(new, errors, strict=True)
        )

    look(range(0, len(values), COARSE))
    best, step = min(found, key=found.__getitem__), COARSE // 2
    while step:
        look((best - step, best + step))
        best, step = min(found, key=found.__getitem__), step // 2
    return values[best], found[best]


def rounded_weight_loss(
    sampled: Sequence[tuple[Tensor, float]],
    gram: Tensor,
    rounded: Callable[[Tensor, Tensor], Tensor],
    scale: Tensor,
) -> float:
    """The squared output error of a scale, [in], with weights rounded. As `rounded_input_loss`."""
    return sum(
        share * output_error(rounded(weight, scale).sub_(weight), gram) for weight, share in sampled
    )


def rounded_input_loss(
    sampled: Sequence[tuple[Tensor, float]],
    sequences: Sequence[Tensor],
    rounded: Callable[[Tensor, Tensor], Tensor],
    activations: Activations,
) -> Callable[[Tensor], float]:
    """The squared output error of a scale, [in], with weights and inputs rounded.

    sampled: rows of the weights that share the input, and how many each row stands for.
    sequences: inputs, [tokens, in] each. rounded: Q(W·diag(s))·diag(s)⁻¹ of W and s.
    """
    whole = torch.cat(list(sequences))
    expected = [nn.functional.linear(whole, w) for w, _ in sampled]

    def loss(scale: Tensor) -> float:
        divided = [x / scale for x in sequences]
        grid = None
        if activations.range == STATIC:
            grid = search_range(torch.cat(divided), activations, every=RANGE_STEPS_LEFT_OUT)
        inputs = torch.cat(
            [quantize_activations(x[None], activations, static=grid) for x in divided], 1
        )
        inputs = inputs[0] * scale
        return sum(
            share * float((nn.functional.linear(inputs, rounded(w, scale)) - y).square().sum())
            for (w, share), y in zip(sampled, expected, strict=True)
        )

    return loss


def fold_exactly(
    stored: Tensor, scale: Tensor, storage: torch.dtype, offset: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Divide `offset` + `stored` by about `scale`: the values to store, and the division made.

    What is stored gets rounded to `storage`. Taking the division from the rounded values keeps
    folding exact, even in bfloat16; what cannot be divided stays as it is.
    """
    factor = stored + offset
    folded = (factor / scale - offset).to(storage).float()
    applied = factor / (folded + offset)
    exact = torch.isfinite(applied) & (applied > 0)
    applied = torch.where(exact, applied, 1)
    return torch.where(exact, folded, stored), torch.where(factor == 0, scale, applied)


def fold_into_norm(
    norm: nn.Module, scale: Tensor, storage: torch.dtype, offset: float = 0.0
) -> Tensor:
    """Divide a norm's output by about `scale`; returns the division made, [channels].

    The norm multiplies by `offset` + weight, and its weight is stored in `storage`.
    """
    weight = norm.weight
    assert isinstance(weight, Tensor)
    folded, applied = fold_exactly(weight, scale, storage, offset)
    weight.copy_(folded)
    return applied


def fold_into_linear(linear: nn.Linear, rows: slice, scale: Tensor, storage: torch.dtype) -> Tensor:
    """Divide output channels `rows` by about `scale`; returns the division made, [rows].

    The weight will be quantized, so only the bias is rounded to `storage`.
    """
    if linear.bias is not None:
        linear.bias[rows], scale = fold_exactly(linear.bias[rows], scale, storage)
    linear.weight[rows] /= scale[:, None]
    return scale


def group_scale(
    layer: nn.Module, group: Group, statistics: InputStatistics, recipe: Recipe, head_dim: int
) -> tuple[Tensor, Tensor]:
    """The scale of a group with a source, [source_width] float32, and the source's channel of each
    of the group's inputs, [in] int64.

    AWQ searches the scale, transform "smooth" takes SmoothQuant's.
    """
    weights = [linear_of(layer, name).weight for name in group.linears]
    if isinstance(group.source, Norm):
        # A norm of each head has a head's channels, and all heads share them.
        source_width = head_dim = len(norm_weight(layer, group.source))
    else:
        assert group.source is not None
        rows = row_range(layer, group.source)
        source_width = rows.stop - rows.start
    channels = source_channels(source_width, weights[0].shape[1], head_dim).to(weights[0].device)
    if not statistics.tokens:  # an expert that no calibration token was sent to
        return torch.ones(source_width, device=weights[0].device), channels
    if recipe.transform == SMOOTH:
        return smooth_scale(weights, statistics.largest, channels, source_width), channels
    chosen = activations_for(group, recipe.activations)
    scale = search_scale(weights, statistics, channels, source_width, recipe, chosen)
    return scale, channels


def norm_weight(layer: nn.Module, norm: Norm) -> Tensor:
    weight = layer.get_submodule(norm.name).weight
    assert isinstance(weight, Tensor)
    return weight


def scale_group(
    layer: nn.Module,
    group: Group,
    statistics: InputStatistics,
    recipe: Recipe,
    head_dim: int,
    storage: torch.dtype,
    rough: bool = False,
) -> None:
    """Choose the group's scale and fold it into the layer; the layer's function does not change.

    A group without a source is left as it is. rough: whether `rounded_products` find the scale.
    """
    if group.source is None:
        return
    width = linear_of(layer, group.linears[0]).in_features
    recipe = recipe_for_width(recipe, width)
    with rounded_products(rough):
        scale, channels = group_scale(layer, group, statistics, recipe, head_dim)
    if isinstance(group.source, Norm):
        norm = layer.get_submodule(group.source.name)
        scale = fold_into_norm(norm, scale, storage, group.source.offset)
    else:
        source, rows = linear_of(layer, group.source.linear), row_range(layer, group.source)
        scale = fold_into_linear(source, rows, scale, storage)
    expanded = scale[channels]
    for name in group.linears:
        linear_of(layer, name).weight.mul_(expanded)
    for name in group.beside:
        layer.get_parameter(f"{name}.weight").mul_(expanded)
    statistics.divide_channels(expanded)
