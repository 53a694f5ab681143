"""Claims that hold for losses that were not seen, and the number of reports that settles them."""

import numpy as np
import pytest
from scipy import stats
from statistics_simulation import (
    PATIENTS,
    RARE,
    SIDE,
    SINGLE,
    coverage,
    false_claims,
    held_by_range,
    reported,
    settled,
)

from radquant import statistics
from radquant.bounded_means import guarded_ends, guarded_p, share_below_zero, upper_share
from radquant.errors import UserError


@pytest.mark.parametrize(("hits", "total"), [(0, 40), (1, 5), (3, 50), (10, 1000), (40, 50)])
def test_of_shares_gaffkes_bound_is_clopper_and_pearsons(hits: int, total: int) -> None:
    values = -np.repeat([1.0, 0.0], [hits, total - hits])
    for share in (0.001, 0.02, 0.1, 0.5, 0.9):
        expected = stats.binom.cdf(hits, total, share)
        assert guarded_p(values + share, share - 1) == pytest.approx(expected, rel=1e-9, abs=1e-290)
    ends = stats.binomtest(hits, total).proportion_ci(0.95, method="exact")
    found = guarded_ends(values, np.ones(total), 1, (-1, 0), 0.025)
    assert found == pytest.approx((-ends.high, -ends.low), abs=1e-6)
    assert upper_share(hits, total, 0.025) == pytest.approx(ends.high)


def test_gaffkes_p_is_the_share_of_dirichlet_weights() -> None:
    rng = np.random.default_rng(1)
    for _ in range(5):
        values = np.append(rng.normal(0.1, 0.3, 12), -1)
        means = rng.dirichlet(np.ones(13), 40_000) @ values
        assert share_below_zero(values) == pytest.approx(np.mean(means <= 0), abs=0.012)


@pytest.mark.parametrize(
    ("reports", "lost", "margin"), [(400, 7, 0.02), (1000, 9, 0.01), (1000, 4, 0.005)]
)
def test_gaffkes_p_of_a_loss_that_is_just_the_margin(reports, lost, margin) -> None:
    # The path of integration leads uphill there, as the values nearly add up to 0.
    values = np.repeat([margin - 1, margin], [lost, reports - lost])
    expected = stats.binom.cdf(lost, reports, margin)
    assert guarded_p(values, margin - 1) == pytest.approx(expected, rel=1e-6)


def test_gaffkes_ends_move_with_every_loss() -> None:
    means = np.linspace(-0.012, 0.01, 23)
    shares = [share_below_zero(np.repeat([x, x + 1, x - 1], [396, 4, 1])) for x in means]
    assert (np.diff(shares) < 0).all()
    for reports in (400, 1000):
        d = [-np.repeat([1.0, 0.0], [lost, reports - lost]) for lost in range(7)]
        found = [statistics.bootstrap_interval(x, 100, 0.95, 1, bounds=(-1, 1)) for x in d]
        assert (np.diff([[each.low, each.high] for each in found], axis=0) < 0).all()
        p = [statistics.noninferiority_p(x + 0.01, -0.99, 100, 1) for x in d]
        assert (np.diff(p) > 0).all()


def test_gaffkes_p_comes_to_students_for_many_reports() -> None:
    gains = np.random.default_rng(2).normal(0.02, 0.3, 4000)
    expected = stats.ttest_1samp(gains, 0, alternative="greater").pvalue
    assert guarded_p(gains, -0.31) == pytest.approx(expected, rel=0.25)


def test_differences_that_are_all_equal_are_no_proof() -> None:
    # Where 1 report in 100 lost everything, 2 of 3 samples of 40 would show nothing.
    p = statistics.equivalence_p(np.zeros(40), 0.01, 1, 1000, 1)
    assert p == pytest.approx(0.99**40)
    assert statistics.noninferiority_p(np.full(40, 0.01), -0.99, 1000, 1) == pytest.approx(p)
    enough = int(np.ceil(np.log(SIDE) / np.log(0.99)))
    assert statistics.equivalence_p(np.zeros(enough - 1), 0.01, 1, 1000, 1) > SIDE
    assert 0 < statistics.equivalence_p(np.zeros(enough), 0.01, 1, 1000, 1) <= SIDE
    assert statistics.equivalence_p(np.full(400, 0.5), 0.01, 1, 1000, 1) == 1
    assert statistics.loss_bound(np.zeros(enough), 1, 0.95) == pytest.approx(0.01, rel=0.01)
    # In patients, whose reports may all be lost together, it takes as many patients.
    patients = [str(row // 4) for row in range(enough)]
    assert statistics.equivalence_p(np.zeros(enough), 0.01, 1, 1000, 1, patients) > 0.3


@pytest.mark.parametrize("cell", RARE[::2], ids=lambda cell: cell.name)
@pytest.mark.parametrize("reports", [40, 100])
def test_a_loss_of_the_margin_is_not_called_smaller(cell, reports: int) -> None:
    # 5 % at most; by Student's t alone it is up to 66 %.
    *own, usual = false_claims(cell, reports, runs=150, resamples=100)
    assert max(own) <= 0.04
    if reports == 40 and cell == RARE[0]:
        assert usual > 0.4


@pytest.mark.parametrize("cell", RARE[:3], ids=lambda cell: cell.name)
def test_the_interval_holds_rare_losses(cell) -> None:
    assert coverage(reported, cell, 40, runs=60, resamples=100) >= 0.93


@pytest.mark.parametrize("cell", [SINGLE[1], PATIENTS[2]], ids=lambda cell: cell.name)
def test_claims_hold_in_other_shapes(cell) -> None:
    *own, _ = false_claims(cell, 100, runs=150, resamples=100)
    assert max(own) < 0.055


def test_claims_hold_where_only_large_patients_lose() -> None:
    sizes = np.array([1] * 20 + [10] * 2)  # half of the reports are of two patients in 22
    rng, margin, claims = np.random.default_rng(9), 0.02, 0
    for seed in range(100):
        drawn = rng.choice(sizes, 300)
        lost = (drawn == 10) & (rng.random(300) < 2 * margin)
        patients = np.repeat(np.arange(300), drawn)
        gains = margin - lost[patients]
        p = statistics.noninferiority_p(gains, margin - 1, 100, seed, patients.astype(str))
        claims += p < SIDE
    assert claims <= 5


def test_a_claim_agrees_with_the_interval() -> None:
    """Whatever is called no worse, the interval shown excludes it."""
    claims = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        d = np.where(rng.random(200) < 0.5, 0, rng.normal(-0.002, 0.03, 200))
        p = statistics.noninferiority_p(d + 0.02, -0.98, 400, seed)
        low = statistics.compare(d, 400, 0.95, seed, bounds=(-1, 1), most=None).interval.low
        claims += p < SIDE
        assert p >= SIDE or low > -0.02 - 1e-3
    assert claims > 5


def test_a_small_spread_widens_only_what_shows_no_difference() -> None:
    noise = np.random.default_rng(3).normal(0, 0.005, 60)
    assert statistics.bootstrap_interval(noise, 500, 0.95, 1, bounds=(-1, 1)).method == "Gaffke"
    shown = statistics.bootstrap_interval(noise - 0.02, 500, 0.95, 1, bounds=(-1, 1))
    assert (shown.method, shown.high < 0) == ("BCa", True)


def test_an_interval_by_patient_holds_a_loss_of_one_large_patient() -> None:
    # Half of all reports are of one patient; 1 patient in 50 loses 0.5 in all reports.
    held, patients = 0, ["0"] * 100 + [str(row) for row in range(1, 101)]
    codes = np.array(list(map(int, patients)))
    for seed in range(60):
        rng = np.random.default_rng(seed)
        d = np.where((rng.random(101) < 0.02)[codes], -0.5, rng.normal(0, 0.01, 200))
        found = statistics.bootstrap_interval(d, 100, 0.95, seed, patients, bounds=(-1, 1))
        held += found.low <= -0.01 <= found.high
    assert held >= 56


def test_an_unbounded_loss_keeps_no_margin() -> None:
    with pytest.raises(UserError, match="no bound"):
        statistics.noninferiority_p([0.1, 0.2], -np.inf, 100, 1)


@pytest.mark.parametrize(("cell", "margin"), [(SINGLE[0], 0.08), (PATIENTS[1], 0.1)])
@pytest.mark.parametrize("loses", [False, True])
def test_the_stated_number_of_reports_settles_after_holm(cell, margin, loses) -> None:
    wide = cell.draw(np.random.default_rng(1), 100_000)
    found = statistics.compare(wide, 100, 0.95, 0, cell.patients(len(wide)), most=None)
    n = statistics.reports_to_settle(margin, found.sd, 6, SIDE, 0.8, 1, max(cell.sizes))
    # 80 % at least; the standard error of 30 runs is 7 %.
    assert settled(cell, n, margin, margin * loses, runs=30, resamples=400) > 0.65


def test_how_many_reports_nothing_but_the_guard_takes() -> None:
    for precisions in (1, 6):
        n = statistics.reports_to_settle(0.01, 0.0, precisions, SIDE, 0.8, 1)
        assert n == pytest.approx(np.log(SIDE / precisions) / np.log(0.99), rel=0.01)
    assert statistics.reports_to_settle(0.01, 0.3, 1, SIDE, 0.8, 0.011) == pytest.approx(
        (2.8016 * 0.3 / 0.01) ** 2, rel=0.02
    )
    with pytest.raises(UserError, match="between 0 and the largest loss"):
        statistics.reports_to_settle(0.2, 0.3, 1, SIDE, 0.8, 0.1)


def test_a_pilots_range_holds_the_number_that_is_needed() -> None:
    _, held, _, single = held_by_range(SINGLE[1], 40, 0.05, runs=80)
    assert held > 0.8
    assert single[1] > 1.7 * single[0]
    low, high = statistics.settle_range(0.05, (0.1, 0.2), 6, SIDE, 0.8, 1)
    assert low < high
    assert [statistics.rounded(each) for each in (7, 1907, 1900, 99)] == [7, 2000, 1900, 99]


def test_more_resamples_are_drawn_where_the_ends_move() -> None:
    d = np.random.default_rng(4).normal(0, 0.3, 50)
    few = [statistics.compare(d, 1000, 0.95, seed).interval.low for seed in range(8)]
    raw = [statistics.compare(d, 1000, 0.95, seed, most=None).interval.low for seed in range(8)]
    assert np.std(few) < 0.0005 < np.std(raw)
