"""Tests of a mean difference, by patient: of 0, of a margin, and of equality over subgroups."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from scipy import stats

from radquant.bounded_means import guarded_p
from radquant.errors import UserError
from radquant.intervals import (
    CHUNK,
    bias_and_acceleration,
    resampled,
    unseen_size,
)
from radquant.patient_units import (
    Units,
    checked,
    constant,
    patient_codes,
    standard_error,
    units,
)

USUAL = 0.95  # the level at which it is judged whether resamples are enough


def sign_flip_p(
    differences: Sequence[float] | np.ndarray,
    resamples: int,
    seed: int,
    patients: Sequence[str] | None = None,
) -> float:
    """Return the two-sided p of the mean being 0 when each patient's sign is exchangeable.

    p = (k + 1) / (resamples + 1), where k random sign assignments give a mean at least as far from
    0 as the observed one (Phipson & Smyth 2010). When there are no more than `resamples` possible
    assignments, all are counted instead, the observed one among them, and p is exact.
    `scipy.stats.permutation_test` gives the same numbers but is ten times slower at 3,000 reports.
    """
    return flipped_p(units(differences, patients), resamples, seed)


def flipped_p(of: Units, resamples: int, seed: int) -> float:
    """Return the p of `sign_flip_p` for differences that are added up already."""
    d = of.totals
    scale = float(np.abs(d).sum())
    if scale == 0:
        return 1.0
    d = d / scale
    # Rounded, so that assignments that tie in exact arithmetic tie here as well.
    observed = abs(round(float(d.sum()), 12))
    exact = _exact(len(d), resamples)
    extreme = count = 0
    for flips in _flips(len(d), resamples, seed):
        sums = d.sum() - 2 * (flips @ d)
        extreme += int(np.count_nonzero(np.abs(np.round(sums, 12)) >= observed))
        count += len(flips)
    return extreme / count if exact else (extreme + 1) / (count + 1)


def _exact(count: int, resamples: int) -> bool:
    return count < 63 and 2**count <= resamples


def _flips(columns: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield sign flips as 0 and 1, float64 [rows, columns]: all there are, or random ones."""
    exact = _exact(columns, resamples)
    count = 2**columns if exact else resamples
    rng = np.random.default_rng(seed)
    chunk = max(1, CHUNK // columns)
    for start in range(0, count, chunk):
        rows = np.arange(start, min(start + chunk, count))
        yield _all_bits(rows, columns) if exact else _random_bits(rng, len(rows), columns)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return p-values adjusted for their number by Holm's step-down method (1979)."""
    adjusted: dict[str, float] = {}
    running = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = running
    return {name: adjusted[name] for name in p_values}


def noninferiority_p(
    gains: Sequence[float] | np.ndarray,
    worst: float,
    resamples: int,
    seed: int,
    patients: Sequence[str] | None = None,
    *,
    most: int | None = None,
) -> float:
    """Return the one-sided p of the mean of `gains` not being above 0.

    gains: difference + margin, one a report. The margin may differ from report to report, as one
    relative to the original's score does. worst: the lowest gain that any report can have, such as
    margin − 1 for a score from 0 to 1. Compare with (1 − confidence) / 2: the claim then never
    contradicts the interval of the gains. most: as in `bootstrap_interval`.

    The largest of three: the bootstrap's and Student's t, as in the interval, and Gaffke's, which
    holds for every distribution from `worst` on, also where no large loss was seen. It is never 0.
    """
    of = units(gains, patients)
    if not np.isfinite(worst):
        raise UserError("what a report can lose has no bound here, so no margin can be kept")
    guard = _guard(of, worst)
    return max(guard, _t_p(of), _bootstrap_p(of, resamples, seed, most))


def equivalence_p(
    differences: Sequence[float] | np.ndarray,
    margin: float,
    worst: float,
    resamples: int,
    seed: int,
    patients: Sequence[str] | None = None,
    *,
    most: int | None = None,
) -> float:
    """Return the p of two one-sided tests (Schuirmann 1987) against ±`margin`.

    A small p says that the mean lies within the margin. worst: the largest loss or gain that a
    report can have, as a number above 0. Each side is tested as in `noninferiority_p`.
    """
    d = checked(differences)
    sides = (d + margin, margin - d)
    return max(
        noninferiority_p(gains, margin - worst, resamples, seed, patients, most=most)
        for gains in sides
    )


def _guard(of: Units, worst: float) -> float:
    return guarded_p(of.totals, worst * unseen_size(of))


def _t_p(of: Units) -> float:
    """Return Student's one-sided p, which is 0 or 1 where nothing varies."""
    if of.count < 2:
        return 1.0
    if constant(of.residuals):
        return 0.0 if of.mean > 0 else 1.0
    error, freedom = standard_error(of)
    return float(stats.t.sf(of.mean / error, freedom))


def _bootstrap_p(of: Units, resamples: int, seed: int, most: int | None) -> float:
    """Return the one-sided level at which BCa's lower end is 0, at least 1 ÷ (resamples + 1)."""
    if of.count < 2 or constant(of.residuals):
        return 0.0  # the others decide
    means = resampled(of, resamples, USUAL, seed, most)[0]
    least = 1 / (len(means) + 1)
    share = (np.count_nonzero(means <= 0) + 1) * least
    z = stats.norm.ppf(min(share, 1 - least))
    bias, acceleration = bias_and_acceleration(of, means)
    if np.isfinite(bias):
        if 1 + acceleration * (z - bias) <= 0:
            return float(least) if z < bias else 1.0
        z = (z - bias) / (1 + acceleration * (z - bias)) - bias
    count = of.count
    return float(max(least, stats.t.cdf(z * np.sqrt(1 - 1 / count), standard_error(of)[1])))


def interaction_p(
    differences: Sequence[float] | np.ndarray,
    groups: Sequence[str],
    resamples: int,
    seed: int,
    patients: Sequence[str] | None = None,
) -> float:
    """Return the p of the mean difference being equal in all subgroups.

    groups: one label a report; a patient may have reports in several. What each report differs from
    the common mean is flipped in sign, all of a patient's together (the wild bootstrap under the
    null hypothesis, Cameron, Gelbach & Miller 2008). Counted is how often the subgroups' means then
    lie as far apart as they did: Σ n·(mean − common mean)². With one group p is 1.
    """
    d = checked(differences)
    of = units(d, patients)
    patient = patient_codes(patients, len(d))
    group = np.unique(np.asarray(list(map(str, groups))), return_inverse=True)[1]
    if len(group) != len(d):
        raise ValueError(f"{len(group)} groups of {len(d)} reports")
    sizes = np.bincount(group)
    e = d - d.mean()
    if len(sizes) < 2 or of.count < 2 or constant(d):
        return 1.0
    sums = np.zeros((of.count, len(sizes)))
    np.add.at(sums, (patient, group), e / np.abs(e).max())

    def apart(found: np.ndarray) -> np.ndarray:
        return np.asarray((found**2 / sizes).sum(axis=-1) - found.sum(axis=-1) ** 2 / len(d))

    observed = round(float(apart(sums.sum(axis=0))), 9)
    extreme = count = 0
    for flips in _flips(of.count, resamples, seed):
        found = apart(sums.sum(axis=0) - 2 * (flips @ sums))
        extreme += int(np.count_nonzero(np.round(found, 9) >= observed))
        count += len(flips)
    return extreme / count if _exact(of.count, resamples) else (extreme + 1) / (count + 1)


def _random_bits(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Return fair random bits as float64 [rows, columns]; one random byte makes eight of them."""
    width = -(-columns // 8)
    packed = np.frombuffer(rng.bytes(rows * width), dtype=np.uint8).reshape(rows, width)
    return np.unpackbits(packed, axis=1, count=columns).astype(np.float64)


def _all_bits(numbers: np.ndarray, columns: int) -> np.ndarray:
    """Return the binary digits of `numbers` as float64 [len(numbers), columns]."""
    return ((numbers[:, None] >> np.arange(columns)) & 1).astype(np.float64)
