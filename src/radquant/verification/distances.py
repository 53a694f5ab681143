"""How far one matrix of a checkpoint lies from what it should be, and how far it may.

All damage to a linear layer shows in one of these. Its weights are far off as a whole, too large or
small, or moved to one side by whole steps of their grid (zero points). Or they are off in some
rows, columns or single places. Rounding to nearest moves a weight by half a step, GPTQ by a few:
both are known beforehand, whatever the model.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from math import inf
from statistics import median

import torch
from torch import Tensor

from radquant.verification.blocks import medians, row_blocks
from radquant.verification.reading import Linear
from radquant.verification.selftest import Check

WEIGHTS, SCALE, SHIFT = "weights", "size of its weights", "shift of its weights in steps"
ROW_SHIFT, GROUP_SHIFT = "shift of a row in steps", "shift of a group in steps"
ROWS, COLUMNS, STRAYS = "a row", "a column", "weights that rounding does not explain"
BESIDE = "size of its weights beside other layers'"
WORD = "half of a word beside the weights around it"
NORM = "norm beside the layers that read it"


@dataclass(frozen=True)
class Bounds:
    """The most for each number of bits: of sound checkpoints by every method, with room above."""

    weights: float  # ‖W − A‖ / ‖A‖
    larger: float  # how much larger or smaller than A the part of W along A is
    smaller: float
    beside: float  # the same, relative to other layers of its kind
    row: float  # ‖w − a‖ / ‖a‖ of a row
    column: float  # of a column, in steps
    norm: float  # of a norm's channels beside the columns of what reads them


BOUNDS = {
    2: Bounds(1.2, 0.15, 0.65, 0.4, 1.3, 1.2, 0.6),
    3: Bounds(0.7, 0.06, 0.25, 0.12, 1.1, 1.8, 0.2),
    4: Bounds(0.4, 0.03, 0.12, 0.07, 0.7, 2.5, 0.07),
    5: Bounds(0.2, 0.03, 0.06, 0.04, 0.4, 3.0, 0.05),
    6: Bounds(0.1, 0.02, 0.03, 0.03, 0.3, 3.0, 0.03),
    8: Bounds(0.06, 0.02, 0.02, 0.02, 0.2, 4.0, 0.02),
}
# By the bits of rounded inputs. Weights that are fitted to them make up for that rounding, and are
# far from the original's on purpose.
FITTED = {
    8: Bounds(0.4, 0.1, 0.3, 0.2, 0.7, inf, 0.2),
    4: Bounds(1.0, 0.3, 0.8, 0.6, 1.3, inf, 0.6),
}
MOST_SHIFT, MOST_ROW_SHIFT, MOST_GROUP_SHIFT = 0.25, 0.5, 0.85
HALF_STEP = 0.6  # the rms that rounding alone leaves is below
# A weight is far off by so many steps and this share of itself. Rounding to nearest of scaled
# weights in 16 bits stays below.
FAR, FAR_SHARE = 1.5, 0.1
GROUP = 32
# A row counts as lost when its part along what it should be is farther from 1 than this. It must
# also be so many standard deviations of what chance makes of it.
MOST_ALONG, MOST_BY_CHANCE = 0.5, 4
# A row or column that is not lost may be so many times as far off as a lost one. Those of GPTQ by
# llm-compressor on SmolLM2 are 2.1 and 1.5 times as far.
MORE_UNLESS_LOST = 3
# The bound of a layer's smaller weights may be exceeded so many times where the ends of ranges cut
# them.
MORE_IF_CUT = 1.9
FEWEST_NEIGHBOURS = 4
# The median of the numbers around a weight, times this, is their standard deviation. The other is
# the least that it counts as.
USUAL, LEAST_USUAL = 1.48, 0.15
# By bits, in these standard deviations. GPTQ's words on SmolLM2 have at most 3.2, and those of four
# weights 5.2. Most words with all bits flipped have 6 and more. Layers of few rows or columns tell
# less well what is usual, and have up to 6.9 where columns differ much in size.
MOST_OF_WORD = {3: 6.0, 4: 6.0, 8: 12.0}
FEW, MORE_OF_FEW = 256, 4 / 3
# GPTQ moved the weights of a layer if at least this share is off by more than a step.
LEAST_MOVED = 1e-3
SOME_ROWS = 512  # of a layer: the median of so many is known to a few percent
# The standard deviation of what rounding to nearest leaves, in steps.
ROUNDING = 0.29


def bounds_of(bits: int, fitted: int | None = None) -> Bounds:
    """Those of the most bits that are no more than `bits`. fitted: to inputs of how many bits."""
    own = BOUNDS[max((each for each in BOUNDS if each <= bits), default=2)]
    if fitted is None:
        return own
    other = FITTED[fitted]
    return Bounds(*(max(getattr(each, f.name) for each in (own, other)) for f in fields(Bounds)))


@dataclass(frozen=True)
class Distance:
    """What was measured of one linear layer."""

    name: str
    bits: int
    weights: float
    size: float  # <W, A> / <A, A>, without what the ends of ranges cut off
    cut_size: float  # with that
    shift: float
    row_shift: float
    group_shift: float
    row: float
    column: float
    strays: int
    moved: float  # the share of weights that are off by more than a step
    word: float  # as `worst_word` measures it; less where there are few


def distance(name: str, mine: Linear, aim: Tensor) -> Distance:
    """Measure a linear layer. aim: what its weights should be near to, [out, in] float32."""
    size = GROUP if aim.shape[1] % GROUP == 0 else aim.shape[1]
    sums, largest = torch.zeros(5, dtype=torch.float64), torch.zeros(2)
    columns, held = torch.zeros(2, aim.shape[1], dtype=torch.float64), torch.empty_like(aim)
    for rows, part in zip(row_blocks(aim), blocks(mine, aim), strict=True):
        some_sums, some_largest, some_columns, held[rows] = measure(*part, size)
        sums, columns = sums + some_sums, columns + some_columns
        largest = torch.maximum(largest, some_largest)
    along, cut, shift, strays, moved = sums.tolist()
    error, squared = columns.sum(1).tolist()
    group_shift, row = largest.tolist()
    # Where nothing was moved, no column is scattered much more than another, and some rows tell.
    some = slice(None) if moved else slice(None, None, max(1, len(held) // SOME_ROWS))
    scatter = USUAL * medians(held[some].T, absolute=True)
    run = 32 // mine.bits if mine.bits in (4, 8) else 8
    return Distance(
        name,
        mine.bits,
        (error / squared) ** 0.5 if squared else float(error > 0),
        1 + (along + cut) / squared if squared else 1.0,
        1 + along / squared if squared else 1.0,
        abs(shift) / aim.numel(),
        worst_shift(held, scatter),
        group_shift,
        row,
        worst_column(mine, aim, columns[0] > columns[1]),
        int(strays),
        moved / aim.numel(),
        worst_word(held, scatter, run) if moved else 0.0,
    )


def blocks(mine: Linear, aim: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """A layer's weights, their steps, and what they should be, of some rows at a time."""
    for rows in row_blocks(aim):
        yield mine.weight[rows], of_weights(mine.step[rows], aim.shape[1]), aim[rows]


def of_weights(step: Tensor, width: int) -> Tensor:
    """The step of each weight, [rows, width], where groups of neighbours have one."""
    if step.shape[1] != width:
        step = step.repeat_interleave(width // step.shape[1], dim=1)
    return step.clamp(min=torch.finfo(torch.float32).tiny)


def measure(
    weight: Tensor, step: Tensor, aim: Tensor, size: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return four tensors for some rows.

    The first is [5]. It has sums of <W − A, A>, of what ends of ranges take from it, of shifts, of
    strays and of what was moved. The second is [2]: the largest shift of a group, and `worst_row`.
    The third is [2, in]: the squared lengths of the columns of W − A, and of those of A itself. The
    last is the steps without what ends of ranges cut off, [rows, in]. size: of groups.
    """
    apart = weight - aim
    steps = apart / step
    shift, row = steps.sum(), worst_row(apart, aim, rms(steps, 1))
    groups = steps.unflatten(1, (-1, size))
    # What ends of ranges cut off, and strays, lie in groups where something is off by more.
    some = ~(groups.abs().amax(-1) <= 0.5)
    parts = [each.unflatten(1, (-1, size))[some] for each in (weight, step, aim, apart, steps)]
    weight_some, step_some, aim_some, apart_some, steps_some = parts
    outward = clipped(weight_some, apart_some, size)
    held = torch.where(outward, steps_some.clamp(-0.5, 0.5), steps_some)
    cut = ((held - steps_some) * step_some * aim_some).sum()
    beyond = apart_some.abs() - FAR_SHARE * aim_some.abs()
    moved = (beyond > step_some) & ~outward
    strays = moved & (beyond > FAR * step_some)
    groups[some] = held
    return (
        torch.stack([(apart * aim).sum(), cut, shift, strays.sum(), moved.sum()]),
        torch.tensor([groups.mean(-1).abs().amax(), row]),
        torch.stack([apart.square().sum(0), aim.square().sum(0)]),
        steps,
    )


def linear_checks(one: Distance, fitted: int | None = None) -> Iterator[Check]:
    """What is judged of a linear layer by itself. fitted: to inputs of how many bits, if it is."""
    bounds = bounds_of(one.bits, fitted)

    def check(kind: str, measured: float, bound: float) -> Check:
        return Check(f"{one.name}: {kind}", measured, bound)

    off = one.size - 1
    yield check(WEIGHTS, one.weights, bounds.weights)
    if off > 0:
        yield check(SCALE, off, bounds.larger)
    else:
        yield check(SCALE, max(-off, (1 - one.cut_size) / MORE_IF_CUT), bounds.smaller)
    yield check(ROWS, one.row, bounds.row)
    yield check(COLUMNS, one.column, bounds.column)
    if fitted is None:
        yield check(SHIFT, one.shift, MOST_SHIFT)
        yield check(ROW_SHIFT, one.row_shift, MOST_ROW_SHIFT)


def neighbour_checks(found: Sequence[Distance], fitted: int | None = None) -> Iterator[Check]:
    """What shows beside other layers alone.

    Where most layers were rounded to nearest, so were all. A weight that is far from the original's
    is then damage, and no work of GPTQ.
    """
    kinds: dict[tuple[str, int], list[Distance]] = {}
    for one in found:
        kind = re.sub(r"\.\d+\.", ".", one.name, count=1)
        kinds.setdefault((kind, one.bits), []).append(one)
    for (_, bits), ones in kinds.items():
        if len(ones) < FEWEST_NEIGHBOURS:
            continue
        usual, bound = median(one.size for one in ones), bounds_of(bits, fitted).beside
        for one in ones:
            measured = abs(one.size / usual - 1) if usual else 0.0
            yield Check(f"{one.name}: {BESIDE}", measured, bound)
    if not found:
        return
    if median(one.strays for one in found) or median(one.moved for one in found) > LEAST_MOVED:
        for one in found:
            if one.bits in MOST_OF_WORD and fitted is None:
                yield Check(f"{one.name}: {WORD}", one.word, MOST_OF_WORD[one.bits])
    else:
        for one in found:
            yield Check(f"{one.name}: {STRAYS}", one.strays, 0)
            yield Check(f"{one.name}: {GROUP_SHIFT}", one.group_shift, MOST_GROUP_SHIFT)


def rms(steps: Tensor, dim: int) -> Tensor:
    return steps.square().mean(dim).sqrt()


def lost(apart: Tensor, aim: Tensor, dim: int) -> Tensor:
    """Which rows (dim 1) or columns (dim 0) have not what they should be in them.

    What GPTQ adds to make up for others may be longer than a row, and leaves the row in the sum.
    The part of W along A is then A itself, and nothing of it in a row that belongs elsewhere. In a
    row that is small beside its steps, chance makes as much.
    """
    squares = aim.square().sum(dim, keepdim=True).clamp(min=1e-30)
    along = (apart * aim).sum(dim, keepdim=True) / squares
    chance = ((apart - along * aim) * aim).square().sum(dim).sqrt() / squares.squeeze(dim)
    along = along.squeeze(dim).abs()
    return (along > MOST_ALONG) & (along > MOST_BY_CHANCE * chance)


def as_if_lost(sizes: Tensor, apart: Tensor, aim: Tensor, dim: int) -> Tensor:
    """Sizes of what is off in rows or columns, in those that are not lost for so much less."""
    return torch.where(lost(apart, aim, dim), sizes, sizes / MORE_UNLESS_LOST)


def worst_row(apart: Tensor, aim: Tensor, steps: Tensor) -> float:
    """The largest ‖w − a‖ / ‖a‖ of a row, where more than rounding is off."""
    some = steps > HALF_STEP
    if not bool(some.any()):
        return 0.0
    apart, aim = apart[some], aim[some]
    sizes = apart.norm(dim=1) / aim.norm(dim=1).clamp(min=1e-30)
    return float(as_if_lost(sizes, apart, aim, 1).amax())


def worst_column(mine: Linear, aim: Tensor, some: Tensor) -> float:
    """The most steps that a column is off, of those that are off by more than they should be.

    some: which, [in] bool.
    """
    if not bool(some.any()):
        return 0.0
    step = torch.cat([part[:, some] for _, part, _ in blocks(mine, aim)])
    aim = aim[:, some]
    apart = mine.weight[:, some] - aim
    return float(as_if_lost(rms(apart / step, 0), apart, aim, 0).amax())


def worst_shift(steps: Tensor, scatter: Tensor) -> float:
    """How far the weights of a row are moved to one side, at most, in steps.

    A zero point that is off moves all of them. GPTQ moves some columns much more than others. So
    the mean weighs each by how little its weights are scattered, and the median must say the same.
    steps: [out, in]. scatter: of each column, [in].
    """
    weights = scatter.clamp(min=ROUNDING).square().reciprocal()
    mean = steps @ weights / weights.sum()
    worst = 0.0
    for rows in mean.abs().argsort(descending=True).split(FEW):
        if float(mean[rows[0]].abs()) <= worst:
            break  # no row after these is moved farther
        middle = medians(steps[rows])
        same = mean[rows].sign() == middle.sign()
        worst = max(worst, float((torch.minimum(mean[rows].abs(), middle.abs()) * same).amax()))
    return worst


def worst_word(steps: Tensor, scatter: Tensor, run: int) -> float:
    """How far the weights of a word lie from the original's, beside those around it.

    A word holds `run` neighbours of a row or of a column. GPTQ may move any of them far, and all of
    a column or of a row's group. It moves more than half of a word only as far as those around it.
    steps: [out, in]. scatter: of each column, [in].
    """
    beside = steps.abs() / scatter.clamp(min=LEAST_USUAL)
    if steps.shape[1] % GROUP == 0:
        groups = beside.unflatten(1, (-1, GROUP))
        beside = (groups / (USUAL * medians(groups)[..., None]).clamp(min=1)).flatten(1)
    if min(steps.shape) < FEW:
        beside = beside / MORE_OF_FEW
    dims = [d for d in (0, 1) if steps.shape[d] % run == 0]
    words = [beside.unflatten(d, (-1, run)).movedim(d + 1, -1) for d in dims]
    found = [medians(each).max() for each in words]
    return max(map(float, found), default=0.0)


def clipped(weight: Tensor, apart: Tensor, size: int) -> Tensor:
    """Which weights lie at the end of their group's range, and should be beyond it."""
    groups = weight.unflatten(1, (-1, size))
    top = (groups >= groups.amax(-1, keepdim=True)).flatten(1) & (apart < 0)
    return top | ((groups <= groups.amin(-1, keepdim=True)).flatten(1) & (apart > 0))
