"""Sums over drawn patients: against exact arithmetic on the same draws, one after the other."""

from fractions import Fraction

import numpy as np
import pytest

from radquant import draws, statistics
from radquant.draws import sums_of_draws
from radquant.patient_units import units
from radquant.reporting.resampling import intervals

RESAMPLES, PATIENTS = 150, 40


@pytest.fixture
def columns() -> np.ndarray:
    """Of very different sizes: what is added up of one must not suffer from another."""
    rng = np.random.default_rng(5)
    return np.column_stack(
        [
            rng.normal(size=PATIENTS),
            rng.integers(0, 9, PATIENTS),
            rng.normal(0.1, 1, PATIENTS) * 1e-9,
            rng.exponential(size=PATIENTS) * 10.0 ** rng.integers(-12, 12, PATIENTS),
            np.zeros(PATIENTS),
        ]
    )


def test_a_sum_is_the_exact_one_rounded_once(columns: np.ndarray) -> None:
    found = sums_of_draws(columns, RESAMPLES, np.random.default_rng(3))
    rng = np.random.default_rng(3)
    for row in found:
        drawn = columns[rng.integers(0, PATIENTS, PATIENTS)]
        assert row.tolist() == [float(sum(map(Fraction, column))) for column in drawn.T]


@pytest.mark.parametrize("chunk", [7, 90, 10_000])
def test_a_sum_depends_neither_on_other_columns_nor_on_memory(
    columns: np.ndarray, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = sums_of_draws(columns, RESAMPLES, np.random.default_rng(3))
    monkeypatch.setattr(draws, "CHUNK", chunk)
    for place in range(columns.shape[1]):
        alone = sums_of_draws(columns[:, [place]], RESAMPLES, np.random.default_rng(3))
        assert np.array_equal(alone[:, 0], together[:, place])


def some_scores() -> tuple[list[np.ndarray], list[str]]:
    rng = np.random.default_rng(8)
    patients = [f"p{number}" for number in rng.integers(0, 30, 80)]
    return [rng.normal(0.02, 0.1, 80).clip(-1, 1) for _ in range(3)], patients


def test_one_draw_for_comparisons_and_gains_gives_what_each_gives_alone() -> None:
    differences, patients = some_scores()
    gains = [each + 0.05 for each in differences]
    of_all = [units(each, patients) for each in (*differences, *gains)]
    found = statistics.drawn_together(of_all, 400, 3)
    compared = statistics.compare_units(found[:3], 400, 0.95, 3, bounds=(-1, 1), most=900)
    alone = [
        statistics.compare(each, 400, 0.95, 3, patients, bounds=(-1, 1), most=900)
        for each in differences
    ]
    assert compared == alone
    tests = [statistics.gain_p(each, -0.95, 400, 3) for each in found[3:]]
    assert tests == [statistics.noninferiority_p(each, -0.95, 400, 3, patients) for each in gains]


def test_more_resamples_go_on_from_the_first_and_are_those_of_one_long_draw() -> None:
    differences, patients = some_scores()
    chances = (0.95, 3, patients)
    longer = statistics.bootstrap_intervals(differences, 400, *chances, most=1000)
    assert longer == statistics.bootstrap_intervals(differences, 1000, *chances)
    assert longer != statistics.bootstrap_intervals(differences, 400, *chances)


def test_resampled_means_are_those_of_the_patients_drawn() -> None:
    differences, patients = some_scores()
    of = units(differences[0], patients)
    (drawn,) = statistics.drawn_together([of], 50, 3)
    assert drawn.drawn is not None
    labels, order = np.array(patients), list(dict.fromkeys(patients))
    rng = np.random.default_rng(3)
    for mean in drawn.drawn[0]:
        chosen = [order[number] for number in rng.integers(0, len(order), len(order))]
        reports = np.concatenate([differences[0][labels == label] for label in chosen])
        assert mean == pytest.approx(reports.mean(), abs=1e-12)


def test_means_that_only_rounding_separates_count_as_equal() -> None:
    """Thirds have no exact float: of fractions and of their threefold come the same ends."""
    thirds = np.tile([1.0, 1.0, -1.0, 0.0, 2.0], 8)
    (whole,) = statistics.bootstrap_intervals([thirds], 2000, 0.95, 1)
    (parts,) = statistics.bootstrap_intervals([thirds / 3], 2000, 0.95, 1)
    assert (3 * parts.low, 3 * parts.high) == pytest.approx((whole.low, whole.high), abs=1e-12)
    (moved,) = statistics.bootstrap_intervals([thirds + 0.1], 2000, 0.95, 1)
    assert (moved.low - 0.1, moved.high - 0.1) == pytest.approx((whole.low, whole.high), abs=1e-12)

    def mean(sums: np.ndarray) -> np.ndarray:
        return np.asarray(sums[..., 0] / sums[..., 1])

    ends = []
    for values in (thirds, thirds / 3):
        counts = np.column_stack([values, np.ones(len(values))])
        (found,) = intervals(counts, [mean], None, 2000, 0.95, 1)
        assert found is not None
        ends += [found.low, found.high]
    assert (3 * ends[2], 3 * ends[3]) == pytest.approx((ends[0], ends[1]), abs=1e-12)
