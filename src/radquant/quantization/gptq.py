"""GPTQ (Frantar et al., 2022, arXiv:2210.17323): rounding that lets later columns make good.

The columns of W are rounded one after the other. What rounding a column does to the outputs is
compensated, as well as possible, by the columns that are not rounded yet. With H = X·Xᵀ in the
order of processing and H = R·Rᵀ, R upper triangular, column j is rounded from

    w_j + Σ_{i<j} (w_i − q_i)·R_ij / R_jj

where w are the original and q the rounded columns. This is the paper's algorithm with its recursion
solved: its rows of Cholesky(H⁻¹) are R⁻¹ (Chee et al., 2023, arXiv:2307.13304, theorem 6). It needs
one factorization instead of three, and no inverse.
"""

import warnings

import torch
from torch import Tensor

from radquant.errors import UserError
from radquant.finite import NOT_FINITE
from radquant.packed.grid import (
    QuantizedWeight,
    by_group,
    find_grid,
    find_kept_grid,
    shared_by_rows,
    stored,
)
from radquant.packed.types.kind import NumberType, number_type
from radquant.settings.recipe import WHOLE_ROW, Recipe

BLOCK = 128  # columns that get the earlier columns' feedback in one product, as in the paper
DAMPINGS = 4  # the asked one, then ten times more each


def processing_order(gram: Tensor) -> Tensor:
    """Columns by falling diagonal of H, [in] int64; equal ones stay in their order."""
    return gram.diagonal().argsort(descending=True, stable=True)


def factorize(gram: Tensor, columns: Tensor, damp_percent: float) -> Tensor:
    """L with L·Lᵀ = H[columns][:, columns] + damping, lower triangular [in, in] float32.

    A channel that was always zero gets a diagonal of its own, so it neither gives nor takes
    feedback. Takes one more matrix of H's size. Raises UserError if H has no factor.
    """
    diagonal = gram.diagonal()
    if not torch.isfinite(diagonal).all():
        raise UserError(NOT_FINITE.format(""))
    live = diagonal != 0
    # In float64, so that it does not depend on the order of the channels.
    mean = diagonal[live].double().mean().float() if live.any() else diagonal.new_ones(())
    info = torch.zeros((), dtype=torch.int32, device=gram.device)
    for step in range(DAMPINGS):
        share = damp_percent * 10**step
        matrix = gram[columns[:, None], columns]
        matrix.diagonal().add_(torch.where(live, share * mean, mean)[columns])
        # The transpose of a symmetric matrix is itself, in the layout LAPACK factorizes in place.
        factor, _ = torch.linalg.cholesky_ex(matrix.mT, out=(matrix.mT, info))
        if int(info) == 0:
            if step:
                warnings.warn(f"GPTQ raised damp_percent to {share:g} for a layer", stacklevel=3)
            return factor
    raise UserError(
        f"the Gram matrix of a linear layer's inputs is not positive definite even with "
        f"damp_percent {share:g}; the statistics are damaged: make the calibration set again"
    )


def round_scaled(
    weight: Tensor, scale: Tensor, columns: Tensor, factor: Tensor, recipe: Recipe
) -> Tensor:
    """What GPTQ's rounding makes of [out, in] weights under AWQ's scale, [in]: the weights that
    W·diag(s) is rounded to, times diag(s)⁻¹, [out, in] float32.

    columns, factor: of H, the inputs' Gram matrix without the scale, so that one factor serves
    every scale. Rounding W·diag(s) for inputs x / s is rounding W for x, on a grid of which every
    column has its own width.
    """
    grid = find_grid(by_group(weight * scale, recipe.group_size), recipe)
    size = weight.shape[1] // grid[0].shape[1]
    integers = round_columns(
        weight.T[columns], factor, columns // size, grid, recipe, scale[columns]
    )
    codes = by_group(integers[columns.argsort()].T, size).float()
    scaled = number_type(recipe.type).values(codes, grid[0][..., None], grid[1][..., None], recipe)
    return scaled.flatten(-2).div_(scale)


def quantize_gptq(
    weight: Tensor, gram: Tensor, recipe: Recipe, keep: Tensor | None = None
) -> QuantizedWeight:
    """Quantize [out, in] float32 weights for inputs with Gram matrix X·Xᵀ, [in, in] float32.

    keep: the share of each group's range, [out, groups], as in `grid.quantize`; not with desc_act.

    Grids are those of the original weights' groups, so the result can be stored where no group
    index can. With desc_act, groups are formed in the order of processing. A group's grid is found
    from its weights when the first of them is due. A channel that was always zero in calibration
    keeps its weight, rounded to nearest. The paper's code zeroes it. Here the model still answers
    to such a channel. Raises UserError if H cannot be factorized.
    """
    if recipe.desc_act and keep is not None:
        raise ValueError("a kept range belongs to groups of neighbours, desc_act forms others")
    weight = weight.float()
    width = weight.shape[1]
    group_size = width if recipe.group_size == WHOLE_ROW else recipe.group_size
    # Reversed: the triangle that is needed, H = R·Rᵀ, is then LAPACK's, and columns are taken
    # from the last to the first.
    columns = processing_order(gram).flip(0)
    groups = columns // group_size
    if recipe.desc_act:
        groups = torch.arange(width - 1, -1, -1, device=gram.device) // group_size
    by_groups = by_group(weight, group_size)
    outer = shared_by_rows(by_groups, recipe)
    grid = find_kept_grid(by_groups, recipe, keep, outer)
    integers = round_columns(
        weight.T[columns],
        factorize(gram, columns, recipe.damp_percent),
        groups,
        grid,
        recipe,
    )
    places = columns.argsort()
    index = groups[places].to(torch.int32) if recipe.desc_act else None
    return stored(integers[places].T.contiguous(), grid, by_groups, recipe, index, outer)


def round_columns(
    rows: Tensor,
    factor: Tensor,
    groups: Tensor,
    grid: tuple[Tensor, Tensor],
    recipe: Recipe,
    divisors: Tensor | None = None,
) -> Tensor:
    """The codes of weights given with their columns as `rows`, [in, out] uint8.

    rows: the weights in reversed order of processing, [in, out]; used up.
    groups: each row's group, [in] int64.
    grid: scales and zeros, [out, groups] each; with desc_act of several groups they are found here.
    divisors: [in], by which the grid is finer for each row.
    """
    width, (scales, zeros) = len(rows), grid
    kind = number_type(recipe.type)
    # A grid that is found on the way needs its group's weights as compensated so far. So each group
    # begins with a block.
    finds_grid = recipe.desc_act and scales.shape[1] > 1
    block = width // scales.shape[1] if finds_grid else BLOCK
    integers = torch.empty(rows.shape, dtype=torch.uint8, device=rows.device)
    for end in range(width, 0, -block):
        start = max(end - block, 0)
        size = end - start
        feedback = factor[start:, start:end] / factor.diagonal()[start:end]
        targets = torch.addmm(rows[start:end], feedback[size:].T, rows[end:])
        if finds_grid:
            group = (width - end) // block
            weights = compensated(targets, rows[start:end], feedback[:size])
            scales[:, group], zeros[:, group] = find_grid(weights.T, recipe)
        of_block = groups[start:end]
        steps, offsets = scales.T[of_block], zeros.T[of_block]
        if divisors is not None:
            steps, offsets = kind.narrowed(steps, offsets, divisors[start:end, None])
        integers[start:end] = round_block(
            targets, rows[start:end], feedback[:size], (steps, offsets), kind, recipe
        )
    return integers


def compensated(targets: Tensor, rows: Tensor, feedback: Tensor) -> Tensor:
    """The weights that compensate all blocks before best, none of the block's being rounded.

    Arguments and result as in `round_block`. A target holds only the feedback of the blocks before;
    columns that are free to follow it give feedback to each other, too.
    """
    moved = torch.linalg.solve_triangular(
        feedback.T, targets - rows, upper=True, unitriangular=True
    )
    return rows + moved


def round_block(
    targets: Tensor,
    rows: Tensor,
    feedback: Tensor,
    grid: tuple[Tensor, Tensor],
    kind: NumberType,
    recipe: Recipe,
) -> Tensor:
    """Round a block's columns from the last to the first; returns the codes, [block, out].

    targets: the weights with the feedback of all blocks before, [block, out].
    rows: the original weights, [block, out]; replaced by their distance from the rounded ones.
    feedback: R_ij / R_jj at [i, j], [block, block]; the lower triangle counts.
    grid: scale and zero of every weight, [block, out] each.
    """
    integers = torch.empty_like(targets)
    for column in range(len(rows) - 1, -1, -1):
        done = slice(column + 1, None)
        target = torch.addmv(targets[column], rows[done].T, feedback[done, column])
        scale, zero = grid[0][column], grid[1][column]
        integers[column] = kind.nearest(target, scale, zero, recipe)
        rows[column] -= kind.values(integers[column].clone(), scale, zero, recipe)
    return integers
