"""Statistics by patient: intervals, tests and shares of reports that are not independent."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statistics_simulation import PATIENTS, by_report, coverage, false_alarms, reported

from radquant import draws, significance, statistics
from radquant.errors import UserError
from radquant.patient_units import patient_codes, standard_error, units

THREE = np.repeat(np.arange(20), 3).astype(str)


def drawn(seed: int, correlation: float = 0.5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    common, own = rng.normal(size=20)[np.arange(60) // 3], rng.normal(size=60)
    return np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own


def test_patients_that_are_all_different_change_nothing() -> None:
    d, labels = drawn(1), [f"patient {row}" for row in range(60)]
    assert statistics.compare(d, 500, 0.95, 3, labels) == statistics.compare(d, 500, 0.95, 3)
    assert statistics.compare(d, 500, 0.95, 3, [""] * 60) == statistics.compare(d, 500, 0.95, 3)
    shares = [statistics.proportion_interval(d > 0, 0.95, each) for each in (None, labels)]
    assert shares[0] == shares[1]


def test_equal_patients_are_as_good_as_their_means() -> None:
    # Students's t of the 20 means is exact for them.
    d = drawn(2)
    means = d.reshape(20, 3).mean(axis=1)
    error, freedom = standard_error(units(d, THREE))
    assert (error, freedom) == (pytest.approx(stats.sem(means)), pytest.approx(19))
    found = statistics.compare(d, 500, 0.95, 3, THREE, most=None)
    assert (found.n, found.patients) == (60, 20)
    assert found.sd / np.sqrt(60) == pytest.approx(stats.sem(means))
    assert found.design_effect == pytest.approx((stats.sem(means) / stats.sem(d)) ** 2)
    of_means = statistics.bootstrap_interval(means, 500, 0.95, 3)
    assert [found.interval.low, found.interval.high] == pytest.approx([of_means.low, of_means.high])
    assert found.p == statistics.sign_flip_p(means, 500, 3)


def test_the_variance_is_unbiased_and_its_freedom_satterthwaites() -> None:
    # By the working model itself: unequal patients whose reports are equally alike.
    sizes = np.array([1, 1, 2, 2, 3, 4, 9])
    patients = np.repeat(np.arange(7), sizes)
    rng = np.random.default_rng(5)
    covariance = np.where(patients[:, None] == patients, 0.4, 0) + 0.6 * np.eye(len(patients))
    draws = rng.multivariate_normal(np.zeros(len(patients)), covariance, 2000)
    found = np.array([standard_error(units(d, patients.astype(str))) for d in draws])
    true = covariance.sum() / len(patients) ** 2
    assert (found[:, 0] ** 2).mean() == pytest.approx(true, rel=0.08)
    assert 2.5 < np.median(found[:, 1]) < 5.5  # 7 patients, of whom one has two fifths of reports


def test_one_patients_reports_say_nothing_of_others() -> None:
    with pytest.raises(UserError, match="of one patient"):
        statistics.compare([0.1, 0.2], 100, 0.95, 1, ["a", "a"])
    found = statistics.compare([0.1, 0.2], 100, 0.95, 1, ["a", "a"], bounds=(-1, 1))
    assert found.interval.low < -0.9
    assert found.interval.high > 0.9
    assert found.p == 1
    assert statistics.noninferiority_p([0.5, 0.5], -1, 100, 1, ["a", "a"]) > 0.5
    assert statistics.proportion_interval([True, True], 0.95, ["a", "a"]).low < 0.3


@given(
    st.lists(st.sampled_from([0.0, 0.0, 0.1, -0.4, 1.0]), min_size=2, max_size=12),
    st.integers(1, 12),
)
@settings(max_examples=30, deadline=None)
def test_nothing_is_nan_whatever_the_patients(values: list[float], count: int) -> None:
    patients = [str(row % count) for row in range(len(values))]
    found = statistics.compare(values, 100, 0.95, 1, patients, bounds=(-1, 1), most=None)
    numbers = [found.sd, found.p, found.design_effect, *vars(found.interval).values()]
    assert np.isfinite([each for each in numbers if isinstance(each, float)]).all()
    assert -1 <= found.interval.low <= found.mean <= found.interval.high <= 1
    p = statistics.equivalence_p(values, 0.05, 1, 100, 1, patients)
    assert 0 < p <= 1
    groups = ["even" if row % 2 else "odd" for row in range(len(values))]
    assert 0 < statistics.interaction_p(values, groups, 100, 1, patients) <= 1


@pytest.mark.parametrize("cell", PATIENTS[1:5:3], ids=lambda cell: cell.name)
def test_by_patient_intervals_and_alarms_keep_their_levels(cell) -> None:
    # 93–97 % and 5 %; the standard errors of 300 runs are 1.3 %.
    assert 0.91 < coverage(reported, cell, 100, runs=300, resamples=200) < 0.99
    assert false_alarms(cell, 100, runs=300, resamples=200) < 0.08


def test_by_report_they_would_not() -> None:
    assert coverage(by_report, PATIENTS[4], 100, runs=300, resamples=200) < 0.85
    assert false_alarms(PATIENTS[4], 100, runs=300, resamples=200, by_patient=False) > 0.15


def test_the_pooled_ratio_is_of_the_sums() -> None:
    rng = np.random.default_rng(3)
    tokens = rng.integers(5, 90, 60)
    nats = tokens * 0.1 + rng.normal(0, 2, 60)
    found = statistics.compare_pooled(nats, tokens, 2000, 0.95, 1)
    assert found.mean == pytest.approx(nats.sum() / tokens.sum())
    # The delta method of a ratio of means (Cochran 1977, 2.11).
    residuals = nats - found.mean * tokens
    expected = np.sqrt((residuals**2).sum() / 59 * 60) / tokens.sum()
    assert found.sd / np.sqrt(60) == pytest.approx(expected, rel=0.03)
    assert found.interval.low < found.mean - 1.5 * expected
    # Weights that are all equal make it the mean.
    equal = statistics.compare_pooled(nats, np.full(60, 50), 2000, 0.95, 1)
    plain = statistics.compare(nats / 50, 2000, 0.95, 1, most=2000)
    assert equal.p == plain.p
    assert equal.sd == pytest.approx(plain.sd)
    with pytest.raises(UserError, match="no weight above 0"):
        statistics.compare_pooled(nats, np.zeros(60), 100, 0.95, 1)


def test_a_share_by_patient_is_wider_where_patients_agree_with_themselves() -> None:
    alike = np.repeat([True, False, True, False, True, True, False, True, True, False], 6)
    patients = np.repeat(np.arange(10), 6).astype(str)
    found = statistics.proportion_interval(alike, 0.95, patients)
    wilson = stats.binomtest(6, 10).proportion_ci(0.95, method="wilson")
    assert found.low == pytest.approx(wilson.low, abs=0.05)
    assert found.high == pytest.approx(wilson.high, abs=0.05)
    by_report = statistics.proportion_interval(alike, 0.95)
    exact = stats.binomtest(36, 60).proportion_ci(0.95, method="wilson")
    assert [by_report.low, by_report.high] == pytest.approx([exact.low, exact.high])
    # None of 60 reports of 10 patients is none of 10.
    none = statistics.proportion_interval(np.zeros(60), 0.95, patients)
    assert none.high == pytest.approx(stats.binomtest(0, 10).proportion_ci(0.95, "wilson").high)


def test_interactions_parts_are_welchs_all_flips_and_all_assignments() -> None:
    d = np.array([0.5, 0.4, -0.1, -0.2, 0.1, 0.6, 0.3])
    chosen = np.array([True, True, False, False, False, True, False])
    one, other = d[chosen], d[~chosen]

    def apart(values: np.ndarray, of: np.ndarray) -> float:
        means = [values[of].mean(), values[~of].mean()]
        return 3 * (means[0] - values.mean()) ** 2 + 4 * (means[1] - values.mean()) ** 2

    signs = np.array(list(itertools.product([1, -1], repeat=7)))
    e = d - d.mean()
    wild = np.mean([apart(e * sign, chosen) >= apart(e, chosen) - 1e-9 for sign in signs])
    every = [np.isin(range(7), rows) for rows in itertools.combinations(range(7), 3)]
    dealt = np.mean([apart(d, of) >= apart(d, chosen) - 1e-9 for of in every])
    welch = stats.ttest_ind(one, other, equal_var=False).pvalue
    assert welch < wild
    p = statistics.interaction_p(d, chosen, 20_000, 1)
    assert p == pytest.approx(max(wild, dealt, welch), abs=0.01)
    # Of one patient nothing follows.
    assert statistics.interaction_p(d, ["a", *["b"] * 6], 100, 1) == 1


def test_interaction_keeps_its_level_and_sees_what_is_there() -> None:
    rng = np.random.default_rng(8)
    groups = ["small"] * 12 + ["large"] * 48
    scale = np.where(np.array(groups) == "small", 3, 1)  # the smaller one varies more
    draws = [drawn(seed) * scale for seed in range(250)]
    p = np.array([statistics.interaction_p(d, groups, 99, 1, THREE) for d in draws])
    assert np.mean(p <= 0.05) < 0.085
    shifted = rng.normal(0, 0.1, 60) + np.where(scale == 3, 0.2, 0)
    assert statistics.interaction_p(shifted, groups, 999, 1, THREE) < 0.05


def some_differences(systems: int = 3) -> tuple[list[np.ndarray], list[str]]:
    rng = np.random.default_rng(4)
    patients = [f"p{number}" for number in rng.integers(0, 25, 60)]
    patients[3] = patients[40] = ""  # who is not known
    return [rng.normal(0.02, 0.1, 60).clip(-1, 1) for _ in range(systems)], patients


@pytest.mark.parametrize("known", [True, False])
def test_several_systems_together_get_what_each_gets_alone(known: bool) -> None:
    differences, labels = some_differences()
    differences.append(np.where(np.arange(60) == 5, 0.4, 0.0))  # of which too few differ
    patients, chances = labels if known else None, (300, 0.95, 3)
    alone = [
        statistics.compare(each, *chances, patients, bounds=(-1, 1), most=900)
        for each in differences
    ]
    assert alone == statistics.compare_all(
        differences, *chances, patients, bounds=(-1, 1), most=900
    )
    ends = [statistics.bootstrap_interval(each, *chances, patients) for each in differences]
    assert ends == statistics.bootstrap_intervals(differences, *chances, patients)
    gains = [each + 0.05 for each in differences]
    tests = [statistics.noninferiority_p(each, -0.95, 300, 3, patients) for each in gains]
    assert tests == statistics.noninferiority_ps(gains, -0.95, 300, 3, patients)
    tokens = np.arange(1, 61)
    pooled = [statistics.compare_pooled(each, tokens, *chances, patients) for each in differences]
    assert pooled == statistics.compare_all(differences, *chances, patients, weights=tokens)


def test_no_number_depends_on_how_much_is_held_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    differences, patients = some_differences(1)
    before = statistics.compare(differences[0], 500, 0.95, 3, patients)
    for module in (draws, significance):
        monkeypatch.setattr(module, "CHUNK", 70)
        monkeypatch.setattr(module, "ROWS", 3)
    assert statistics.compare(differences[0], 500, 0.95, 3, patients) == before


def test_patients_are_numbered_as_they_come_and_unknown_ones_are_their_own() -> None:
    labels = ["b", "", "a", "b", None, "", "a"]
    assert patient_codes(labels, 7).tolist() == [0, 1, 2, 0, 3, 4, 2]
