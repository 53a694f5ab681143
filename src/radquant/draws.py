"""Patients drawn with replacement: the sums on which every bootstrap of the report rests."""

import numpy as np

# Patients drawn at a time, over all resamples: what a core's cache holds.
CHUNK = 100_000
ROWS = 64  # resamples multiplied at a time; a product of fewer waits for memory


def sums_of_draws(columns: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Return each column's sums over as many draws of as many patients, [resamples, columns].

    columns: float64 [patients, columns]. All columns have the same draws: how often each patient is
    drawn is counted once, and one product adds up every column. A sum is the same whatever other
    columns stand beside it, and in whatever order a processor adds. No step of it rounds before the
    last.
    """
    count, width = columns.shape
    counted = _are_counts(columns)
    counts = columns[:, counted].astype(np.float32)
    coarse = _rounded(columns[:, ~counted])
    fine = _rounded(columns[:, ~counted] - coarse)
    sums = np.empty((resamples, width))
    rows = max(1, CHUNK // count)
    block = rows * -(-ROWS // rows)
    for start in range(0, resamples, block):
        times = np.empty((min(block, resamples - start), count), dtype=np.float32)
        for first in range(0, len(times), rows):
            some = times[first : first + rows]
            some[:] = _times_drawn(rng, len(some), count)
        found = sums[start : start + block]
        found[:, counted] = times @ counts
        if counted.all():
            continue
        times = times.astype(np.float64)
        found[:, ~counted] = times @ coarse + times @ fine
    return sums


def _are_counts(columns: np.ndarray) -> np.ndarray:
    """Tell of which columns every sum of draws is a whole number that float32 holds exactly."""
    small = len(columns) * np.maximum(columns.max(axis=0), -columns.min(axis=0)) <= 2**24
    return np.array([fits and not (x % 1).any() for fits, x in zip(small, columns.T, strict=True)])


def _times_drawn(rng: np.random.Generator, rows: int, count: int) -> np.ndarray:
    """Return how often each of `count` patients is among as many draws, int64 [rows, count]."""
    drawn = rng.integers(0, count, (rows, count))
    drawn += np.arange(rows)[:, None] * count
    return np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)


def _rounded(columns: np.ndarray) -> np.ndarray:
    """Round columns to multiples of a unit that leave every sum of draws exact in float64.

    No sum of as many draws as patients is further from 0 than the largest value times their number.
    What is lost is below 2⁻⁵² of that; rounded by itself, all but 2⁻⁵² of it is kept as well.
    """
    largest = len(columns) * np.abs(columns).max(axis=0)
    unit = np.ldexp(1.0, np.maximum(np.frexp(largest)[1] - 52, -1000))
    return np.asarray(np.round(columns / unit) * unit)
