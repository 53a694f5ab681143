"""Which precisions are ruined, from the summaries of runs whose effects are known."""

import copy

import pytest
from report_run import CONFIG, REPORTS, make_results

from radquant.reporting.collect import collect
from radquant.reporting.ruined import ruined
from radquant.reporting.summary import summarize


@pytest.fixture(scope="module")
def quality(tmp_path_factory):
    folder = make_results(tmp_path_factory.mktemp("run") / "results")
    return summarize(collect(folder, CONFIG))["quality"]


def reason(kind, sentence):
    return {"kind": kind, "sentence": sentence, "numbers": {}}


def test_a_precision_that_lost_most_of_its_score_is_ruined(quality):
    """w4a4 loses 0.3 of about 0.45, the others 0.02 at most."""
    found = ruined(quality)
    assert list(found) == ["w4a4"]
    means = [f"{quality['systems'][name]['complete']:.3f}" for name in ("w4a4", "original")]
    assert found["w4a4"] == (
        f"w4a4 scores {means[0]} F1 points where the original scores {means[1]} F1 points."
    )


def test_a_loss_that_is_not_shown_ruins_nothing(quality):
    changed = copy.deepcopy(quality)
    changed["differences"]["complete"]["w4a4"]["state"] = "not settled"
    assert ruined(changed) == {}


@pytest.mark.parametrize("kind", ["broken checkpoint", "language", "the same output"])
def test_a_precision_that_is_broken_is_ruined(quality, kind):
    changed = copy.deepcopy(quality)
    changed["fitness"]["reasons"] = []
    changed["fitness"]["precisions"]["w4a16"] = [reason(kind, "w4a16 is so.")]
    assert ruined(changed)["w4a16"] == "w4a16 is so."
    # What the original has too is of the model, or of the annotator, and not of the precision.
    changed["fitness"]["reasons"] = [reason(kind, "The original is so.")]
    assert "w4a16" not in ruined(changed)


@pytest.mark.parametrize(
    ("kind", "count"), [("nothing seen in the outputs", "blind"), ("degenerate outputs", "faulty")]
)
def test_a_precision_is_ruined_by_most_of_its_outputs_alone(quality, kind, count):
    changed = copy.deepcopy(quality)
    changed["fitness"]["reasons"] = []
    changed["fitness"]["precisions"]["w4a16"] = [reason(kind, "w4a16 is so.")]
    for broken, wanted in [(REPORTS // 2, False), (REPORTS // 2 + 1, True)]:
        changed["fitness"]["facts"]["systems"]["w4a16"][count] = broken
        assert ("w4a16" in ruined(changed)) == wanted


def test_other_reasons_ruin_nothing(quality):
    changed = copy.deepcopy(quality)
    others = ("differences not seen", "findings lost", "outputs cut off")
    changed["fitness"]["precisions"]["w4a16"] = [reason(kind, "x") for kind in others]
    assert "w4a16" not in ruined(changed)
