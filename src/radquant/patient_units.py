"""The units of every interval and test: patients where they are known, else reports.

Reports of one patient are alike, so they say less than as many reports of other patients. Here the
reports of a patient are added up. Everything else works on these totals.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

from radquant.errors import UserError

Patients = Sequence[str] | np.ndarray  # of each report a label, or a whole number


@dataclass(frozen=True)
class Units:
    """What is averaged, by patient: the estimate is the sum of `totals` ÷ the sum of `weights`.

    totals, weights: float64 [patients]. reports: how many there are in all. changed: in how many of
    them the value is not 0. plain: each patient has one report of weight 1. alike: the share of the
    spread that a patient's reports have in common. spread: the standard deviation of the reports,
    as if each were of another patient. drawn: the resampled means, and the generator that draws
    more of them, from `intervals.drawn_together`.
    """

    totals: np.ndarray
    weights: np.ndarray
    reports: int
    changed: int
    plain: bool
    alike: float
    spread: float
    drawn: tuple[np.ndarray, np.random.Generator] | None = None

    @property
    def count(self) -> int:
        return len(self.totals)

    @property
    def mean(self) -> float:
        if self.plain:
            return float(self.totals.mean())
        return float(self.totals.sum() / self.weights.sum())

    @property
    def residuals(self) -> np.ndarray:
        """What each total has more than its weight's worth of the mean."""
        return self.totals - self.weights * self.mean


def units(
    values: Sequence[float] | np.ndarray,
    patients: Patients | None = None,
    weights: Sequence[float] | np.ndarray | None = None,
) -> Units:
    """Add up `values`, one a report, by patient.

    patients: one label a report; a report without one ("" or None) stands for itself. Or one number
    a report, as `patient_codes` gives them. weights: what the estimate is divided by, one number
    above 0 a report; 1 each where left out.

    Raises UserError for fewer than two reports, and for a value or a weight that is no number.
    """
    x = checked(values)
    w = np.ones(len(x)) if weights is None else checked(weights)
    if len(w) != len(x) or not (w > 0).all():
        raise UserError("a report has no weight above 0; delete results/likelihood and run again")
    codes = patient_codes(patients, len(x))
    count = int(codes.max()) + 1
    spread, changed = _spread(x, w), int(np.count_nonzero(x))
    if count == len(x):
        alike = 0.0 if weights is None else 1.0
        return Units(x, w, len(x), changed, weights is None, alike, spread)
    totals, sums = (np.bincount(codes, each, count) for each in (x, w))
    alike = _intraclass(x, codes) if weights is None else 1.0
    return Units(totals, sums, len(x), changed, False, alike, spread)


def checked(values: Sequence[float] | np.ndarray) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) < 2:
        raise UserError(
            f"{array.size} report(s) are too few for statistics; evaluate at least 2 "
            "(config key evaluation: reports)"
        )
    if not np.isfinite(array).all():
        raise UserError("a score is not a finite number; delete results/scores and run again")
    return array


def constant(values: np.ndarray) -> bool:
    """Tell whether all values are equal, but for what subtracting two floats leaves."""
    return bool(np.ptp(values) <= 1e-12 * max(1.0, np.abs(values).max()))


def usual_and_different(of: Units) -> tuple[float, int]:
    """Return the mean that most patients have in common, and how many have another.

    Where no two have the same, none is usual: that is as many as there are.
    """
    means, counts = np.unique(np.round(of.totals / of.weights, 12), return_counts=True)
    most = int(counts.max())
    return float(means[counts.argmax()]), of.count - most if most > 1 else of.count


def standard_error(of: Units) -> tuple[float, float]:
    """Return the mean's cluster-robust standard error and its degrees of freedom.

    With equal weights these are √(Σe² · G ÷ (G − 1)) ÷ Σw (CR1) and G − 1, of G patients with
    residual totals e. Unequal weights make Σe² both smaller and less sure. Its factor and its
    degrees of freedom (Satterthwaite's) then follow from its first two moments, as in Bell &
    McCaffrey (2002). The working model is that of equally alike reports.
    """
    if of.plain:
        count = of.count
        return float(of.totals.std(ddof=1) / np.sqrt(count)), float(count - 1)
    e = of.residuals
    factor, freedom = _moments(of)
    return float(np.sqrt((e**2).sum() * factor) / of.weights.sum()), freedom


def _spread(x: np.ndarray, w: np.ndarray) -> float:
    """Return √reports × the standard error of Σx ÷ Σw, each report being of another patient."""
    e = x - w * (x.sum() / w.sum())
    if constant(e):
        return 0.0
    if (w == 1).all():
        return float(x.std(ddof=1))
    return float(np.sqrt((e**2).sum() / (len(x) - 1)) / w.mean())


def _moments(of: Units) -> tuple[float, float]:
    """Return by what Σe² is too small, and its degrees of freedom.

    Let D be the diagonal of the totals' variances v under the working model, and q the patients'
    shares of the weights. The residuals' covariance is M = D − qvᵀ − vqᵀ + (Σv)qqᵀ. Then E Σe² = tr
    M, and its degrees of freedom are (tr M)² ÷ tr M².
    """
    q = of.weights / of.weights.sum()
    v = q * (1 - of.alike) / of.reports + q**2 * of.alike
    s, a, b, c = v.sum(), q @ q, q @ v, v @ v
    trace = s - 2 * b + s * a
    square = c + 2 * (s * (v @ q**2) - 2 * (v**2 @ q)) + 2 * b**2 + 2 * a * c - 4 * s * a * b
    square += (s * a) ** 2
    return float(s / trace), float(min(trace**2 / square, len(q) - 1))


def patient_codes(patients: Patients | None, reports: int) -> np.ndarray:
    """Return each report's patient as a number, in the order in which they come."""
    if patients is None:
        return np.arange(reports)
    if len(patients) != reports:
        raise ValueError(f"{len(patients)} patients of {reports} reports")
    if isinstance(patients, np.ndarray) and patients.dtype.kind == "i":
        return pd.factorize(patients)[0]
    return _codes(tuple(patients))


@lru_cache(maxsize=4)  # all comparisons of a report are of the same few sets of patients
def _codes(patients: tuple[str | None, ...]) -> np.ndarray:
    labels = pd.Series(patients, dtype=object)
    missing = (labels.isna() | (labels == "")).to_numpy()
    # Reports without a patient get numbers of their own, above all others.
    own = len(labels) + np.arange(len(labels))
    codes = pd.factorize(np.where(missing, own, pd.factorize(labels.map(str))[0]))[0]
    codes.setflags(write=False)
    return codes


def _intraclass(x: np.ndarray, codes: np.ndarray) -> float:
    """Return the intraclass correlation by analysis of variance, from 0 to 1."""
    sizes = np.bincount(codes)
    n, count = len(x), len(sizes)
    if count < 2 or constant(x):
        return 1.0
    means = np.bincount(codes, x) / sizes
    within = ((x - means[codes]) ** 2).sum() / (n - count)
    between = (sizes * (means - x.mean()) ** 2).sum() / (count - 1)
    usual = (n - (sizes**2).sum() / n) / (count - 1)
    return float(np.clip((between - within) / (between + (usual - 1) * within), 0, 1))
