from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radquant.corpus.pipeline import Cleaned, Settings, TooFewError, clean_corpus, rejected_table
from radquant.corpus.reports import Report
from radquant.corpus.sections import find_sections
from radquant.corpus.splitting import assign_splits, check_no_leak, draw, leaks
from radquant.errors import UserError

TASK = Settings(["findings"], "impression", eval_reports=5, eval_fraction=0.4, seed=3)


def corpus(count: int, groups: int | None = None) -> list[Report]:
    return [
        Report(
            id=f"r{number}",
            group=f"p{number % groups}" if groups else "",
            findings=f"A spot of {number} mm lies in the lung.",
            impression="One spot.",
        )
        for number in range(count)
    ]


def test_whole_patients_are_held_out_in_about_the_share_asked_for():
    reports = corpus(2000, groups=500)
    splits = assign_splits(reports, 0.3, seed=1)
    of_group: dict[str, set[str]] = {}
    for report, split in zip(reports, splits, strict=True):
        of_group.setdefault(report.group, set()).add(split)
    assert all(len(found) == 1 for found in of_group.values())
    assert 0.2 < splits.count("eval") / 2000 < 0.4
    assert splits != assign_splits(reports, 0.3, seed=2)


def test_a_patient_in_several_forms_is_one():
    """Padded, as a column of a fixed width; with .0, as pandas writes numbers beside a gap."""
    forms = ["123", "123 ", "\u00a0123", "123.0", "１２３", "Mu\u0308ller", "Müller"]
    reports = [replace(report, group=form) for report, form in zip(corpus(7), forms, strict=True)]
    for seed in range(20):
        splits = assign_splits(reports, 0.5, seed)
        assert len(set(splits[:5])) == len(set(splits[5:])) == 1
        task = replace(TASK, eval_reports=1, eval_fraction=0.5, seed=seed)
        if splits[0] != splits[5]:
            cleaned = clean_corpus(reports, task)
            assert cleaned.funnel["eval_groups"] == cleaned.funnel["train_groups"] == 1


def test_one_text_in_two_unicode_forms_is_a_duplicate():
    reports = corpus(20)
    reports[3].findings, reports[4].findings = "Größe: 5 mm", "GRO\u0308ßE 5 mm"
    cleaned = clean_corpus(reports, TASK)
    assert [r.id for r, why, _ in cleaned.rejected if why == "duplicate text"] == ["r4"]


def test_growing_the_corpus_moves_nobody():
    small, large = corpus(100, groups=30), corpus(400, groups=30)
    assert assign_splits(large, 0.3, 1)[:100] == assign_splits(small, 0.3, 1)


def test_asking_for_more_keeps_those_there_were():
    reports = corpus(50)
    few, _ = draw(reports, 10, seed=1)
    many, rest = draw(reports, 20, seed=1)
    assert many[:10] == few
    assert sorted(r.id for r in many + rest) == sorted(r.id for r in reports)
    assert [r.id for r in draw(reports[::-1], 10, 1)[0]] == [r.id for r in few]


def test_given_splits_are_respected_and_the_unassigned_are_rejected():
    reports = corpus(20)
    for number, report in enumerate(reports):
        report.split = "eval" if number < 8 else "train"
    reports[19].split = ""
    cleaned = clean_corpus(reports, TASK)
    assert {r.id for r in cleaned.evaluation} <= {f"r{n}" for n in range(8)}
    assert {r.id for r in cleaned.train} == {f"r{n}" for n in range(8, 19)}
    assert cleaned.funnel["reasons"] == {"no split": 1, "not drawn": 3}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"group": "p1"}, "shared patient"),
        ({"group": " p1\u200b"}, "shared patient"),
        ({"study": "s1"}, "shared study"),
        ({"study": "s1\u00a0"}, "shared study"),
        ({"findings": "SAME words, here"}, "shared text"),
        ({"findings": "sa\u00adme \u200bwords here"}, "shared text"),
        ({}, None),
    ],
)
def test_leaks(change, reason):
    held_out = Report("e", group="p1", study="s1", findings="Same words here.", impression="A b.")
    train = replace(Report("t", findings="Other words.", impression="A b."), **change)
    found = leaks([train], [held_out], ["findings"], "impression")
    assert found.get("t") == reason
    if reason:
        with pytest.raises(UserError, match=reason):
            check_no_leak([train], [held_out], ["findings"], "impression")
    else:
        check_no_leak([train], [held_out], ["findings"], "impression")


def test_an_indication_shared_by_many_is_no_leak():
    train = Report("t", indication="Chest pain.", findings="Clear lungs.")
    held_out = Report("e", indication="Chest pain.", findings="Large heart.")
    assert leaks([train], [held_out], ["indication"], "findings") == {}
    same = replace(held_out, findings="clear lungs")
    assert leaks([train], [same], ["indication"], "findings") == {"t": "shared text"}


def test_one_image_on_both_sides_is_a_leak_and_one_text_of_two_images_is_none():
    train = Report("t", indication="Pain.", findings="Clear lungs.", images="a.png;b.png")
    held_out = Report("e", indication="Pain.", findings="Clear lungs.", images="c.png")
    for inputs in ([], ["indication"]):
        assert leaks([train], [held_out], inputs, "findings") == {}
        same = replace(held_out, findings="Large heart.", images="d.png;b.png")
        assert leaks([train], [same], inputs, "findings") == {"t": "shared image"}
        with pytest.raises(UserError, match="shared image"):
            check_no_leak([train], [same], inputs, "findings")


def test_reports_from_images_need_one_and_are_no_duplicates_of_each_other():
    reports = [
        Report(f"r{n}", findings="Lungs are clear.", images=f"{n // 2}.png" if n else "")
        for n in range(40)
    ]
    task = Settings([], "findings", 2, 0.3, images=True)
    cleaned = clean_corpus(reports, task)
    reasons = {report.id: reason for report, reason, _ in cleaned.rejected}
    assert reasons["r0"] == "no image"
    assert sum(reason == "duplicate text" for reason in reasons.values()) == 19
    assert cleaned.train
    with pytest.raises(UserError, match="the task needs inputs"):
        clean_corpus(reports, replace(task, images=False))


def test_a_leak_costs_the_training_report_not_the_evaluation():
    reports = corpus(20)
    for number, report in enumerate(reports):
        report.split = "eval" if number < 5 else "train"
    reports[10].findings = reports[0].findings
    reports[10].impression = "Another opinion."
    cleaned = clean_corpus(reports, TASK)
    assert "r0" in {r.id for r in cleaned.evaluation}
    assert cleaned.funnel["reasons"] == {"shared text": 1}


def test_a_duplicate_in_train_does_not_displace_the_evaluation_report():
    reports = corpus(20)
    for number, report in enumerate(reports):
        report.split = "train" if number < 15 else "eval"
    reports[0].findings = reports[15].findings.upper()
    cleaned = clean_corpus(reports, TASK)
    table = rejected_table(cleaned)
    assert table.to_dict("records") == [
        {"id": "r0", "group": "", "reason": "duplicate text", "detail": "same as r15"}
    ]


REASONS = [
    ({"findings": " ___ "}, "no findings"),
    ({"impression": ""}, "no impression"),
    ({"impression": "As above."}, "refers elsewhere"),
    ({"findings": "The heart is"}, "cut mid-sentence"),
    ({"impression": "Normal."}, "too short"),
    ({"impression": "Very large. " * 100}, "too long"),
    ({"findings": "39 A.M., ___"}, "input too short"),
    ({"images": ""}, "no image"),
    ({"images": "", "missing": "a.png"}, "image missing"),
    ({"findings": "A mass"}, "input too short"),
    ({"findings": "NO mass is\nseen.", "impression": "No mass is seen"}, "input is the target"),
    (
        {"findings": "Large heart.\nIMPRESSION: No change.", "impression": "No change."},
        "input is the target",
    ),
]


@pytest.mark.parametrize(("change", "reason"), REASONS)
def test_every_reason_is_recorded(change, reason):
    reports = [replace(each, images=f"{each.id}.png") for each in corpus(30)]
    reports[4] = replace(reports[4], **change)
    images = reason in ("no image", "image missing")
    task = replace(TASK, min_words=2, min_input_words=2, images=images)
    cleaned = clean_corpus(reports, task)
    table = rejected_table(cleaned)
    assert table.loc[table["id"] == "r4", "reason"].tolist() == [reason]
    step = "missing section" if reason in ("no findings", "no impression") else reason
    assert {step: 1} == {
        each["step"]: each["removed"] for each in cleaned.funnel["steps"] if each["step"] == step
    }


def test_findings_may_say_what_the_impression_says():
    reports = corpus(30)
    said = {"findings": "Large heart. No change: none. No change.", "impression": "No change."}
    reports[4] = replace(reports[4], **said)
    assert not [why for _, why, _ in clean_corpus(reports, TASK).rejected if "target" in why]


def test_a_section_of_both_is_never_its_own_answer():
    """FINDINGS/IMPRESSION: the model would be shown the reference."""
    reports = corpus(30)
    both = find_sections("FINDINGS/IMPRESSION: No change of the large heart.")
    assert both.findings == both.impression != ""
    reports[4] = replace(reports[4], findings=both.findings, impression=both.impression)
    cleaned = clean_corpus(reports, TASK)
    assert [(r.id, why) for r, why, _ in cleaned.rejected if "target" in why] == [
        ("r4", "input is the target")
    ]
    assert cleaned.funnel["reasons"]["input is the target"] == 1


_text = st.sampled_from(
    ["", "A spot.", "a SPOT", "As above.", "The heart is", "Normal", "Clear lungs.", "Big heart."]
)
_report = st.builds(
    Report,
    id=st.just(""),
    group=st.sampled_from(["", "p1", "p2", "p3", "p4"]),
    study=st.sampled_from(["", "s1", "s2"]),
    findings=st.integers(0, 30).map(lambda n: f"Spot of {n} mm.") | _text,
    impression=_text,
    split=st.sampled_from(["", "train", "eval"]),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(_report, min_size=1, max_size=60), st.booleans(), st.integers(1, 4))
def test_nothing_is_lost_and_nothing_leaks(reports, keep_split, count):
    for number, report in enumerate(reports):
        report.id = f"r{number}"
        report.split = report.split if keep_split else ""
    try:
        cleaned = clean_corpus(reports, replace(TASK, eval_reports=count))
    except UserError as error:
        message = str(error)
    else:
        message = ""
        check_sums(reports, cleaned, count)
    assert not message or f"raw {len(reports)}" in message  # a refusal shows the funnel


def check_sums(reports: list[Report], cleaned: Cleaned, count: int) -> None:
    kept = [r.id for r in cleaned.train + cleaned.evaluation]
    dropped = [r.id for r, _, _ in cleaned.rejected]
    assert sorted(kept + dropped) == sorted(r.id for r in reports)
    funnel = cleaned.funnel
    assert len(reports) == funnel["train"] + funnel["eval"] + sum(funnel["reasons"].values())
    lefts = [step["left"] for step in funnel["steps"]]
    for before, step in zip(lefts, funnel["steps"][1:], strict=False):
        assert before - step["removed"] == step["left"]
    assert lefts[-1] == funnel["train"] + funnel["eval"] == len(kept)
    assert funnel["eval"] == count
    groups = [{r.group for r in side if r.group} for side in (cleaned.train, cleaned.evaluation)]
    assert not groups[0] & groups[1]


def test_too_few_says_how_many_and_shows_the_funnel():
    reports = corpus(20)
    reports[3] = replace(reports[3], impression="As above.")
    with pytest.raises(
        TooFewError,
        match=r"99 .* were asked for and \d+ are there \(raw 20, .*train.*raise "
        r"cleaning.eval_fraction; 1 of 1 were dropped as 'refers elsewhere', such as 'r3'",
    ):
        clean_corpus(reports, replace(TASK, eval_reports=99))


def test_nothing_left_and_nothing_there():
    reports = [replace(report, impression="") for report in corpus(3)]
    with pytest.raises(UserError, match=r"nothing is left .*raw 3, missing section -3"):
        clean_corpus(reports, TASK)
    with pytest.raises(UserError, match="empty"):
        clean_corpus([], TASK)


def test_duplicate_ids_are_named():
    reports = corpus(5)
    reports[3].id = "r1"
    with pytest.raises(UserError, match=r"'r1' at record 2, record 4"):
        clean_corpus(reports, TASK)


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": ["finding"]},
        {"inputs": []},
        {"inputs": ["impression"]},
        {"inputs": ["text"]},
        {"eval_reports": 0},
        {"eval_fraction": 1.0},
        {"min_words": 9, "max_words": 3},
        {"min_input_words": 0},
    ],
)
def test_a_task_that_makes_no_sense_is_refused(change):
    with pytest.raises(UserError):
        clean_corpus(corpus(20), replace(TASK, **change))
