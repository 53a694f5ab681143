"""The search of static ranges, against every share that is tried."""

import numpy as np
import pytest
import torch
from torch import Tensor

from radquant.quantization import calibration_statistics
from radquant.quantization.calibration_statistics import search_range
from radquant.runtime.activations import quantize_activations
from radquant.settings.precision import Activations


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def error_of_range(x: np.ndarray, keep: float, bits: int, symmetric: bool) -> tuple[float, ...]:
    """Squared error, scale and zero for a share of the range of x."""
    low, high = min(x.min(), 0) * keep, max(x.max(), 0) * keep
    if symmetric:
        largest = 2 ** (bits - 1) - 1
        scale, zero, ends = max(-low, high) / largest, 0.0, (-largest, largest)
    else:
        scale = (high - low) / (2**bits - 1)
        zero, ends = np.round(-low / scale), (0, 2**bits - 1)
    rounded = (np.clip(np.round(x / scale) + zero, *ends) - zero) * scale
    return float(((rounded - x) ** 2).sum()), scale, zero


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("granularity", ["tensor", "group"])
@pytest.mark.parametrize("kind", ["normal", "outlier", "positive"])
def test_a_static_range_is_the_best_of_all_tried(
    bits: int, symmetric: bool, granularity: str, kind: str
) -> None:
    x = random(200, 64, seed=bits)
    if kind == "outlier":
        x[17, 40] = 1000
    elif kind == "positive":
        x = x.abs() + 3
    rounding = Activations(
        bits=bits, granularity=granularity, group_size=32, symmetric=symmetric, range="static"
    )
    found = search_range(x, rounding)
    parts = [x[:, :32], x[:, 32:]] if granularity == "group" else [x]
    assert found.scale.shape == found.zero.shape == (len(parts),)
    for place, part in enumerate(parts):
        values = part.double().numpy()
        tried = [
            error_of_range(values, calibration_statistics.RANGE_STEP**step, bits, symmetric)
            for step in range(calibration_statistics.RANGE_STEPS)
        ]
        rounded = (values / float(found.scale[place])).round() + float(found.zero[place])
        rounded = rounded.clip(found.low, found.high) - float(found.zero[place])
        error = ((rounded * float(found.scale[place]) - values) ** 2).sum()
        assert error <= min(tried)[0] * (1 + 1e-4)
        assert any(
            np.isclose(float(found.scale[place]), scale) and float(found.zero[place]) == zero
            for _, scale, zero in tried
        )


def test_outliers_leave_something_for_the_rest() -> None:
    """Covered whole, ten values of 64,000 would cost all others nearly everything in 4 bits."""
    x = random(1000, 64, seed=3)
    x[::100, 5] = 30
    rounding = Activations(bits=4, granularity="tensor", range="static")
    found = search_range(x, rounding)
    assert float(found.scale) < 0.3 * 30 / 7
    ordinary = x[x < 30]
    lost = quantize_activations(ordinary[None, :, None], rounding, static=found)
    assert (lost[0, :, 0] - ordinary).square().sum() < 0.1 * ordinary.square().sum()


@pytest.mark.parametrize("every", [1, 5])
def test_a_rough_search_looks_at_fewer_shares(every: int) -> None:
    """One in so many, the whole range among them."""
    x = random(200, 64, seed=4)
    rounding = Activations(bits=4, granularity="tensor", range="static")
    scale = float(search_range(x, rounding, every).scale)
    share = scale * 7 / float(x.abs().max())
    step = np.log(share) / np.log(calibration_statistics.RANGE_STEP)
    assert step / every == pytest.approx(round(step / every), abs=1e-3)
