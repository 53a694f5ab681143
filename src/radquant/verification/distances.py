"""How far one matrix of a checkpoint lies from what it should be, and how far it may.

All that damage does to a linear layer shows in one of these: its weights are far off as a whole,
too large or small, moved to one side by whole steps of their grid (zero points), or off in some
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
# Weights that are fitted to inputs of so many bits make good for what rounding does to these, and
# are far from the original's on purpose.
FITTED = {
    8: Bounds(0.4, 0.1, 0.3, 0.2, 0.7, inf, 0.2),
    4: Bounds(1.0, 0.3, 0.8, 0.6, 1.3, inf, 0.6),
}
MOST_SHIFT, MOST_ROW_SHIFT, MOST_GROUP_SHIFT = 0.25, 0.6, 0.85
HALF_STEP = 0.6  # the rms that rounding alone leaves is below
# Steps, and a share of a weight: rounding to nearest of scaled weights in 16 bits stays below.
FAR, FAR_SHARE = 1.5, 0.1
GROUP = 32
# How far from 1 the part of a row along what it should be is, before the row counts as lost.
MOST_ALONG = 0.5
# How much farther off than a lost one a row or column may be that is not lost. Those of GPTQ by
# llm-compressor on SmolLM2 are 2.1 and 1.5 times as far.
MORE_UNLESS_LOST = 3
FEWEST_NEIGHBOURS = 4
# Of the numbers around a weight: what makes their median a standard deviation, and the least.
USUAL, LEAST_USUAL = 1.48, 0.15
# In these units, by bits; GPTQ's words on SmolLM2 have at most 3.2, and of four weights 5.1. Words
# with all bits flipped have 10 and more.
MOST_OF_WORD = {3: 6.0, 4: 6.0, 8: 12.0}


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
    size: float  # <W, A> / <A, A>
    shift: float
    row_shift: float
    group_shift: float
    row: float
    column: float
    strays: int
    word: float  # as `worst_word` measures it, where there are strays


def distance(name: str, mine: Linear, aim: Tensor) -> Distance:
    """Measure a linear layer. aim: what its weights should be near to, [out, in] float32."""
    size = GROUP if aim.shape[1] % GROUP == 0 else aim.shape[1]
    sums, largest = torch.zeros(3, dtype=torch.float64), torch.zeros(3)
    columns = torch.zeros(2, aim.shape[1], dtype=torch.float64)
    for part in blocks(mine, aim):
        some_sums, some_largest, some_columns = measure(*part, size)
        sums, columns = sums + some_sums, columns + some_columns
        largest = torch.maximum(largest, some_largest)
    along, shift, strays = sums.tolist()
    error, squared = columns.sum(1).tolist()
    word = 0.0
    if strays:
        held = torch.cat([held_in(*part, size) for part in blocks(mine, aim)])
        word = worst_word(held, 32 // mine.bits if mine.bits in (4, 8) else 8)
    row_shift, group_shift, row = largest.tolist()
    return Distance(
        name,
        mine.bits,
        (error / squared) ** 0.5 if squared else float(error > 0),
        1 + along / squared if squared else 1.0,
        abs(shift) / len(aim),
        row_shift,
        group_shift,
        row,
        worst_column(mine, aim, columns[0] > columns[1]),
        int(strays),
        word,
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


def measure(weight: Tensor, step: Tensor, aim: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of some rows: sums of <W − A, A>, of the rows' shifts, and of strays, [3]; the largest shift
    of a row and of a group, and `worst_row`, [3]; and the squared lengths of the columns of W − A
    and of A, [2, in]. size: of groups."""
    apart = weight - aim
    steps = apart / step
    groups = steps.unflatten(1, (-1, size))
    shifts = groups.mean(-1)
    of_rows = shifts.mean(1)
    # What ends of ranges cut off, and strays, lie in groups where something is off by more.
    some = ~(groups.abs().amax(-1) <= 0.5)
    parts = [each.unflatten(1, (-1, size))[some] for each in (weight, step, aim, apart, steps)]
    weight_some, step_some, aim_some, apart_some, steps_some = parts
    outward = clipped(weight_some, apart_some, size)
    shifts[some] = hold(steps_some, outward).mean(-1)
    far = apart_some.abs() > FAR * step_some + FAR_SHARE * aim_some.abs()
    strays = (far & ~outward).sum()
    along = (apart * aim).sum()
    row = worst_row(apart, aim, rms(steps, 1))
    return (
        torch.stack([along, of_rows.sum(), strays]),
        torch.tensor([of_rows.abs().amax(), shifts.abs().amax(), row]),
        torch.stack([apart.square().sum(0), aim.square().sum(0)]),
    )


def hold(steps: Tensor, outward: Tensor) -> Tensor:
    """Steps without what ends of ranges cut off."""
    return torch.where(outward, steps.clamp(-0.5, 0.5), steps)


def held_in(weight: Tensor, step: Tensor, aim: Tensor, size: int) -> Tensor:
    apart = weight - aim
    return hold(apart / step, clipped(weight, apart, size))


def linear_checks(one: Distance, fitted: int | None = None) -> Iterator[Check]:
    """What is judged of a linear layer by itself. fitted: to inputs of how many bits, if it is."""
    bounds = bounds_of(one.bits, fitted)

    def check(kind: str, measured: float, bound: float) -> Check:
        return Check(f"{one.name}: {kind}", measured, bound)

    off = one.size - 1
    yield check(WEIGHTS, one.weights, bounds.weights)
    yield check(SCALE, abs(off), bounds.larger if off > 0 else bounds.smaller)
    yield check(ROWS, one.row, bounds.row)
    yield check(COLUMNS, one.column, bounds.column)
    if fitted is None:
        yield check(SHIFT, one.shift, MOST_SHIFT)
        yield check(ROW_SHIFT, one.row_shift, MOST_ROW_SHIFT)


def neighbour_checks(found: Sequence[Distance], fitted: int | None = None) -> Iterator[Check]:
    """What shows beside other layers alone.

    Where most layers were rounded to nearest, so were all: a weight that is far from the original's
    is damage then, and no work of GPTQ.
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
    if median(one.strays for one in found):
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

    What GPTQ adds to make good for others may be longer than a row, and leaves the row in the sum:
    then the part of W along A is A. It is none of A in a row that belongs elsewhere.
    """
    along = (apart * aim).sum(dim) / aim.square().sum(dim).clamp(min=1e-30)
    return along.abs() > MOST_ALONG


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


def worst_word(steps: Tensor, run: int) -> float:
    """How far the weights of a word lie from the original's, beside those around it.

    A word holds `run` neighbours of a row or of a column. GPTQ may move any of them far, and all of
    a column or of a row's group; more than half of a word, it moves as far as those around it.
    steps: [out, in].
    """
    beside = steps.abs()
    beside = beside / (USUAL * medians(beside.T)).clamp(min=LEAST_USUAL)
    if steps.shape[1] % GROUP == 0:
        groups = beside.unflatten(1, (-1, GROUP))
        beside = (groups / (USUAL * medians(groups)[..., None]).clamp(min=1)).flatten(1)
    dims = [d for d in (0, 1) if steps.shape[d] % run == 0]
    words = [beside.unflatten(d, (-1, run)).movedim(d + 1, -1) for d in dims]
    found = [medians(each).max() for each in words]
    return max(map(float, found), default=0.0)


def clipped(weight: Tensor, apart: Tensor, size: int) -> Tensor:
    """Which weights lie at the end of their group's range, and should be beyond it."""
    groups = weight.unflatten(1, (-1, size))
    top = (groups >= groups.amax(-1, keepdim=True)).flatten(1) & (apart < 0)
    return top | ((groups <= groups.amin(-1, keepdim=True)).flatten(1) & (apart > 0))
