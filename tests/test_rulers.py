"""Rulers by themselves: BLEU-2, and intervals of what is no mean over reports."""

import numpy as np
import pytest
from scipy import stats

from radquant import statistics
from radquant.reporting.resampling import intervals
from radquant.scoring.metrics import bleu, chexpert
from radquant.scoring.metrics.kind import Pair

NOTHING = {"text": "", "entities": {}}
# What fast_bleu 0.0.90 gives for the bigram weights, with the tokens of Yu et al.
FAST_BLEU = {
    (
        "Small left pleural effusion. Mild cardiomegaly.",
        "Small left pleural effusion.",
    ): 0.5488116360940264,
    ("No acute disease.", "No acute cardiopulmonary abnormality."): 0.3872983346207417,
    ("Pneumonia.", "Edema"): 0.0,
    ("a b c d", "d c b a"): 0.18257418583505536,
    ("Normal", "Normal"): 0.3162277660168379,
    ("the cat sat on the mat", "the the the the"): 0.07830277146770757,
    ("x", ""): 0.0,
}


@pytest.mark.parametrize("texts", FAST_BLEU)
def test_bleu_2_is_that_of_fast_bleu(texts):
    reference, output = texts
    (found,) = bleu.measure(Pair(reference, output, "", NOTHING, NOTHING, NOTHING))
    assert found == pytest.approx(FAST_BLEU[texts], abs=1e-12)


def mean(sums):
    return sums[..., 0] / sums[..., 1]


def test_the_interval_of_a_mean_is_that_of_the_statistics():
    """Both are BCa's and t's outer ends, from other draws; of a mean, leaving out is t's error."""
    values = np.random.default_rng(1).exponential(size=60) - 0.8
    counts = np.column_stack([values, np.ones(60)])
    (found,) = intervals(counts, [mean], None, 20_000, 0.95, 1)
    other = statistics.bootstrap_interval(values, 20_000, 0.95, 1)
    assert (found.low, found.high) == pytest.approx((other.low, other.high), abs=0.02)
    half = stats.t.ppf(0.975, 59) * values.std(ddof=1) / np.sqrt(60)
    assert found.low <= values.mean() - half + 1e-9
    assert found.high >= values.mean() + half - 1e-9


def test_patients_widen_an_interval_and_labels_of_one_report_do_not():
    rng = np.random.default_rng(2)
    values = np.repeat(rng.normal(size=20), 4)
    counts = np.column_stack([values, np.ones(80)])
    patients = [f"p{number // 4}" for number in range(80)]
    alone = [f"p{number}" for number in range(80)]
    widths = []
    for labels in (None, alone, patients):
        (found,) = intervals(counts, [mean], labels, 4000, 0.95, 1)
        widths.append(found.high - found.low)
    assert widths[1] == pytest.approx(widths[0], rel=0.05)
    assert widths[2] == pytest.approx(2 * widths[0], rel=0.25)  # √4: four equal reports are one


def test_an_f1_covers_its_true_value():
    """Reports of 60 patients, two each: 95 % intervals of a paired difference of micro F1."""
    rng = np.random.default_rng(5)
    hits, size = 0, 120
    patients = np.repeat(np.arange(60), 2).astype(str)

    def draw(count):
        state = rng.random((count // 2, 3)).repeat(2, axis=0) < 0.3  # a patient's labels
        codes = [state * 10 + (state ^ (rng.random(state.shape) < p)) for p in (0.1, 0.2)]
        return np.concatenate([chexpert.count((1,), each) for each in codes], axis=1)

    def difference(sums):
        return chexpert.micro(sums[..., 9:]) - chexpert.micro(sums[..., :9])

    truth = float(difference(draw(400_000).sum(axis=0)))
    for seed in range(100):
        (found,) = intervals(draw(size), [difference], patients, 300, 0.95, seed)
        hits += found.low <= truth <= found.high
    assert 89 <= hits <= 100  # 95 % of 100, three standard errors


def test_what_cannot_be_said_has_no_interval():
    counts = np.zeros((10, 3))
    assert intervals(counts, [chexpert.micro], None, 100, 0.95, 1) == [None]
    (same,) = intervals(np.ones((10, 2)), [mean], None, 100, 0.95, 1)
    assert (same.low, same.high, same.method) == (1, 1, "constant")
    assert intervals(np.ones((4, 3)), [chexpert.micro], ["a"] * 4, 100, 0.95, 1) == [None]
