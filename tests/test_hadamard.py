"""Rotations: orthogonal at every width, flat where Hadamard matrices exist, equal to a product."""

import math

import pytest
import scipy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from simulation import matrix

from radquant.errors import UserError
from radquant.runtime import hadamard

# Orders of Paley's two constructions, head widths, and widths of SmolLM2, Gemma 3, Qwen and Llama.
HADAMARD = [1, 2, 4, 8, 12, 20, 24, 28, 36, 44, 60, 64, 68, 76, 80, 96, 108, 128, 148, 256, 576]
HADAMARD += [640, 896, 1152, 1536, 2048]
WIDE_HADAMARD = [2560, 3072, 3584, 3840, 4864, 5120, 6912, 8192, 9728, 14336, 18944, 29568]
OTHERS = [3, 6, 9, 13, 52, 172, 215, 1376]


def is_hadamard(n: int) -> bool:
    """Whether the rotation of width n is a true Hadamard matrix."""
    return hadamard.hadamard_orders(n) is not None


def product(n: int) -> torch.Tensor:
    """The Kronecker product of the factors in float64, [n, n]."""
    made = torch.ones(1, 1, dtype=torch.float64)
    for factor in hadamard.factors(n):
        made = torch.kron(made, factor)
    return made


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("n", HADAMARD)
def test_hadamard_widths_are_orthogonal_and_flat(n: int) -> None:
    h = product(n)
    assert is_hadamard(n)
    torch.testing.assert_close(h.abs() * n**0.5, torch.ones_like(h), rtol=1e-12, atol=0)
    torch.testing.assert_close(h @ h.T, torch.eye(n, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", WIDE_HADAMARD)
def test_factors_of_wide_layers_are_small_hadamard_matrices(n: int) -> None:
    factors = hadamard.factors(n)
    assert is_hadamard(n)
    assert math.prod(map(len, factors)) == n
    assert sum(map(len, factors)) <= 200
    for h in factors:
        p = len(h)
        torch.testing.assert_close(h.abs() * p**0.5, torch.ones_like(h), rtol=1e-12, atol=0)
        torch.testing.assert_close(h @ h.T, torch.eye(p, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", OTHERS)
def test_other_widths_are_orthogonal_and_nearly_flat(n: int) -> None:
    h = product(n)
    assert not is_hadamard(n)
    assert h.abs().max() <= (2 / n) ** 0.5 + 1e-12
    torch.testing.assert_close(h @ h.T, torch.eye(n, dtype=torch.float64), rtol=0, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200))
def test_every_width_is_orthogonal(n: int) -> None:
    h = product(n)
    torch.testing.assert_close(h @ h.T, torch.eye(n, dtype=torch.float64), rtol=0, atol=1e-12)
    assert h.abs().max() <= (2 / n) ** 0.5 + 1e-12
    torch.testing.assert_close(matrix(n), h.float(), rtol=0, atol=1e-7)


@pytest.mark.parametrize("n", [1, 2, 64, 128, 512])
def test_powers_of_two_are_sylvesters(n: int) -> None:
    expected = torch.from_numpy(scipy.linalg.hadamard(n, dtype=float)) / n**0.5
    torch.testing.assert_close(product(n), expected)


@pytest.mark.parametrize("q", [7, 11, 13, 17, 19, 37])
def test_paleys_core_against_eulers_criterion(q: int) -> None:
    order = q + 1 if q % 4 == 3 else 2 * (q + 1)
    h = hadamard.paley(order) * order**0.5
    step = order // (q + 1)
    for row in range(q):
        for column in range(q):
            if row != column:
                is_square = pow(row - column, (q - 1) // 2, q) == 1
                assert round(float(h[step * (row + 1), step * (column + 1)])) == 2 * is_square - 1


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 150), st.sampled_from([(), (3,), (2, 3)]), st.booleans(), st.booleans())
def test_rotating_is_the_product_with_the_matrix(
    n: int, leading: tuple[int, ...], inverse: bool, signed: bool
) -> None:
    x, d = normal(*leading, n), hadamard.signs(n, 3)
    q = (torch.diag(d.double()) if signed else torch.eye(n, dtype=torch.float64)) @ product(n)
    found = hadamard.rotate(x, inverse, d if signed else None)
    torch.testing.assert_close(found, x @ (q.T if inverse else q))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.booleans())
def test_the_inverse_undoes(n: int, signed: bool) -> None:
    x, d = normal(2, n), hadamard.signs(n, 3) if signed else None
    torch.testing.assert_close(hadamard.rotate(hadamard.rotate(x, signs=d), True, d), x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_is_rotated_in_float32(dtype: torch.dtype) -> None:
    x = normal(5, 576).to(dtype)
    kept = x.clone()
    found = hadamard.rotate(x)
    assert found.dtype == dtype
    assert torch.equal(found, hadamard.rotate(x.float()).to(dtype))
    assert torch.equal(x, kept)


@pytest.mark.parametrize("n", [576, 2048, 11008, 14336])
def test_a_spike_becomes_flat(n: int) -> None:
    x = torch.zeros(1, n)
    x[0, 5] = n**0.5  # all of the vector's length in one channel
    rotated = hadamard.rotate(x)
    assert float(rotated.norm()) == pytest.approx(n**0.5)
    if is_hadamard(n):
        torch.testing.assert_close(rotated.abs(), torch.ones_like(x))
    else:
        assert float(rotated.abs().max()) <= 2**0.5 + 1e-5


def test_outlier_channels_no_longer_stand_out() -> None:
    x = normal(64, 576, dtype=torch.float32)
    x[:, [3, 100, 400]] *= 50
    rotated = hadamard.rotate(x, signs=hadamard.signs(576, 0))
    assert scipy.stats.kurtosis(x.flatten()) > 50
    assert abs(scipy.stats.kurtosis(rotated.flatten())) < 1


def test_heads_are_rotated_by_themselves() -> None:
    x = normal(2, 3, 4 * 20)
    heads = [hadamard.rotate(x[..., start : start + 20]) for start in range(0, 80, 20)]
    torch.testing.assert_close(hadamard.rotate_heads(x, 20), torch.cat(heads, dim=-1))
    with pytest.raises(UserError, match="80 channels are no whole number of heads of width 32"):
        hadamard.rotate_heads(x, 32)


def test_signs_are_the_same_for_ever() -> None:
    text = "".join("+-"[int(sign < 0)] for sign in hadamard.signs(20, 7))
    assert text == "-+-+--+--------++-++"
    wide = hadamard.signs(4096, 0)
    assert set(wide.tolist()) == {1.0, -1.0}
    assert abs(float(wide.mean())) < 0.05
    assert not torch.equal(wide, hadamard.signs(4096, 1))


def test_factors_made_under_inference_mode_serve_gradients() -> None:
    with torch.inference_mode():  # a width that no other test makes
        hadamard.rotate(torch.ones(2, 1204))
    x = torch.ones(2, 1204, requires_grad=True)
    hadamard.rotate(x).sum().backward()
    assert x.grad is not None
