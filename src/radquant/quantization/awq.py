"""AWQ (Lin et al., 2023, arXiv:2306.00978): scale search and clip search from Gram matrices.

For linear layers that share an input X ([in, tokens]) the loss of a scale s is

    ‖Q(W·diag(s))·diag(s)⁻¹·X − W·X‖² = tr(ΔW·H·ΔWᵀ),   ΔW = Q(W·diag(s))·diag(s)⁻¹ − W,   H = X·Xᵀ

so with H accumulated once over every calibration token the search needs no further forward pass.
The same H, taken in blocks of one group, gives the loss of clipping a group's range.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from radquant.quantization.architectures import Group
from radquant.quantization.grid import Recipe, by_group, find_grid, round_to_grid

SCALE_STEPS = 20  # exponents 0, 1/20 … 19/20, as in AutoAWQ
CLIP_STEPS = 10  # shares of the range 1.00, 0.95 … 0.55, as in AutoAWQ
CLIP_STEP = 0.05


@dataclass
class InputStatistics:
    """What is kept of one group's input over the calibration tokens."""

    gram: Tensor  # [in, in] float32: sum over tokens of x·xᵀ
    magnitude: Tensor  # [in] float32: sum over tokens of |x|
    tokens: int = 0

    @classmethod
    def empty(cls, channels: int, device: torch.device) -> "InputStatistics":
        return cls(
            torch.zeros(channels, channels, device=device), torch.zeros(channels, device=device)
        )

    def add(self, x: Tensor) -> None:
        """Accumulate x, [..., tokens, in]."""
        x = x.flatten(0, -2).float()
        self.gram.addmm_(x.T, x)
        self.magnitude += x.abs().sum(0)
        self.tokens += len(x)

    def divide_channels(self, scale: Tensor) -> None:
        """Turn the statistics of x into those of x / scale, [in]."""
        self.gram /= scale[:, None]
        self.gram /= scale
        self.magnitude /= scale


def output_error(delta: Tensor, gram: Tensor) -> float:
    """tr(Δ·H·Δᵀ): the squared error of the outputs for a weight error Δ, [out, in]."""
    return float(((delta @ gram) * delta).sum())


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


def search_scale(
    weights: Sequence[Tensor],
    statistics: InputStatistics,
    channels: Tensor,
    source_width: int,
    recipe: Recipe,
) -> Tensor:
    """The scale of each source channel with the least summed output error, [source_width] float32.

    weights: the [out, in] float32 weights that share the input. Candidates are AutoAWQ's, the mean
    activation to the power r over the mean relative weight to the power 1 − r, and no scaling.
    """
    activation = statistics.magnitude / statistics.tokens
    relative = [
        by_group(w.abs(), recipe.group_size)
        / by_group(w.abs(), recipe.group_size).amax(-1, keepdim=True).clamp(min=1e-8)
        for w in weights
    ]
    weight = torch.cat([r.flatten(-2) for r in relative]).mean(0)
    activation = mean_by_source(activation, channels, source_width)
    weight = mean_by_source(weight, channels, source_width)

    def loss(scale: Tensor) -> float:
        expanded = scale[channels]
        total = 0.0
        for w in weights:
            groups = by_group(w * expanded, recipe.group_size)
            rounded = round_to_grid(groups, *find_grid(groups, recipe), recipe.bits)
            total += output_error(rounded.flatten(-2).div_(expanded).sub_(w), statistics.gram)
        return total

    best = torch.ones(source_width, device=weight.device)
    least = loss(best)
    for step in range(SCALE_STEPS):
        ratio = step / SCALE_STEPS
        candidate = activation.clamp(min=1e-8) ** ratio / (weight ** (1 - ratio) + 1e-4)
        candidate = candidate.clamp(min=1e-4)
        candidate /= (candidate.max() * candidate.min()).sqrt()
        error = loss(candidate)
        if error < least:
            best, least = candidate, error
    return best


def search_clip(weight: Tensor, gram: Tensor, recipe: Recipe) -> Tensor:
    """The share of each group's range to keep, [out, in / group_size], by least output error.

    Only the group's own block of H enters, so groups are searched independently.
    """
    groups = by_group(weight, recipe.group_size)
    count, size = groups.shape[1:]
    index = torch.arange(count, device=weight.device)
    blocks = gram.unflatten(0, (count, size)).unflatten(2, (count, size))[index, :, index]
    best = torch.ones(groups.shape[:2], device=weight.device)
    least = torch.full_like(best, torch.inf)
    for step in range(CLIP_STEPS):
        keep = 1 - step * CLIP_STEP
        delta = round_to_grid(groups, *find_grid(groups, recipe, keep), recipe.bits) - groups
        error = (torch.einsum("ogi,gij->ogj", delta, blocks) * delta).sum(-1)
        better = error < least
        best = torch.where(better, keep, best)
        least = torch.where(better, error, least)
    return best


def fold_into_norm(norm: nn.Module, scale: Tensor, storage: torch.dtype) -> Tensor:
    """Divide a norm's weight by `scale` and return the scale that was really applied, [channels].

    The weight is stored in `storage`; taking the linears' scale from the rounded weight keeps the
    product exact, so folding costs no accuracy even in bfloat16.
    """
    weight = norm.weight
    assert isinstance(weight, Tensor)
    folded = (weight / scale).to(storage).float()
    exact = torch.isfinite(folded) & (folded != 0) & (weight != 0)
    applied = torch.where(exact, weight / folded, scale)
    weight.copy_(torch.where(exact, folded, weight / scale))
    return applied


def fold_into_linear(linear: nn.Linear, scale: Tensor) -> Tensor:
    """Divide a linear layer's output channels by `scale`, [out], and return it."""
    linear.weight.div_(scale[:, None])
    if linear.bias is not None:
        linear.bias.div_(scale)
    return scale


def scale_group(
    layer: nn.Module,
    group: Group,
    statistics: InputStatistics,
    recipe: Recipe,
    head_dim: int,
    storage: torch.dtype,
) -> None:
    """Search the group's scale and fold it into the layer; the layer's function does not change."""
    linears = [layer.get_submodule(name) for name in group.linears]
    weights = [linear.weight for linear in linears if isinstance(linear.weight, Tensor)]
    source = layer.get_submodule(group.source)
    assert isinstance(source.weight, Tensor)
    source_width, width = source.weight.shape[0], weights[0].shape[1]
    channels = source_channels(source_width, width, head_dim).to(weights[0].device)
    scale = search_scale(weights, statistics, channels, source_width, recipe)
    if group.source_is_norm:
        scale = fold_into_norm(source, scale, storage)
    else:
        assert isinstance(source, nn.Linear)
        scale = fold_into_linear(source, scale)
    expanded = scale[channels]
    for weight in weights:
        weight.mul_(expanded)
    statistics.divide_channels(expanded)
