"""What the weights of a sound checkpoint are near to: the original's, with scales moved between
layers as AWQ, SmoothQuant and SmoothAttention move them.

Three moves leave what a decoder layer computes as it is:

* a norm's channels are divided by s, and the columns of the linear layers that read it multiplied.
  The norm is stored as it is, so it tells s: nothing is fitted;
* rows of one linear layer (values, or what the MLP's product is made of) are divided by s. The
  columns of the one that reads them are multiplied. s is fitted to the rows, and then the columns
  have to agree;
* keys are divided by powers of two and queries multiplied by them, each pair of rotary channels by
  the same.

The second is taken for made only if both layers speak for it, or one of them holds nothing that
could. The third is, if it explains both layers much better than none.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf

import torch
from torch import Tensor, nn

from radquant.families.architectures import Architecture, Group, K, Norm, Q, Rows
from radquant.families.inspection import row_range
from radquant.quantization.awq import source_channels
from radquant.verification.blocks import column_sums, row_blocks, row_sums, squared_error

# A move counts as made if it leaves at most this share of the error that there is without it.
MUCH_BETTER = 0.9
# From here on the error of a layer is larger than its weights.
MOSTLY_NOISE = 1.0
# How far the mean logarithms of two layers' factors may be apart.
AGREEING = 0.05
SMALLEST = torch.finfo(torch.float32).tiny
# The smallest group that there is. The end of a larger group's range is also the end of one of
# these.
NEIGHBOURS = 16
LEAST_STEPS = 2  # of weights in the mean that tell a factor
# Where ranges cut off a row's large weights, the factor of its other weights is larger by this.
CUT = 1.1


@dataclass
class Moved:
    """By what each linear layer's weights are multiplied, by its name in the decoder layer."""

    columns: dict[str, Tensor] = field(default_factory=dict)  # [in]
    rows: dict[str, Tensor] = field(default_factory=dict)  # [out]
    # By the layer with the rows: the `middle` of factors that both layers agree on. The other holds
    # the layers that do not agree.
    usual: dict[str, float] = field(default_factory=dict)
    contradicting: set[str] = field(default_factory=set)

    def aim(self, name: str, weight: Tensor) -> Tensor:
        """What the checkpoint should hold for the original's `weight`, [out, in]."""
        columns, rows = self.columns.get(name), self.rows.get(name)
        if columns is not None and bool((columns != 1).any()):
            weight = weight * columns
        if rows is not None:
            weight = weight * rows[:, None]
        return weight


def with_every_source(architecture: Architecture) -> Architecture:
    """The table with all norms that a tool may fold into; ours leaves some of them alone."""
    norm = architecture.final_norm
    if norm is None:
        return architecture
    source = Norm("input_layernorm", norm.offset)
    groups = tuple(
        replace(group, source=source) if group.source is None and Q in group.linears else group
        for group in architecture.groups
    )
    return replace(architecture, groups=groups)


def siblings(architecture: Architecture, linear: str) -> list[str]:
    """The other linear layers that read the same norm."""
    for group in architecture.groups:
        if isinstance(group.source, Norm) and linear in group.linears:
            return [name for name in group.linears if name != linear]
    return []


def relative_error(
    weight: Tensor, aim: Tensor, rows: Tensor | None = None, columns: Tensor | None = None
) -> float:
    """‖W − A‖ / ‖A‖; 0 for zeros where zeros should be. rows, columns: by what A is multiplied."""
    apart, size = squared_error(weight, aim, rows, columns)
    return (apart / size) ** 0.5 if size else apart and inf


def row_factors(weight: Tensor, aim: Tensor) -> Tensor:
    """The r of each row that makes ‖w − r·a‖ least, [out]; 1 for rows of zeros.

    Where ranges cut a row's largest weights off, it is too small: then the r of the other weights
    is taken.
    """
    parts = [_row_factors(weight[rows], aim[rows]) for rows in row_blocks(weight)]
    return torch.cat(parts) if parts else weight.new_ones(0)


def _row_factors(weight: Tensor, aim: Tensor) -> Tensor:
    squares = row_sums(aim, aim)
    factor = row_sums(weight, aim) / squares.clamp(min=SMALLEST)
    size = NEIGHBOURS if weight.shape[1] % NEIGHBOURS == 0 else weight.shape[1]
    neighbours = weight.unflatten(1, (-1, size))
    low, high = neighbours.amin(-1, keepdim=True), neighbours.amax(-1, keepdim=True)
    within = (neighbours > low) & (neighbours < high)
    # Neighbours of which most become 0 or one step tell nothing. The smallest that is not 0 is a
    # step, or more.
    least = neighbours.abs().where(neighbours != 0, torch.inf).amin(-1, keepdim=True)
    squares_within = (neighbours.square() * within).sum(-1, keepdim=True)
    within &= squares_within > (LEAST_STEPS * least).square() * within.sum(-1, keepdim=True)
    own, aimed = (torch.where(within.flatten(1), each, 0.0) for each in (weight, aim))
    of_others = row_sums(own, aimed) / row_sums(aimed, aimed).clamp(min=SMALLEST)
    factor = torch.where(of_others > CUT * factor, of_others, factor)
    return torch.where(squares > SMALLEST, factor, 1.0)


def norm_factor(mine: Tensor, original: Tensor, offset: float) -> Tensor:
    """By what the columns behind a norm are multiplied, [channels]; 1 where that cannot be told."""
    mine, original = mine + offset, original + offset
    factor = torch.where(mine == original, 1.0, original / mine)
    return torch.where(torch.isfinite(factor) & (factor != 0), factor, 1.0)


def moves(
    weights: Mapping[str, Tensor],
    layer: nn.Module,
    norms: Mapping[str, Tensor],
    architecture: Architecture,
    head_dim: int,
    usual: Mapping[str, float],
) -> Moved:
    """What was moved in one decoder layer.

    weights: the checkpoint's linear layers, [out, in] float32. layer: the original's, float32.
    norms: the checkpoint's norms that the table names, by name. usual: as in `Moved`, of others.
    """
    moved = Moved()
    for group in architecture.groups:
        if isinstance(group.source, Norm):
            original = layer.get_parameter(f"{group.source.name}.weight")
            factor = norm_factor(norms[group.source.name], original, group.source.offset)
            width = weights[group.linears[0]].shape[1]
            factor = factor[source_channels(len(factor), width, len(factor)).to(factor.device)]
            moved.columns |= dict.fromkeys((*group.linears, *group.beside), factor)
    for group in architecture.groups:
        if isinstance(group.source, Rows):
            beside = siblings(architecture, group.source.linear)
            find_in_rows(group, group.source, weights, layer, moved, beside, head_dim, usual)
    if Q in weights and K in weights and head_dim and not head_dim % 2:
        find_in_keys(weights, layer, moved, head_dim)
    return moved


def find_in_rows(
    group: Group,
    source: Rows,
    weights: Mapping[str, Tensor],
    layer: nn.Module,
    moved: Moved,
    beside: Sequence[str],
    head_dim: int,
    usual: Mapping[str, float],
) -> None:
    """Whether rows of `source` were divided and the columns of `group` multiplied; into `moved`.

    beside: linear layers that read the same norm as `source`. usual: see `moves`.
    """
    rows = row_range(layer, source)
    made = weights[source.linear][rows]
    made_aim = moved.aim(source.linear, layer.get_parameter(f"{source.linear}.weight"))[rows]
    by_rows = row_factors(made, made_aim)
    read = {name: weights[name] for name in group.linears}
    read_aim = {name: layer.get_parameter(f"{name}.weight") for name in group.linears}
    width = next(iter(read.values())).shape[1]
    if width % len(by_rows):
        return
    channels = source_channels(len(by_rows), width, head_dim).to(by_rows.device)
    by_columns = 1 / factors_of_channels(read, read_aim, channels, len(by_rows))

    def of_made(factor: Tensor) -> float:
        return relative_error(made, made_aim, rows=factor)

    def of_read(factor: Tensor) -> float:
        columns = 1 / factor[channels]
        return max(relative_error(read[n], read_aim[n], columns=columns) for n in read)

    def others() -> float:
        return size_of({n: weights[n] for n in beside}, layer, moved)

    usually = usual.get(source.linear, 0.0)
    factor, agreeing = which_factor(by_rows, by_columns, of_made, of_read, others, usually)
    if not agreeing:
        moved.contradicting.add(source.linear)
    if factor is not None:
        if agreeing:
            moved.usual[source.linear] = middle(factor)
        whole = torch.ones(len(weights[source.linear]), device=factor.device)
        whole[rows] = factor
        moved.rows[source.linear] = whole
        moved.columns |= dict.fromkeys(group.linears, 1 / factor[channels])


def which_factor(
    by_rows: Tensor,
    by_columns: Tensor,
    of_made: Callable[[Tensor], float],
    of_read: Callable[[Tensor], float],
    others: Callable[[], float],
    usual: float,
) -> tuple[Tensor | None, bool]:
    """The factor that was moved from rows to columns, [channels], or None; whether both agree.

    by_rows, by_columns: as each of the two layers has it. of_made, of_read: how far the layer is
    off with a factor. others: the size of the layers beside the one with the rows. usual: the
    `middle` of other decoder layers' factors. Where the two contradict each other, one is damaged:
    the one that no factor explains, or else the one that is further from the usual.
    """
    ones = torch.ones_like(by_rows)
    left = [
        of_one(factor) if bool((factor > 0).all() and factor.isfinite().all()) else inf
        for of_one, factor in ((of_made, by_rows), (of_read, by_columns))
    ]
    straight = [of_made(ones), of_read(ones)]
    better = [one < MUCH_BETTER * other for one, other in zip(left, straight, strict=True)]
    if not all(better):
        # A layer that holds nothing of the original's does not speak against the other.
        if better[0] and straight[1] > MOSTLY_NOISE:
            return by_rows, False
        if better[1] and straight[0] > MOSTLY_NOISE:
            return by_columns, False
        return None, not any(better)
    if min(left) > MOSTLY_NOISE:
        return None, False
    if max(left) > MOSTLY_NOISE:
        return (by_rows if left[0] <= left[1] else by_columns), False
    rows, columns = (float(each.log().mean()) for each in (by_rows, by_columns))
    if abs(rows - columns) <= AGREEING:
        return by_rows, True
    if abs(rows - math.log(max(others(), 1e-30)) - columns) <= AGREEING:
        return by_columns, False  # all that reads the norm is off by the same
    far = [abs(middle(each) - usual) for each in (by_rows, by_columns)]
    return (by_rows if far[0] <= far[1] else by_columns), False


def middle(factor: Tensor) -> float:
    """Of the largest and the smallest logarithm of positive factors.

    AWQ divides its scales by the root of their largest times their smallest: then it is 0, while
    the mean differs from layer to layer.
    """
    return float((factor.amax() * factor.amin()).log()) / 2


def factors_of_channels(
    read: Mapping[str, Tensor], aims: Mapping[str, Tensor], channels: Tensor, count: int
) -> Tensor:
    """By what the columns of each channel are multiplied, [count]. channels: of each column."""
    products, squares = torch.zeros(2, count, device=channels.device)
    for name, weight in read.items():
        products.index_add_(0, channels, column_sums(weight, aims[name]))
        squares.index_add_(0, channels, column_sums(aims[name], aims[name]))
    return torch.where(squares > SMALLEST, products / squares.clamp(min=SMALLEST), 1.0)


def size_of(weights: Mapping[str, Tensor], layer: nn.Module, moved: Moved) -> float:
    """<W, A> / <A, A> of several linear layers together; 1 for none."""
    products = squares = 0.0
    for name, weight in weights.items():
        aim = moved.aim(name, layer.get_parameter(f"{name}.weight"))
        products += float(row_sums(weight, aim).sum())
        squares += float(row_sums(aim, aim).sum())
    return products / squares if squares else 1.0


def find_in_keys(
    weights: Mapping[str, Tensor], layer: nn.Module, moved: Moved, head_dim: int
) -> None:
    """Whether keys were divided and queries multiplied; into `moved`."""
    aims = {n: moved.aim(n, layer.get_parameter(f"{n}.weight")) for n in (Q, K)}
    factor = row_factors(weights[K], aims[K])
    if len(weights[Q]) % len(factor) or len(factor) % head_dim or not bool((factor > 0).all()):
        return
    pairs = factor.log2().unflatten(0, (-1, 2, head_dim // 2)).mean(1, keepdim=True)
    keys = torch.exp2(pairs.round()).expand(-1, 2, -1).flatten()
    groups = len(weights[Q]) // len(factor)
    queries = 1 / keys.unflatten(0, (-1, head_dim)).repeat_interleave(groups, 0).flatten()
    straight = sum(relative_error(weights[n], aims[n]) for n in (Q, K))
    folded = relative_error(weights[K], aims[K], rows=keys)
    folded += relative_error(weights[Q], aims[Q], rows=queries)
    if folded < MUCH_BETTER * straight:
        moved.rows |= {Q: queries, K: keys}
