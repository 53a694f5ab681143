"""The pure parts of benchmarks/calibration.py: its points, its estimates, its general text."""

from dataclasses import replace

import calibration as benchmark
import numpy as np
import pandas as pd
import pytest
import wikipedia
from scipy import stats

from radquant.errors import UserError

RNG = np.random.default_rng(0)
TOKENS = RNG.integers(1, 40, 400).astype(np.float64)


# --------------------------------------------------------------------------------------- points


@pytest.mark.parametrize("model", [benchmark.SMOLLM2, benchmark.GEMMA])
def test_each_point_is_measured_once_and_has_a_name_of_its_own(model):
    points = benchmark.points_of(model)
    assert len(set(points)) == len({point.name for point in points}) == len(points)
    assert points[0] == benchmark.BASELINE


def test_the_points_vary_texts_amount_draw_and_group():
    points = benchmark.points_of(benchmark.SMOLLM2)
    of_baseline = [p for p in points if p.condition == benchmark.BASELINE.condition]
    assert [p.seed for p in of_baseline] == list(benchmark.DRAWS)
    amounts = {p.samples for p in points if p == replace(benchmark.BASELINE, samples=p.samples)}
    assert amounts == {16, 32, 64, 128, 256, 512}
    # At equal tokens every kind of text is there, with the baseline's recipe and draw.
    for texts, samples in benchmark.SAME_TOKENS.items():
        assert benchmark.Point(texts, samples) in points
    assert replace(benchmark.BASELINE, group_size=32) in points
    assert replace(benchmark.BASELINE, method="gptq") in points


def test_only_rounding_has_no_texts():
    for point in benchmark.points_of(benchmark.SMOLLM2):
        assert (point.samples == 0) == (point.method == "rtn") == (point.texts == "none")


def test_raw_reports_are_those_of_the_rendered_samples():
    train = pd.DataFrame(
        {
            "id": ["a", "b", "c"],
            "findings": ["Clear.", "Large heart.", "Effusion."],
            "impression": ["Normal.", "Cardiomegaly.", "Effusion."],
        }
    )
    raw = benchmark.raw_reports(train, pd.DataFrame({"id": ["c", "a"]}))
    assert list(raw["text"]) == ["Clear.\nNormal.", "Effusion.\nEffusion."]


# ------------------------------------------------------------------------------------ estimates


def test_equal_references_give_the_paired_t_interval_or_a_wider_one():
    tokens = np.full(50, 10.0)
    d = RNG.normal(0.4, 2, 50)
    found = benchmark.compared(d + 7, np.full(50, 7.0), tokens)
    exact = stats.ttest_1samp(d / 10, 0).confidence_interval()
    assert found["difference"] == pytest.approx(d.mean() / 10)
    assert found["of_reports"]["difference"] == pytest.approx(d.mean() / 10)
    for interval in (found, found["of_reports"]):
        assert interval["low"] <= exact.low + 1e-12
        assert interval["high"] >= exact.high - 1e-12
        assert interval["high"] - interval["low"] < 1.1 * (exact.high - exact.low)


def test_linearised_values_have_the_mean_and_the_spread_of_the_ratio():
    d = 0.05 * TOKENS + RNG.normal(0, 1, len(TOKENS))
    values = benchmark.linearised(d, TOKENS)
    assert values.mean() == pytest.approx(d.sum() / TOKENS.sum())
    # The ratio's variance in closed form: of d − r·t, over the reports and the squared mean of t.
    r = d.sum() / TOKENS.sum()
    residual = d - r * TOKENS
    expected = (residual**2).sum() / (len(d) - 1) / len(d) / TOKENS.mean() ** 2
    assert values.var(ddof=1) / len(d) == pytest.approx(expected)


def test_the_interval_is_the_ratios_own_and_not_that_of_the_mean_of_reports():
    # Each token costs the same, so every resample of reports gives the same ratio.
    found = benchmark.compared(3 + 0.25 * TOKENS, np.full(len(TOKENS), 3.0), TOKENS)
    assert found["difference"] == found["low"] == found["high"] == pytest.approx(0.25)


def test_draws_that_agree_leave_the_interval_over_reports():
    d = RNG.normal(0.3, 1, len(TOKENS))
    found = benchmark.over_draws(np.array([d, d, d]), TOKENS)
    values = benchmark.linearised(d, TOKENS)
    half = stats.t.ppf(0.975, len(d) - 1) * values.std(ddof=1) / np.sqrt(len(d))
    assert found["sd"] == pytest.approx(0, abs=1e-12)
    assert found["difference"] == pytest.approx(d.sum() / TOKENS.sum())
    assert found["high"] - found["difference"] == pytest.approx(half)


def test_reports_that_agree_leave_the_t_interval_over_draws():
    rates = np.array([0.1, 0.14, 0.09])
    found = benchmark.over_draws(rates[:, None] * TOKENS, TOKENS)
    exact = stats.ttest_1samp(rates, 0).confidence_interval()
    assert (found["low"], found["high"]) == pytest.approx((exact.low, exact.high))
    assert found["sd"] == pytest.approx(rates.std(ddof=1))
    assert (found["least"], found["most"]) == pytest.approx((0.09, 0.14))


def test_draws_that_are_all_equal_have_no_width():
    found = benchmark.over_draws(np.tile(0.5 * TOKENS, (2, 1)), TOKENS)
    assert found["low"] == found["high"] == pytest.approx(0.5)


@pytest.mark.parametrize("sd_draws", [0.0, 0.02, 0.2])
def test_intervals_over_draws_keep_their_level(sd_draws):
    rng = np.random.default_rng(1)
    tokens = np.full(60, 10.0)
    held = 0
    for _ in range(600):
        noise = rng.normal(0, 1, (5, 60)) + rng.normal(0, 1, 60)
        d = tokens * (0.1 + sd_draws * rng.normal(0, 1, (5, 1))) + noise
        found = benchmark.over_draws(d, tokens)
        held += found["low"] <= 0.1 <= found["high"]
    assert 0.92 <= held / 600 <= 0.995


def test_only_what_shares_a_draw_is_paired_with_the_baseline():
    draws = benchmark.DRAWS
    zeros = np.zeros(len(TOKENS))
    other = replace(benchmark.BASELINE, samples=16)
    nll = {replace(benchmark.BASELINE, seed=seed): n * TOKENS for n, seed in enumerate(draws)}
    nll |= {replace(other, seed=seed): (n + 2) * TOKENS for n, seed in enumerate(draws[:3])}
    nll[replace(benchmark.BASELINE, method="rtn")] = TOKENS  # once: no spread to tell
    first, second = benchmark.by_condition(nll, zeros, TOKENS)
    assert first["over_original"]["draws"] == 5
    assert "over_baseline" not in first
    assert second["over_original"]["difference"] == pytest.approx(3)
    assert second["over_baseline"]["draws"] == 3
    assert second["over_baseline"]["difference"] == pytest.approx(2)
    assert second["over_baseline"]["sd"] == pytest.approx(0, abs=1e-12)


def test_likelihoods_of_other_reports_are_refused(tmp_path):
    table = pd.DataFrame({"id": ["a", "b"], "nll": [1.0, 2.0], "tokens": [3, 4]})
    table.to_parquet(tmp_path / "nll.parquet")
    assert benchmark.read_nll(tmp_path / "nll.parquet", table).equals(table)
    with pytest.raises(UserError, match="other reports"):
        benchmark.read_nll(tmp_path / "nll.parquet", table.iloc[::-1])


# --------------------------------------------------------------------------------- general text

WORDS = " ".join(["word"] * 40)


@pytest.mark.parametrize(
    ("markup", "shown"),
    [
        ("The '''cat''' is an [[animal|beast]] of [[Asia]]", "The cat is an beast of Asia"),
        ("A fact<ref>{{cite book|title=X}}</ref>, another<ref name=a/>", "A fact, another"),
        (
            "Old{{sfn|Smith|2000}}, since [http://a.b it began] in 9&nbsp;BC",
            "Old, since it began in 9 BC",
        ),
        ("[[File:a.jpg|thumb|A [[cat]] asleep.]]It sleeps", "It sleeps"),
    ],
)
def test_a_paragraph_is_what_a_reader_sees(markup, shown):
    (text,) = wikipedia.prose(f"{markup} {WORDS}.")
    assert text == f"{shown} {WORDS}."


@pytest.mark.parametrize(
    "markup",
    [
        f"It is {{{{convert|5|km}}}} long, {WORDS}.",  # a sentence with a hole
        f"The sum <math>a + b</math> is {WORDS}.",
        f"* An item of a list {WORDS}.",
        f"{{|\n| A cell {WORDS}.\n|}}",
        f"== A heading {WORDS}. ==",
        f"No end {WORDS}",
        "Too short.",
    ],
)
def test_what_is_no_whole_prose_is_left_out(markup):
    assert wikipedia.prose(markup) == []
