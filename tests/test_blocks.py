"""What is measured of a matrix some rows at a time is what its whole says."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from radquant.packed.formats import Settings
from radquant.packed.grid import QuantizedWeight
from radquant.verification import blocks
from radquant.verification.distances import Distance, distance
from radquant.verification.folding import relative_error
from radquant.verification.reading import Linear, step_of, step_of_values


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rounded(aim: torch.Tensor, size: int) -> Linear:
    """To 4 bits about 0 in groups of `size`, the ends of ranges cut off, and two places damaged."""
    groups = aim.unflatten(1, (-1, size))
    scales = groups.abs().amax(-1) / 5
    weight = ((groups / scales[..., None]).round().clamp(-4, 4) * scales[..., None]).flatten(1)
    weight[3, 5] += 9
    weight[17] *= -1
    weight[:, 1] += 5
    return Linear(weight, scales, 4)


def measured(mine: Linear, aim: torch.Tensor) -> list[float]:
    found = vars(distance("l", mine, aim))
    return [float(value) for name, value in found.items() if name != "name"]


@pytest.mark.parametrize("width", [96, 40])
def test_parts_make_the_whole(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    aim = random(48, width)
    mine = rounded(aim, width // 8 if width == 40 else 32)
    whole = measured(mine, aim)
    each = Linear(mine.weight, mine.step.repeat_interleave(width // mine.step.shape[1], 1), 4)
    assert measured(each, aim) == whole
    for size in (1, 5 * width, 31 * width):
        monkeypatch.setattr(blocks, "WEIGHTS", size)
        assert measured(mine, aim) == pytest.approx(whole, rel=1e-5)


def test_distances_are_what_their_names_say() -> None:
    aim = random(48, 96)
    mine = rounded(aim, 32)
    found: Distance = distance("l", mine, aim)
    a, w = aim.double(), mine.weight.double()
    steps = (w - a) / mine.step.double().repeat_interleave(32, 1)
    assert found.weights == pytest.approx(float((w - a).norm() / a.norm()))
    assert found.cut_size == pytest.approx(float((w * a).sum() / (a * a).sum()))
    assert found.shift == pytest.approx(abs(float(steps.mean())))
    rows = (w - a).norm(dim=1) / a.norm(dim=1)
    assert found.row == pytest.approx(float(rows[17]))
    held, strays = 0.0, 0
    for row in range(48):
        for start in range(0, 96, 32):
            values = []
            group = w[row, start : start + 32]
            for place in range(32):
                step, off = float(steps[row, start + place]), float((w - a)[row, start + place])
                end = group.max() if off < 0 else group.min()
                out = bool(group[place] == end)
                values.append(min(max(step, -0.5), 0.5) if out else step)
                least = 1.5 * off / step + 0.1 * abs(float(a[row, start + place]))
                strays += abs(off) > least and not out
            held = max(held, abs(sum(values)) / 32)
    assert (found.group_shift, found.strays) == (pytest.approx(held), strays)
    assert strays > 0


def test_no_row_and_no_column_of_a_sound_layer_is_off() -> None:
    aim = random(64, 64)
    step = torch.full((64, 2), 0.1)
    found = distance("l", Linear((aim / 0.1).round() * 0.1, step, 8), aim)
    assert (found.row, found.column, found.strays, found.word) == (0, 0, 0, 0)


@given(st.integers(1, 9), st.integers(1, 40), st.integers(0, 99))
def test_medians_are_those_of_pytorch(rows: int, count: int, seed: int) -> None:
    values = random(rows, 3, count, seed=seed)
    assert torch.equal(blocks.medians(values), values.median(-1).values)
    assert torch.equal(blocks.medians(values[:, 0].T), values[:, 0].median(0).values)


def test_an_error_beside_scaled_rows_and_columns() -> None:
    weight, aim = random(300, 700), random(300, 700, seed=1)
    rows, columns = random(300, seed=2), random(700, seed=3)
    expected = aim.double() * rows.double()[:, None] * columns.double()
    found = relative_error(weight, aim, rows, columns)
    assert found == pytest.approx(float((weight - expected).norm() / expected.norm()))
    assert relative_error(aim, aim) == relative_error(0 * aim, 0 * aim) == 0
    assert relative_error(aim, 0 * aim) == math.inf
    sums = blocks.column_sums(weight, aim)
    torch.testing.assert_close(sums, (weight.double() * aim.double()).sum(0).float())


@pytest.mark.parametrize("channel", [False, True])
@pytest.mark.parametrize("ordered", [False, True])
def test_a_step_is_what_one_more_adds(channel: bool, ordered: bool) -> None:
    scales = random(8, 4).abs().half() + 0.1
    zeros = torch.full((8, 4), 7, dtype=torch.uint8)
    index = torch.arange(32).flip(0) // 8 if ordered else None
    channels = torch.rand(8).half() + 0.1 if channel else None
    integers = torch.arange(256).view(8, 32).to(torch.uint8) % 15

    def weight(integers: torch.Tensor) -> QuantizedWeight:
        return QuantizedWeight(integers, scales, zeros, index, channels)

    values = weight(integers).dequantize()
    step = step_of(weight(integers), values, Settings("gptq", 4, 8, True))
    expected = (weight(integers + 1).dequantize() - values).abs()
    torch.testing.assert_close(step.repeat_interleave(32 // step.shape[1], 1), expected)


def test_steps_of_values_are_those_of_their_groups() -> None:
    values = random(3, 512)
    step = step_of_values(values, 32, 4, in_super_blocks=True)
    for row, place in ((0, 0), (1, 300), (2, 511)):
        group = values[row, place // 32 * 32 :][:32].abs().max() / 7
        block = values[row, place // 256 * 256 :][:256].abs().max() / 63
        expected = max(group, block, values[row, place].abs() / 8)
        assert float(step[row, place]) == pytest.approx(float(expected))


def test_some_rows_tell_how_columns_are_scattered_where_nothing_was_moved() -> None:
    """A row's shift is nearly that by all rows, also of a row that is not among them."""
    aim = random(1100, 64)
    scales = aim.unflatten(1, (-1, 32)).abs().amax(-1) / 7
    step = scales.repeat_interleave(32, 1)
    weight = (aim / step).round() * step
    weight[7] += 0.5 * step[7]
    found = distance("layer", Linear(weight, scales, 4), aim)
    steps = (weight - aim) / step
    weights = (1.48 * steps.abs().median(0).values).clamp(min=0.29) ** -2
    mean = float((steps[7] * weights).sum() / weights.sum())
    assert found.moved == 0
    assert found.row_shift == pytest.approx(min(mean, float(steps[7].median())), rel=0.02)
