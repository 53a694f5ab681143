"""Tests of a mean difference, by patient: of 0, of a margin, and of equality over subgroups."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from scipy import special

from radquant.bounded_means import guarded_p, share_p
from radquant.draws import CHUNK, ROWS
from radquant.errors import UserError
from radquant.intervals import (
    FEW,
    bias_and_acceleration,
    drawn_together,
    few_differ,
    resampled,
    tie,
    unseen_size,
)
from radquant.patient_units import (
    Patients,
    Units,
    checked,
    constant,
    patient_codes,
    standard_error,
    units,
    usual_and_different,
)

DRAWN = 4_000_000  # random signs drawn at a time; with another number they would be others
USUAL = 0.95  # the level at which it is judged whether resamples are enough


def sign_flip_p(
    differences: Sequence[float] | np.ndarray,
    resamples: int,
    seed: int,
    patients: Patients | None = None,
) -> float:
    """Return the two-sided p of the mean being 0 when each patient's sign is exchangeable.

    p = (k + 1) / (resamples + 1), where k random sign assignments give a mean at least as far from
    0 as the observed one. The source is Phipson & Smyth 2010. When there are no more than
    `resamples` possible assignments, all are counted instead, the observed one among them, and p is
    exact. `scipy.stats.permutation_test` gives the same numbers but is ten times slower at 3,000
    reports.
    """
    return flipped_ps([units(differences, patients)], resamples, seed)[0]


def flipped_ps(many: Sequence[Units], resamples: int, seed: int) -> list[float]:
    """Return the p of `sign_flip_p` of each of several differences of the same patients.

    They are added up already, and all get the same sign assignments.
    """
    if not many:
        return []
    totals = np.column_stack([of.totals for of in many])
    scale = np.abs(totals).sum(axis=0)
    totals = totals / np.where(scale > 0, scale, 1)
    # Rounded, so that assignments that tie in exact arithmetic tie here as well.
    observed = np.abs(np.round(totals.sum(axis=0), 12))
    exact = _exact(len(totals), resamples)
    extreme, count = np.zeros(len(many), dtype=np.int64), 0
    for flips in _flips(len(totals), resamples, seed):
        sums = totals.sum(axis=0) - 2 * (flips @ totals)
        extreme += np.count_nonzero(np.abs(np.round(sums, 12)) >= observed, axis=0)
        count += len(flips)
    return ((extreme + (not exact)) / (count + (not exact))).tolist()


def _exact(count: int, resamples: int) -> bool:
    return count < 63 and 2**count <= resamples


def _flips(columns: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield sign flips as 0 and 1, float64 [rows, columns]: all there are, or random ones."""
    exact = _exact(columns, resamples)
    count = 2**columns if exact else resamples
    chunk = max(ROWS, CHUNK // columns)
    if exact:
        for start in range(0, count, chunk):
            yield _all_bits(np.arange(start, min(start + chunk, count)), columns)
        return
    rng, block = np.random.default_rng(seed), max(1, DRAWN // columns)
    for start in range(0, count, block):
        packed = _random_bits(rng, min(block, count - start), columns)
        for first in range(0, len(packed), chunk):
            rows = packed[first : first + chunk]
            yield np.unpackbits(rows, axis=1, count=columns).astype(np.float64)


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
    patients: Patients | None = None,
    *,
    most: int | None = None,
) -> float:
    """Return the one-sided p of the mean of `gains` not being above 0.

    gains: difference + margin, one a report. The margin may differ from report to report, as one
    relative to the original's score does. worst: the lowest gain that any report can have, such as
    margin − 1 for a score from 0 to 1. Compare with (1 − confidence) / 2: the claim then never
    contradicts the interval of the gains. most: as in `bootstrap_interval`.

    It is the largest of several. The bootstrap's and Student's t are taken as in the interval.
    Gaffke's holds for every distribution from `worst` on, also where no large loss was seen. The
    last counts where only few patients differ from the others. It is Clopper & Pearson's, of their
    share being so large that it cancels the margin if each loses as much as it can. Then the
    bootstrap, of which too few values make a step, is left out. It is never 0.
    """
    return noninferiority_ps([gains], worst, resamples, seed, patients, most=most)[0]


def noninferiority_ps(
    gains: Sequence[Sequence[float] | np.ndarray],
    worst: float,
    resamples: int,
    seed: int,
    patients: Patients | None = None,
    *,
    most: int | None = None,
) -> list[float]:
    """Return the `noninferiority_p` of each of several `gains` of the same reports."""
    many = drawn_together([units(each, patients) for each in gains], resamples, seed)
    return [gain_p(of, worst, resamples, seed, most) for of in many]


def gain_p(of: Units, worst: float, resamples: int, seed: int, most: int | None = None) -> float:
    """Return the `noninferiority_p` of gains that are added up already."""
    if not np.isfinite(worst):
        raise UserError("what a report can lose has no bound here, so no margin can be kept")
    return _gain_p(of, worst, _means(of, resamples, seed, most))


def equivalence_p(
    differences: Sequence[float] | np.ndarray,
    margin: float,
    worst: float,
    resamples: int,
    seed: int,
    patients: Patients | None = None,
    *,
    most: int | None = None,
) -> float:
    """Return the p of two one-sided tests (Schuirmann 1987) against ±`margin`.

    A small p says that the mean lies within the margin. worst: the largest loss or gain that a
    report can have, as a number above 0. Each side is tested as in `noninferiority_p`.
    """
    d = checked(differences)
    gains, other = units(d + margin, patients), units(margin - d, patients)
    means = _means(gains, resamples, seed, most)
    lowest = margin - worst
    return max(_gain_p(gains, lowest, means), _gain_p(other, lowest, 2 * margin - means))


def _gain_p(of: Units, worst: float, means: np.ndarray) -> float:
    size = unseen_size(of)
    guards = (guarded_p(of.totals, worst * size), _few_p(of, worst, size))
    # If few patients differ, resamples tell less than the bounds do, as in the interval.
    return max(*guards, _t_p(of), 0.0 if few_differ(of) else _bootstrap_p(of, means))


def _means(of: Units, resamples: int, seed: int, most: int | None) -> np.ndarray:
    """Return the resampled means; none where nothing varies."""
    if of.count < 2 or constant(of.residuals):
        return np.empty(0)
    return resampled(of, resamples, USUAL, seed, most)[0]


def _few_p(of: Units, worst: float, size: float) -> float:
    """Return the p of so many patients losing all that they can that the mean gain is gone.

    0 where more than `FEW` differ from what most have in common.
    """
    usual, different = usual_and_different(of)
    if different >= min(FEW, of.count) or usual <= worst:
        return 0.0
    relative = size * of.count / float(of.weights.sum())
    return share_p(different, of.count, max(0.0, usual) / (usual - worst) / relative)


def _t_p(of: Units) -> float:
    """Return Student's one-sided p, which is 0 or 1 where nothing varies."""
    if of.count < 2:
        return 1.0
    if constant(of.residuals):
        return 0.0 if of.mean > 0 else 1.0
    error, freedom = standard_error(of)
    return float(special.stdtr(freedom, -of.mean / error))


def _bootstrap_p(of: Units, means: np.ndarray) -> float:
    """Return the one-sided level at which BCa's lower end is 0, at least 1 ÷ (resamples + 1)."""
    if not len(means):
        return 0.0  # the others decide
    least = 1 / (len(means) + 1)
    share = (np.count_nonzero(means <= tie(of)) + 1) * least
    z = special.ndtri(min(share, 1 - least))
    bias, acceleration = bias_and_acceleration(of, means)
    if np.isfinite(bias):
        if 1 + acceleration * (z - bias) <= 0:
            return float(least) if z < bias else 1.0
        z = (z - bias) / (1 + acceleration * (z - bias)) - bias
    count = of.count
    return float(max(least, special.stdtr(standard_error(of)[1], z * np.sqrt(1 - 1 / count))))


def interaction_p(
    differences: Sequence[float] | np.ndarray,
    groups: Sequence[str],
    resamples: int,
    seed: int,
    patients: Patients | None = None,
) -> float:
    """Return the p of the mean difference being equal in all subgroups.

    groups: one label a report; a patient may have reports in several. It is the largest of three.
    Welch's (1951), with cluster-robust variances, allows for how little a small group's spread is
    known. The others count how often the groups' means lie as far apart as they did, by Σ n·(mean −
    common mean)². Once what each report differs from the common mean is flipped in sign, all of a
    patient's together. That is the wild bootstrap under the null hypothesis (Cameron, Gelbach &
    Miller 2008). And once the patients are dealt to the groups anew, where none has reports in
    several: a small group may have no loss by chance.

    With one group, or one of a single patient, nothing can be told, and p is 1.
    """
    d = checked(differences)
    group = np.unique(np.asarray(list(map(str, groups))), return_inverse=True)[1]
    if len(group) != len(d):
        raise ValueError(f"{len(group)} groups of {len(d)} reports")
    patient = patient_codes(patients, len(d))
    has = np.zeros((patient.max() + 1, group.max() + 1))
    np.add.at(has, (patient, group), 1)
    if has.shape[1] < 2 or (has > 0).sum(axis=0).min() < 2 or constant(d):
        return 1.0
    totals = np.zeros_like(has)
    np.add.at(totals, (patient, group), (d - d.mean()) / np.abs(d - d.mean()).max())
    p = max(_welch_p(totals, has), _wild_p(totals, has.sum(axis=0), resamples, seed))
    alone = ((has > 0).sum(axis=1) == 1).all()
    return max(p, _dealt_p(totals, has, resamples, seed)) if alone else p


def _welch_p(totals: np.ndarray, has: np.ndarray) -> float:
    """Return Welch's p. totals, has: sums and numbers of reports, [patients, groups]."""
    sizes, members = has.sum(axis=0), (has > 0).sum(axis=0)
    means = totals.sum(axis=0) / sizes
    residuals = (totals - has * means) / sizes * np.sqrt(members / (members - 1))
    covariance = residuals.T @ residuals
    if not np.trace(covariance):  # groups that differ in nothing but their means
        return 0.0 if np.ptp(means) else 1.0
    least = 1e-12 * max(float(np.trace(covariance)), 1e-300)
    contrasts = np.eye(len(means))[1:] - np.eye(len(means))[0]
    apart = contrasts @ means
    within = contrasts @ covariance @ contrasts.T + least * np.eye(len(apart))
    share = 1 / np.maximum(np.diag(covariance), least)
    unsure = ((1 - share / share.sum()) ** 2 / (members - 1)).sum()
    k = len(means)
    statistic = apart @ np.linalg.solve(within, apart) / (k - 1)
    statistic /= 1 + 2 * (k - 2) / (k**2 - 1) * unsure
    return float(special.fdtrc(k - 1, (k**2 - 1) / (3 * unsure), statistic))


def _wild_p(totals: np.ndarray, sizes: np.ndarray, resamples: int, seed: int) -> float:
    sums = totals.sum(axis=0)
    observed = round(float(_apart(sums, sizes)), 9)
    extreme = count = 0
    for flips in _flips(len(totals), resamples, seed):
        found = _apart(sums - 2 * (flips @ totals), sizes)
        extreme += int(np.count_nonzero(np.round(found, 9) >= observed))
        count += len(flips)
    return extreme / count if _exact(len(totals), resamples) else (extreme + 1) / (count + 1)


def _dealt_p(totals: np.ndarray, has: np.ndarray, resamples: int, seed: int) -> float:
    """Return the share of random assignments of patients to groups that lie as far apart."""
    members = (has > 0).sum(axis=0)
    starts = np.concatenate([[0], np.cumsum(members)[:-1]])
    sums, sizes = totals.sum(axis=1), has.sum(axis=1)
    observed = round(float(_apart(totals.sum(axis=0), has.sum(axis=0))), 9)
    rng, rows, extreme = np.random.default_rng(seed), max(1, CHUNK // len(sums)), 0
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        dealt = rng.permuted(np.tile(np.arange(len(sums)), (count, 1)), axis=1)
        of_groups = (np.add.reduceat(each[dealt], starts, axis=1) for each in (sums, sizes))
        extreme += int(np.count_nonzero(np.round(_apart(*of_groups), 9) >= observed))
    return (extreme + 1) / (resamples + 1)


def _apart(sums: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return Σ n·(mean − common mean)² of groups of such sums and numbers of reports, [..., k]."""
    common = sums.sum(axis=-1) ** 2 / sizes.sum(axis=-1)
    return np.asarray((sums**2 / sizes).sum(axis=-1) - common)


def _random_bits(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Return fair random bits of [rows, columns], eight in a byte."""
    width = -(-columns // 8)
    return np.frombuffer(rng.bytes(rows * width), dtype=np.uint8).reshape(rows, width)


def _all_bits(numbers: np.ndarray, columns: int) -> np.ndarray:
    """Return the binary digits of `numbers` as float64 [len(numbers), columns]."""
    return ((numbers[:, None] >> np.arange(columns)) & 1).astype(np.float64)
