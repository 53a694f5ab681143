"""How far readers agree: weighted kappa of pairs and Krippendorff's alpha of all.

Ratings are whole numbers, -1 where there is none, as an array [readers, units]; a unit is one
output of one report. Both measures are ratios of sums over units, so a table of sums for each
patient is all that a bootstrap by patient needs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

MISSING = -1
# Resampled weights held in memory at a time, as patients × resamples.
CHUNK = 2_000_000
LEVELS = ("nominal", "ordinal")
WEIGHTS = ("quadratic", "linear")


@dataclass(frozen=True)
class Agreement:
    """A coefficient and the ends of its bootstrap interval; None where one is not defined.

    `n` counts the units that it is from. `undefined` is the share of resamples in which it is not
    defined; these are left out.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    undefined: float


def coincidences(values: np.ndarray, categories: int) -> np.ndarray:
    """Return each unit's coincidences [units, categories, categories].

    They are ordered pairs of ratings of the same unit by two readers, each divided by the unit's
    ratings minus one. The source is Krippendorff 2011, Computing Krippendorff's Alpha-Reliability,
    step 2. A unit with fewer than two ratings has none.
    """
    counts = np.stack([(values == each).sum(axis=0) for each in range(categories)], axis=1)
    counts = counts.astype(np.float64)
    ratings = counts.sum(axis=1)
    pairs = counts[:, :, None] * counts[:, None, :]
    pairs -= np.einsum("uc,cd->ucd", counts, np.eye(categories))
    return np.where(ratings > 1, 1 / np.maximum(ratings - 1, 1), 0)[:, None, None] * pairs


def alpha(table: np.ndarray, level: str) -> np.ndarray:
    """Return Krippendorff's alpha of coincidences [..., categories, categories], nan if undefined.

    1 - (n - 1) Σ o_ck δ²_ck / Σ n_c n_k δ²_ck. For nominal ratings δ² is 1 for any two different
    categories. For ordinal ones it is the square of the ratings from one category to the other,
    those at its two ends counted half. It is undefined where all ratings are equal.
    """
    marginal = table.sum(axis=-1)
    distance = _ordinal(marginal) if level == "ordinal" else _nominal(table.shape[-1])
    observed = (table * distance).sum(axis=(-2, -1))
    expected = (marginal[..., :, None] * marginal[..., None, :] * distance).sum(axis=(-2, -1))
    pairs = marginal.sum(axis=-1) - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected > 0, 1 - pairs * observed / expected, np.nan)


def _nominal(categories: int) -> np.ndarray:
    return 1 - np.eye(categories)


def _ordinal(marginal: np.ndarray) -> np.ndarray:
    """δ²_ck of Krippendorff 2011, from the ratings in each category [..., categories]."""
    middle = np.cumsum(marginal, axis=-1) - marginal / 2
    return (middle[..., :, None] - middle[..., None, :]) ** 2


def crossed(one: np.ndarray, other: np.ndarray, categories: int) -> np.ndarray:
    """Return each unit's table of two readers [units, categories, categories], 0 unless both
    rated it."""
    both = (one != MISSING) & (other != MISSING)
    table = np.zeros((len(one), categories, categories))
    table[np.flatnonzero(both), one[both], other[both]] = 1
    return table


def weighted_kappa(table: np.ndarray, disagreement: np.ndarray) -> np.ndarray:
    """Return Cohen's weighted kappa of tables [..., categories, categories], nan if undefined.

    1 - Σ v p_observed / Σ v p_chance with `disagreement` v (Cohen 1968,
    doi:10.1037/h0026256). It is undefined where no disagreement is possible by chance.
    """
    n = table.sum(axis=(-2, -1))
    chance = table.sum(axis=-1)[..., :, None] * table.sum(axis=-2)[..., None, :]
    expected = (chance * disagreement).sum(axis=(-2, -1))
    observed = (table * disagreement).sum(axis=(-2, -1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected > 0, 1 - n * observed / expected, np.nan)


def disagreement(weights: str, categories: int) -> np.ndarray:
    """Return the disagreement of any two of ordered categories: steps apart, or their square."""
    steps = np.abs(np.subtract.outer(np.arange(categories), np.arange(categories))).astype(float)
    return steps**2 if weights == "quadratic" else steps


def by_patient(tables: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """Sum units' tables [units, ...] over the patients' numbers 0, 1, …: [patients, ...]."""
    sums = np.zeros((int(patients.max()) + 1, *tables.shape[1:]))
    np.add.at(sums, patients, tables)
    return sums


Measure = tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]


def resampled(measures: Mapping[str, Measure], resamples: int, seed: int) -> dict[str, np.ndarray]:
    """Draw as many patients as there are, with replacement, and measure the sums of their tables.

    measures: {name: (tables [patients, ...], what is measured of sums [n, ...])}, all of the same
    patients; they share their resamples. Returns {name: [resamples]}.
    """
    patients = len(next(iter(measures.values()))[0])
    rng, chances = np.random.default_rng(seed), np.full(patients, 1 / patients)
    found = {name: np.empty(resamples) for name in measures}
    step = max(1, CHUNK // patients)
    for start in range(0, resamples, step):
        part = slice(start, min(start + step, resamples))
        drawn = rng.multinomial(patients, chances, size=part.stop - start).astype(np.float64)
        for name, (tables, measure) in measures.items():
            sums = drawn @ tables.reshape(patients, -1)
            found[name][part] = measure(sums.reshape(-1, *tables.shape[1:]))
    return found


def agreement(n: int, value: float, values: np.ndarray, confidence: float) -> Agreement:
    """Put a coefficient and those of its resamples together: a percentile interval.

    Of one patient there is nothing to resample; where the coefficient is not defined there is no
    interval either. (Percentiles of a bootstrap for alpha: Zapf et al. 2016,
    doi:10.1186/s12874-016-0200-9.)
    """
    defined = values[~np.isnan(values)]
    undefined = 1 - len(defined) / len(values)
    if np.isnan(value):
        return Agreement(None, None, None, n, undefined)
    if not len(defined) or np.ptp(defined) == 0:
        return Agreement(float(value), None, None, n, undefined)
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Agreement(float(value), float(low), float(high), n, undefined)
