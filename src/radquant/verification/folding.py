"""What the weights of a sound checkpoint are near to: the original's, with scales moved between
layers as AWQ, SmoothQuant and SmoothAttention move them.

Three moves leave what a decoder layer computes as it is:

* a norm's channels are divided by s, and the columns of the linear layers that read it multiplied.
  The norm is stored as it is, so it tells s: nothing is fitted;
* rows of one linear layer (values, or what the MLP's product is made of) are divided by s, and the
  columns of the one that reads them multiplied. s is fitted to the rows, and then the columns have
  to agree;
* keys are divided by powers of two and queries multiplied by them, each pair of rotary channels by
  the same.

The second and third are taken for made only if they explain both layers much better than none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from radquant.families.architectures import Architecture, Group, K, Norm, Q, Rows
from radquant.families.inspection import row_range
from radquant.quantization.awq import source_channels

# A move counts as made if it leaves at most this share of the error that there is without it.
MUCH_BETTER = 0.9
SMALLEST = torch.finfo(torch.float32).tiny


@dataclass
class Moved:
    """By what each linear layer's weights are multiplied, by its name in the decoder layer."""

    columns: dict[str, Tensor] = field(default_factory=dict)  # [in]
    rows: dict[str, Tensor] = field(default_factory=dict)  # [out]

    def aim(self, name: str, weight: Tensor) -> Tensor:
        """What the checkpoint should hold for the original's `weight`, [out, in]."""
        if name in self.columns:
            weight = weight * self.columns[name]
        if name in self.rows:
            weight = weight * self.rows[name][:, None]
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


def relative_error(weight: Tensor, aim: Tensor) -> float:
    """‖W − A‖ / ‖A‖; 0 for zeros where zeros should be."""
    apart, size = float((weight - aim).norm()), float(aim.norm())
    return apart / size if size else apart and float("inf")


def row_factors(weight: Tensor, aim: Tensor) -> Tensor:
    """The r of each row that makes ‖w − r·a‖ least, [out]; 1 for rows of zeros."""
    products, squares = (weight * aim).sum(1), (aim * aim).sum(1)
    return torch.where(squares > SMALLEST, products / squares.clamp(min=SMALLEST), 1.0)


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
) -> Moved:
    """What was moved in one decoder layer.

    weights: the checkpoint's linear layers, [out, in] float32. layer: the original's, float32.
    norms: the checkpoint's norms that the table names, by name.
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
            find_in_rows(group, group.source, weights, layer, moved, head_dim)
    if Q in weights and K in weights and head_dim and not head_dim % 2:
        find_in_keys(weights, layer, moved, head_dim)
    return moved


def find_in_rows(
    group: Group,
    source: Rows,
    weights: Mapping[str, Tensor],
    layer: nn.Module,
    moved: Moved,
    head_dim: int,
) -> None:
    """Whether rows of `source` were divided and the columns of `group` multiplied; into `moved`."""
    rows = row_range(layer, source)
    made = weights[source.linear][rows]
    made_aim = moved.aim(source.linear, layer.get_parameter(f"{source.linear}.weight"))[rows]
    factor = row_factors(made, made_aim)
    read = {name: weights[name] for name in group.linears}
    read_aim = {name: layer.get_parameter(f"{name}.weight") for name in group.linears}
    width = next(iter(read.values())).shape[1]
    if width % len(factor) or not bool((factor > 0).all()):
        return
    columns = 1 / factor[source_channels(len(factor), width, head_dim).to(factor.device)]
    straight = relative_error(made, made_aim)
    straight += max(relative_error(read[name], read_aim[name]) for name in read)
    folded = relative_error(made, made_aim * factor[:, None])
    folded += max(relative_error(read[name], read_aim[name] * columns) for name in read)
    if folded < MUCH_BETTER * straight:
        whole = torch.ones(len(weights[source.linear]), device=factor.device)
        whole[rows] = factor
        moved.rows[source.linear] = whole
        moved.columns |= dict.fromkeys(group.linears, columns)


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
    folded = relative_error(weights[K], aims[K] * keys[:, None])
    folded += relative_error(weights[Q], aims[Q] * queries[:, None])
    if folded < MUCH_BETTER * straight:
        moved.rows |= {Q: queries, K: keys}
