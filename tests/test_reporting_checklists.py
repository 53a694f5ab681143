"""results/reporting.md: every item of two checklists, filled in from the run or named as open."""

import copy
import re

import pytest
from report_run import CONFIG, make_results

from radquant.errors import UserError
from radquant.reporting import formatting
from radquant.reporting.checklist import OPEN, answers, reporting_page
from radquant.reporting.checklist_items import CHECKLISTS, CLAIM, TRIPOD_LLM
from radquant.reporting.collect import collect
from radquant.reporting.leak import known_leak, leak_statement, leak_warning
from radquant.reporting.method_sections import data_section
from radquant.reporting.summary import summarize
from radquant.settings.sentences import made
from radquant.settings.study import Study

TEXTS = sorted(Study.model_fields.keys() - {"readings", "leak"})


@pytest.fixture(scope="module")
def summary(tmp_path_factory):
    config = {**CONFIG, "statistics": {**CONFIG["statistics"], "resamples": 100}}
    folder = make_results(tmp_path_factory.mktemp("report") / "results")
    return summarize(collect(folder, config))


def with_study(summary, **study):
    changed = copy.copy(summary)
    changed["config"] = {**summary["config"], "study": study}
    return changed


def leaves(value):
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from leaves(item)
    else:
        yield value


def test_the_numbers_are_those_of_the_published_tables():
    """49 rows of table 2 of TRIPOD-LLM, 44 items of CLAIM's update."""
    subitems = {3: 2, 5: 5, 6: 5, 7: 5, 8: 3, 9: 2, 14: 6, 16: 4, 19: 7}
    expected = [
        f"{item}{letter}"
        for item in range(1, 20)
        for letter in ("abcdefg"[: subitems[item]] if item in subitems else [""])
    ]
    assert [item.number for item in TRIPOD_LLM.items] == expected
    assert [item.number for item in CLAIM.items] == [str(number) for number in range(1, 45)]


def test_every_item_is_filled_in_or_open_and_no_answer_is_without_an_item(summary):
    found, page = answers(summary), reporting_page(summary)
    asked = {key for checklist in CHECKLISTS for item in checklist.items for key in item.answers}
    assert asked == set(found)
    for checklist in CHECKLISTS:
        part = page.partition(f"## {checklist.name}\n")[2].partition("\n## ")[0]
        lines = re.findall(r"^- \*\*(\w+)\*\* (.*(?:\n  .*)*)", part, re.M)
        assert [number for number, _ in lines] == [item.number for item in checklist.items]
        for (_, text), item in zip(lines, checklist.items, strict=True):
            said = " ".join(text.split()).removeprefix(f"{item.section}: {item.name}. ")
            still_open = any(found[key].missing for key in item.answers)
            assert said
            assert (OPEN in said) == still_open
    assert "not a medical device" in page


def test_every_number_is_in_the_summary(summary):
    page = reporting_page(summary)
    written = set()
    for value in leaves(summary):
        if isinstance(value, str):
            written |= set(re.findall(r"[\d.,]*\d", value))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            for digits in range(4):
                written.add(formatting.number(abs(value), digits))
            written |= {f"{100 * value:g}", formatting.probability(value)}
            written.add(formatting.size(value).split()[0])
    records = summary["performance"]
    for stage in ("quantization", "systems", "likelihood"):
        for key in ("cpu_seconds", "wall_seconds"):
            written.add(f"{sum(row[key] for row in records[stage].values()):,.0f}")
    body = page.partition("## Flow of reports")[2]
    for checklist in CHECKLISTS:
        body = body.replace(checklist.source, "")
        for item in checklist.items:
            body = body.replace(f"**{item.number}** ", "")
    words = r"2a to 2l|F1|CLAIM, 2024 update|SmolLM2|[0-9a-f]{40,}|(?<=[A-Za-z-])\d+|RadGraph-XL"
    body = re.sub(words, "", " ".join(body.split()))
    odd = [text for text in re.findall(r"\d[\d,.]*\d|\d", body) if text not in written]
    lost = sum(
        row["kinds"][kind]["changes"]
        for row in summary["quality"]["changes"].values()
        for kind in ("lost", "negated")
    )
    assert set(odd) <= {str(lost), "2"}, odd


@pytest.mark.parametrize("key", TEXTS)
def test_what_the_authors_say_is_printed_and_no_longer_open(summary, key):
    text = "Ten years | *bold* <b>\nof practice"
    before, after = reporting_page(summary), reporting_page(with_study(summary, **{key: text}))
    if f"study: {key}" in before:
        assert f"study: {key}" not in after
        assert formatting.escape(text) in " ".join(after.split())
    assert "<b>" not in re.sub(r"\\<b\\>", "", after)
    unknown = reporting_page(with_study(summary, **{key: " Unknown "}))
    assert unknown == before


def test_no_result_of_an_unfit_run_stands_without_saying_so(summary):
    reason = {"sentence": "in 24 of 24 references the annotator finds nothing."}
    quality = {**summary["quality"], "fitness": {"fit": False, "reasons": [reason]}}
    page = " ".join(reporting_page({**summary, "quality": quality}).split())
    for start in ("**17** Performance", "**38** Results", "**40** Discussion"):
        item = page.partition(start)[2].partition("- **")[0]
        assert "The run is unfit to answer" in item
        assert "In 24 of 24 references the annotator finds nothing." in item


MEDGEMMA = {"name": "MedGemma 1.5 4B", "hub": {"id": "google/medgemma-1.5-4b-it"}}
MIMIC = {"name": "MIMIC-CXR", "format": "mimic-sectioned"}


def leaking(model=MEDGEMMA, corpus=MIMIC, **study):
    return {"model": model, "corpus": corpus, "study": study}


def test_a_known_leak_is_said_unless_the_authors_answer():
    assert "MedGemma was trained on MIMIC-CXR" in leak_warning(leaking())
    assert "study: leak" in leak_statement(leaking())[1]
    assert "hold MIMIC-CXR, by the configuration" in leak_warning(leaking(leak="yes"))
    denied = leaking(leak="no", leak_note="Its test split alone.")
    assert leak_warning(denied) == ""
    assert "But MedGemma was trained on MIMIC-CXR" in leak_statement(denied)[0]
    assert "Its test split alone." in leak_statement(denied)[0]
    local = {"name": "ours", "path": "/models/med_gemma/MedGemma-4b"}
    assert known_leak(leaking(local))
    assert known_leak(leaking({"name": "SmolLM2"})) is None
    assert known_leak(leaking(corpus={"name": "Open-I", "format": "openi"})) is None
    said = leak_statement(leaking({"name": "a"}, leak="no"))
    assert said == (
        "The training data of a do not hold MIMIC-CXR, by the configuration.",
        "say how that is known",
    )


def test_the_report_warns_of_a_leak_under_data(summary):
    text = data_section(with_study(summary, leak="yes"))
    assert "Scores of reports that a model was trained on tend to be too high" in " ".join(
        text.split()
    )
    assert "too high" not in data_section(summary)


def test_yaml_makes_truth_of_yes_and_no():
    assert made(Study, {"leak": True}).leak == "yes"
    assert made(Study, {"leak": False}).leak == "no"
    with pytest.raises(UserError, match="leak is 'maybe', which is not allowed"):
        made(Study, {"leak": "maybe"})
