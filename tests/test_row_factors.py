"""By what a row of a rounded layer was multiplied, where ranges cut weights off and where not."""

import pytest
import torch
from torch import Tensor

from radquant.verification.folding import row_factors


def rounded(weights: Tensor, keep: float, bits: int) -> Tensor:
    """Rounded to nearest in groups of 64, of whose ranges `keep` is kept."""
    groups = weights.unflatten(1, (-1, 64))
    low, high = (
        keep * end for end in (groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True))
    )
    step = (high - low) / (2**bits - 1)
    zero = (-low / step).round()
    return (((groups / step).round() + zero).clamp(0, 2**bits - 1) - zero).mul(step).flatten(1)


@pytest.mark.parametrize("bits", [4, 8])
def test_what_a_range_cuts_off_does_not_make_a_factor_small(bits: int) -> None:
    made = torch.Generator().manual_seed(0)
    aim = torch.randn(50, 512, generator=made)
    aim[:, 100] *= 30  # outweighs all others of its row
    factor = torch.rand(50, generator=made) + 0.5
    weight = rounded(aim * factor[:, None], 0.6, bits)
    least_squares = (weight * aim).sum(1) / aim.square().sum(1)
    assert bool((least_squares < 0.9 * factor).any())
    assert torch.allclose(row_factors(weight, aim), factor, rtol=0.1)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_where_nothing_is_cut_off_it_is_that_of_least_squares(bits: int) -> None:
    made = torch.Generator().manual_seed(1)
    aim = torch.randn(50, 512, generator=made)
    weight = rounded(1.5 * aim, 1.0, bits)
    least_squares = (weight * aim).sum(1) / aim.square().sum(1)
    assert torch.allclose(row_factors(weight, aim), least_squares, rtol=0.1)


def test_rows_of_zeros_have_one() -> None:
    assert row_factors(torch.zeros(3, 64), torch.zeros(3, 64)).tolist() == [1, 1, 1]
    assert row_factors(torch.zeros(0, 64), torch.zeros(0, 64)).shape == (0,)
