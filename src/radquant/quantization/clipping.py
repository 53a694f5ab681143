"""AWQ's clip search (Lin et al., 2023, arXiv:2306.00978, and its code), from Gram matrices.

A group's range may be cut to a share of it: what lies outside is clipped, and the rest is rounded
more finely. The loss is that of `awq`, tr(δ·H·δᵀ) of the weight errors δ.
"""

import torch
from torch import Tensor, nn

from radquant.errors import UserError
from radquant.finite import OVERFLOWING
from radquant.packed.grid import by_group, find_grid, round_to_grid, shared_by_rows
from radquant.quantization.threads import side_by_side
from radquant.settings.recipe import Recipe

SHARES = [1 - step * 0.05 for step in range(10)]  # of the range: 1.00, 0.95 … 0.55, as in AutoAWQ
# Output channels that are searched at a time. They are few enough that a group's values stay in the
# cache. The weight errors of all shares and groups take no more than so many bytes a thread.
CLIP_ROWS = 256
CLIP_BYTES = 2**27
# Input channels that are multiplied with H together, which takes less time than group by group.
CLIP_COLUMNS = 1024


def search_clip(
    weight: Tensor, gram: Tensor, recipe: Recipe, outer: Tensor | None = None
) -> Tensor:
    """The share of each group's range to keep, [out, in / group_size], by least output error.

    At first each group's error is looked at by itself, as in AutoAWQ. Then the groups are gone
    through once more, each with the errors of the row's others as they then are. Errors of groups
    whose inputs go together can cancel. No row's tr(δ·H·δᵀ) grows by it, but for rounding. outer:
    as in `grid.quantize`.
    """
    if outer is None:
        outer = shared_by_rows(by_group(weight, recipe.group_size), recipe)
    bytes_a_row = len(SHARES) * weight.shape[1] * weight.element_size()
    rows = max(1, min(CLIP_ROWS, CLIP_BYTES // bytes_a_row))
    parts = weight.split(rows)
    shared = [None] * len(parts) if outer is None else list(torch.split(outer, rows))
    blocks = list(zip(parts, shared, strict=True))
    return torch.cat(
        side_by_side(lambda block: search_clip_of_rows(block[0], gram, recipe, block[1]), blocks)
    )


def search_clip_of_rows(
    weight: Tensor, gram: Tensor, recipe: Recipe, outer: Tensor | None
) -> Tensor:
    """`search_clip` of a few rows; outer: what their groups share."""
    groups = by_group(weight, recipe.group_size)
    count, size = groups.shape[1:]
    blocks = gram.unflatten(0, (count, size)).split(size, dim=-1)
    grids = [find_grid(groups, recipe, share, outer) for share in SHARES]
    scale, zero = (torch.stack(each, -1) for each in zip(*grids, strict=True))
    tried = [
        try_shares(groups[:, group], block[group], recipe, (scale[:, group], zero[:, group]))
        for group, block in enumerate(blocks)
    ]
    kept = torch.stack([least(errors) for _, errors in tried], 1)  # [out, groups] int64
    if count > 1:
        delta = torch.cat(
            [chosen(deltas, kept[:, group]) for group, (deltas, _) in enumerate(tried)], 1
        )
        several = max(1, CLIP_COLUMNS // size)
        for first in range(0, count, several):
            last = min(first + several, count)
            # H is symmetric, and its rows are read faster than its columns.
            products = nn.functional.linear(delta, gram[first * size : last * size])
            for group in range(first, last):
                here = slice(group * size, (group + 1) * size)
                own, block = delta[:, here], blocks[group][group]
                others = products[:, (group - first) * size :][:, :size] - own @ block
                deltas, errors = tried[group]
                kept[:, group] = least(errors + 2 * (deltas @ others[..., None])[..., 0])
                change = chosen(deltas, kept[:, group]) - own
                own += change
                behind = gram[(group + 1) * size : last * size, here]
                if len(behind):
                    products[:, (group + 1 - first) * size :] += nn.functional.linear(
                        change, behind
                    )
    return weight.new_tensor(SHARES)[kept]


def try_shares(
    weight: Tensor, block: Tensor, recipe: Recipe, grids: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """What each share of one group's range leaves: weight errors, [out, shares, group], and their
    part of the output error by themselves, [out, shares].

    weight: the group's, [out, group]. block: its own part of H, [group, group].
    grids: scale and zero of each share, [out, shares].
    """
    one = weight[:, None]
    deltas = round_to_grid(one.expand(-1, len(SHARES), -1), *grids, recipe) - one
    return deltas, (deltas @ block).mul_(deltas).sum(-1)


def least(errors: Tensor) -> Tensor:
    """The first of the least errors of each row, [out] int64. errors: [out, shares]."""
    found, places = errors.min(1)
    if not torch.isfinite(found).all():
        raise UserError(OVERFLOWING)
    return places


def chosen(deltas: Tensor, places: Tensor) -> Tensor:
    """The weight errors, [out, group], that each row's share leaves. deltas: of `try_shares`."""
    return deltas[torch.arange(len(deltas), device=deltas.device), places]
