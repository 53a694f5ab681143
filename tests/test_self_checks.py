"""The report's self-checks: one line where all hold, all of it where one does not."""

import pytest

from radquant.reporting.self_checks import self_checks

BROKEN = {"layer": "l.1", "what": "weights", "measured": 1.0, "bound": 0.03}


def record(checks, broken=(), **own):
    verification = None if checks is None else {"checks": checks, "broken": list(broken)}
    return {"checks": own, "verification": verification}


@pytest.mark.parametrize(
    ("records", "title", "unfolded"),
    [
        ({"a": record(3), "b": record(4)}, "all 7 passed", False),
        # What a checkpoint's own record answers with yes or no counts, its numbers do not.
        ({"a": record(3, layers=9, equal=True)}, "all 4 passed", False),
        ({"a": record(3, equal=False)}, "1 of 4 failed", True),
        ({"a": record(1200), "b": record(40, [BROKEN, BROKEN])}, "2 of 1,240 failed", True),
        (
            {"a": record(3), "b": record(None)},
            "all 3 passed, but the weights of b were not compared with the original's",
            False,
        ),
        (
            {"a": record(None), "b": record(None)},
            "the weights of a and b were not compared with the original's",
            False,
        ),
    ],
)
def test_checks_are_folded_away_where_all_of_them_hold(records, title, unfolded):
    start, body, end = self_checks(records)
    attribute = " open" if unfolded else ""
    assert start == f"<details{attribute}><summary>Self-checks: {title}</summary>"
    assert end == "</details>"
    assert body.count("is broken:") == sum(
        bool((each["verification"] or {"broken": []})["broken"]) for each in records.values()
    )


def test_each_checkpoint_has_its_checks_inside():
    records = {"a_b": record(3, largest_change=1.234e-6, equal=True), "c": record(2, [BROKEN])}
    body = " ".join(self_checks(records)[1].split())
    assert r"- a\_b: largest change 1.2e-06, equal yes." in body
    assert r"- a\_b: all 3 checks of its weights against the original's hold." in body
    assert "- **c is broken:** l.1: weights is 1, at most 0.03." in body
