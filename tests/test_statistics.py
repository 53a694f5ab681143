import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from radquant import statistics
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


def test_interval_is_scipys_bca():
    d = np.random.default_rng(1).exponential(1, 50)
    expected = stats.bootstrap(
        (d,), np.mean, n_resamples=2000, method="BCa", rng=np.random.default_rng(7)
    ).confidence_interval
    found = statistics.bootstrap_interval(d, 2000, 0.95, 7)
    assert found == statistics.Interval(expected.low, expected.high, "BCa")


def test_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(2)
    runs = rng.normal(0.1, 0.3, (400, 40))
    found = [statistics.bootstrap_interval(d, 500, 0.95, seed) for seed, d in enumerate(runs)]
    assert 0.91 < np.mean([i.low <= 0.1 <= i.high for i in found]) < 0.98


def test_interval_of_differences_that_are_all_zero():
    found = statistics.compare(np.zeros(30), 1000, 0.95, 1)
    assert found.interval == statistics.Interval(0.0, 0.0, "constant")
    assert (found.mean, found.p, found.detectable) == (0.0, 1.0, 0.0)


def test_equal_differences_are_equal_in_spite_of_rounding():
    d = np.array([0.1, 0.2, 0.3, 0.7]) - np.array([0.0, 0.1, 0.2, 0.6])
    assert len(set(d)) > 1
    assert statistics.compare(d, 1000, 0.95, 1).interval.method == "constant"
    assert statistics.compare(d, 1000, 0.95, 1).sd == 0.0


def test_interval_names_its_percentile_fallback():
    # With one resample, its mean lies on one side of the sample's mean, and BCa is undefined.
    found = statistics.bootstrap_interval([0.0, 1.0, 5.0], 1, 0.95, 3)
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


def test_equivalence_means_that_the_90_percent_interval_lies_within_the_margin():
    for seed in range(20):
        d = np.random.default_rng(seed).normal(0.004, 0.03, 60)
        low, high = stats.ttest_1samp(d, 0).confidence_interval(0.90)
        assert (statistics.equivalence_p(d, 0.01) < 0.05) == (low > -0.01 and high < 0.01)


def test_equivalence_without_variation():
    assert statistics.equivalence_p(np.zeros(10), 0.01) == 0.0
    assert statistics.equivalence_p(np.full(10, 0.5), 0.01) == 1.0


@pytest.mark.parametrize("values", [[], [1.0]])
def test_too_few_reports_are_refused(values):
    with pytest.raises(UserError, match="too few"):
        statistics.compare(values, 100, 0.95, 1)


def test_a_score_that_is_no_number_is_refused():
    with pytest.raises(UserError, match="finite"):
        statistics.compare([0.1, np.nan], 100, 0.95, 1)


def test_three_thousand_reports_take_under_a_second_each():
    d = np.random.default_rng(8).normal(size=3000)
    started = time.process_time()
    statistics.compare(d, 10_000, 0.95, 1)
    assert time.process_time() - started < 1.5
