"""Patients drawn with replacement: the sums on which every bootstrap of the report rests."""

import numpy as np

# Patients drawn at a time, over all resamples: what a core's cache holds.
CHUNK = 100_000
ROWS = 64  # resamples multiplied at a time; a product of fewer waits for memory


def sums_of_draws(columns: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Return each column's sums over as many draws of as many patients, [resamples, columns].

    columns: float64 [patients, columns]. All columns have the same draws: how often each patient is
    drawn is counted once, and one product adds up every column. A sum is the same whatever other
    columns stand beside it and in whatever order a processor adds, because no step of it rounds
    before the last.
    """
    count = len(columns)
    coarse = _rounded(columns)
    fine = _rounded(columns - coarse)
    two = fine.any(axis=0)  # whole numbers need no second part
    parts = np.concatenate([coarse, fine[:, two]], axis=1)
    sums = np.empty((resamples, columns.shape[1]))
    rows = max(1, CHUNK // count)
    block = rows * -(-ROWS // rows)
    for start in range(0, resamples, block):
        times = np.empty((min(block, resamples - start), count))
        for first in range(0, len(times), rows):
            some = times[first : first + rows]
            some[:] = _times_drawn(rng, len(some), count)
        found = times @ parts
        sums[start : start + block] = found[:, : columns.shape[1]]
        sums[start : start + block, two] += found[:, columns.shape[1] :]
    return sums


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
    return np.round(columns / unit) * unit
