"""The step of benchmarks/learned_rotation.py among the orthogonal matrices."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from learned_rotation import cayley_step


def drawn(n: int, seed: int) -> torch.Tensor:
    return torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(deadline=None)
@given(n=st.integers(2, 24), seed=st.integers(0, 1000), rate=st.floats(1e-3, 100))
def test_a_step_stays_among_the_rotations(n: int, seed: int, rate: float) -> None:
    turn = torch.linalg.qr(drawn(n, seed)).Q
    after = cayley_step(turn, drawn(n, seed + 1), rate)
    torch.testing.assert_close(after @ after.T, torch.eye(n, dtype=torch.float64))
    assert torch.linalg.det(after).sign() == torch.linalg.det(turn).sign()


def test_steps_find_the_nearest_rotation() -> None:
    """Procrustes: of all rotations, U·Vᵀ of the target's SVD is nearest to it."""
    target = torch.eye(6, dtype=torch.float64) + 0.3 * drawn(6, 3)
    u, _, v = torch.linalg.svd(target)
    turn = torch.eye(6, dtype=torch.float64)
    for _ in range(500):
        turn = cayley_step(turn, turn - target, 0.1)
    assert torch.linalg.det(target) > 0
    torch.testing.assert_close(turn, u @ v, atol=1e-6, rtol=0)
