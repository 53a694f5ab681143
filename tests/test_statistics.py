import time
import warnings
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statistics_simulation import (
    BOUNDS,
    SINGLE,
    coverage,
    family_alarms,
    plain_bca,
    reported,
    students_t,
)

from radquant import intervals, statistics
from radquant.errors import UserError


def absolute_mean(x, axis=-1):
    return np.abs(np.mean(x, axis=axis))


@pytest.mark.parametrize("n", [2, 5, 12])
def test_sign_flip_equals_scipys_exact_test(n):
    d = np.random.default_rng(n).normal(0.5, 1, n)
    expected = stats.permutation_test(
        (d,), absolute_mean, permutation_type="samples", alternative="greater", n_resamples=np.inf
    )
    assert statistics.sign_flip_p(d, resamples=10_000, seed=1) == pytest.approx(expected.pvalue)


def test_random_sign_flips_agree_with_the_exact_test():
    d = np.random.default_rng(3).normal(0.4, 1, 16)
    exact = statistics.sign_flip_p(d, resamples=2**16, seed=1)
    estimate = statistics.sign_flip_p(d, resamples=2**16 - 1, seed=1)
    assert estimate == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 2**16))


def test_sign_flip_p_is_never_below_one_over_resamples_plus_one():
    assert statistics.sign_flip_p(np.ones(200), resamples=999, seed=0) == 1 / 1000


def test_ties_count_as_ties_in_spite_of_rounding():
    # 0.1 + 0.2 − 0.3 is 5.6e-17 in floating point and 0 in fact: every assignment is as extreme.
    assert statistics.sign_flip_p([0.1, 0.2, -0.3], resamples=100, seed=0) == 1.0


@given(st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=40), st.floats(0.01, 100))
@settings(max_examples=30, deadline=None)
def test_sign_flip_knows_neither_direction_nor_unit(values, factor):
    d = np.array(values)
    p = statistics.sign_flip_p(d, resamples=200, seed=5)
    assert 0 < p <= 1
    assert statistics.sign_flip_p(-d, resamples=200, seed=5) == p
    assert statistics.sign_flip_p(d * factor, resamples=200, seed=5) == p


def test_false_positives_of_the_sign_flip_test_stay_at_their_level():
    rng = np.random.default_rng(0)
    # Skewed sizes with random signs, and many zeros, as differences of F1 have.
    sizes = rng.exponential(0.1, (2000, 30)) * (rng.random((2000, 30)) < 0.5)
    runs = sizes * rng.choice([-1, 1], (2000, 30))
    rate = np.mean([statistics.sign_flip_p(d, resamples=199, seed=9) <= 0.05 for d in runs])
    assert 0.035 < rate < 0.065


def scipys_bca(d, resamples, seed):
    # At the level whose normal quantile is t's, with the bootstrap's standard error (1/n for
    # 1/(n − 1)) made good: for n = 50, 0.9575.
    n = len(d)
    level = 1 - 2 * stats.norm.sf(stats.t.isf(0.025, n - 1) / np.sqrt(1 - 1 / n))
    unit = np.ldexp(1.0, np.frexp(np.abs(d).max())[1] - 40)

    def mean(values, axis):
        """Means of the same values in another order are equal, and not only nearly so."""
        return np.round(np.mean(values, axis) / unit) * unit

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # undefined: nan
        found = stats.bootstrap(
            (d,),
            mean,
            n_resamples=resamples,
            method="BCa",
            confidence_level=level,
            rng=np.random.default_rng(seed),
        )
    low, high = found.confidence_interval
    if np.isfinite([low, high]).all():
        return low, high, "BCa"
    ends = np.quantile(found.bootstrap_distribution, [(1 - level) / 2, (1 + level) / 2])
    return *ends, "percentile"


@pytest.mark.parametrize("n", [8, 50, 400])
def test_interval_is_the_wider_of_scipys_bca_and_students_t(n):
    d = np.random.default_rng(1).exponential(1, n)
    t = stats.ttest_1samp(d, 0).confidence_interval(0.95)
    low, high, method = scipys_bca(d, 2000, 7)
    found = statistics.bootstrap_interval(d, 2000, 0.95, 7)
    assert found.method == method == "BCa"
    assert found.low == pytest.approx(min(low, t.low), abs=1e-11)
    assert found.high == pytest.approx(max(high, t.high), abs=1e-11)
    assert high > t.high  # skewed to the right


few_values = st.sampled_from([0.0, 0.5, 1.0])  # whose means tie
skewed = st.floats(-5, 5, width=16).map(np.exp)  # no two nearly equal


@given(
    st.one_of(
        st.lists(values, min_size=2, max_size=40)
        for values in (st.floats(-1, 1, width=16), few_values, skewed)
    ),
    st.integers(0, 1000),
)
@settings(max_examples=150, deadline=None)
def test_bca_is_scipys(values, seed):
    d = np.array(values)
    # A half width that makes t's interval the inner one, whatever BCa's.
    with mock.patch.object(intervals, "_t_half_width", return_value=-np.inf):
        found = statistics.bootstrap_interval(d, 200, 0.95, seed)
    if found.method == "constant":
        assert found.low == found.high == d.mean()
        assert d == pytest.approx(d[0])
        return
    low, high, method = scipys_bca(d, 200, seed)
    assert found.method == method
    assert [found.low, found.high] == pytest.approx([low, high], rel=1e-9, abs=1e-9 * np.ptp(d))


CELLS = {cell.name: cell for cell in SINGLE}


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["normal", "zeros", "losses"])
@pytest.mark.parametrize("reports", [40, 100])
def test_interval_covers_the_mean_as_often_as_it_says(shape, reports):
    # Within 93–97 %; the standard error of 1,000 runs is 0.7 %.
    assert 0.916 < coverage(reported, CELLS[shape], reports, runs=1000, resamples=500) < 0.984


def test_neither_of_its_parts_would():
    assert coverage(plain_bca, CELLS["zeros"], 40, runs=1000, resamples=500) < 0.918
    assert coverage(students_t, CELLS["losses"], 40, runs=1500, resamples=500) < 0.93


@pytest.mark.parametrize("shape", ["normal", "zeros"])
def test_six_equal_precisions_seldom_differ_after_holm(shape):
    # 5 % at most; the standard error of 1,000 runs is 0.7 %.
    assert 0.01 < family_alarms(CELLS[shape], 40, runs=1000, resamples=500) < 0.071


def test_interval_of_differences_that_are_all_zero():
    found = statistics.compare(np.zeros(30), 1000, 0.95, 1)
    assert found.interval == statistics.Interval(0.0, 0.0, "constant")
    assert (found.mean, found.p, found.detectable, found.changed) == (0.0, 1.0, 0.0, 0)
    # Where a report can lose or gain 1, what 30 equal ones leave open is Clopper and Pearson's.
    bounded = statistics.compare(np.zeros(30), 1000, 0.95, 1, bounds=BOUNDS)
    upper = stats.binomtest(0, 30).proportion_ci(0.95, method="exact").high
    assert bounded.interval.method == "Gaffke"
    assert bounded.interval.high == pytest.approx(upper)
    assert bounded.interval.low == pytest.approx(-upper)
    assert bounded.spread.high > 0.3


def test_equal_differences_are_equal_in_spite_of_rounding():
    d = np.array([0.1, 0.2, 0.3, 0.7]) - np.array([0.0, 0.1, 0.2, 0.6])
    assert len(set(d)) > 1
    assert statistics.compare(d, 1000, 0.95, 1).interval.method == "constant"
    assert statistics.compare(d, 1000, 0.95, 1).sd == 0.0


def test_interval_names_its_percentile_fallback():
    # Both resamples' means lie on one side of the sample's mean, and BCa is undefined.
    found = statistics.bootstrap_interval([0.0, 1.0, 5.0], 2, 0.95, 3)
    assert found.method == "percentile"
    assert np.isfinite([found.low, found.high]).all()


def test_equal_seeds_give_equal_numbers():
    d = np.random.default_rng(4).normal(size=60)
    assert statistics.compare(d, 500, 0.95, 7) == statistics.compare(d, 500, 0.95, 7)
    assert statistics.compare(d, 500, 0.95, 7) != statistics.compare(d, 500, 0.95, 8)


def test_holm_on_its_textbook_case():
    adjusted = statistics.holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert adjusted == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert list(adjusted) == ["a", "b", "c", "d"]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_lies_between_no_correction_and_bonferroni(values):
    p = {str(i): value for i, value in enumerate(values)}
    for name, adjusted in statistics.holm(p).items():
        assert p[name] <= adjusted <= min(1, len(p) * p[name])


def test_detectable_difference_is_found_four_times_in_five():
    rng = np.random.default_rng(6)
    effect = statistics.detectable_difference(100, 0.2)
    runs = rng.normal(effect, 0.2, (4000, 100))
    found = np.mean(stats.ttest_1samp(runs, 0, axis=1).pvalue < 0.05)
    assert found == pytest.approx(0.8, abs=0.03)


@given(st.floats(0.001, 0.5), st.floats(0.01, 1))
def test_pairs_needed_is_the_inverse_of_the_detectable_difference(difference, sd):
    n = statistics.pairs_needed(difference, sd)
    assert n == 2 or statistics.detectable_difference(n - 1, sd) >= difference * (1 - 1e-9)
    assert statistics.detectable_difference(n, sd) <= difference * (1 + 1e-9)


def test_the_spread_behind_an_interval():
    d = np.random.default_rng(12).normal(0.1, 0.3, 25)
    low, high = stats.ttest_1samp(d, 0).confidence_interval(0.9)
    assert statistics.implied_sd(low, high, 25, 0.9) == pytest.approx(d.std(ddof=1))
    with pytest.raises(UserError, match="lower end first"):
        statistics.implied_sd(high, low, 25, 0.9)


def test_chance_differences_of_equal_systems():
    means = np.random.default_rng(13).normal(0, 0.2, (20_000, 50)).mean(axis=1)
    expected = np.mean(np.abs(means) >= 0.03)
    assert statistics.chance_difference(0.03, 0.2, 50) == pytest.approx(expected, abs=0.015)


@pytest.mark.parametrize("values", [[], [1.0]])
def test_too_few_reports_are_refused(values):
    with pytest.raises(UserError, match="too few"):
        statistics.compare(values, 100, 0.95, 1)


def test_a_score_that_is_no_number_is_refused():
    with pytest.raises(UserError, match="finite"):
        statistics.compare([0.1, np.nan], 100, 0.95, 1)


def test_six_precisions_on_three_thousand_reports_take_under_ten_seconds():
    draws = np.random.default_rng(8).normal(size=(6, 3000))
    started = time.process_time()
    for d in draws:
        statistics.compare(d / 5, 10_000, 0.95, 1)
        statistics.noninferiority_p(d / 5 + 0.01, -0.99, 10_000, 1)
    assert time.process_time() - started < 10
