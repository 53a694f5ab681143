import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radquant.corpus.sections import find_sections, is_boilerplate, split_readings

MIMIC_STYLE = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___ year old with a cough.  // pneumonia?

 TECHNIQUE:  Chest PA and lateral

 COMPARISON:  ___

 FINDINGS:

 Both lungs expand well.  A small granuloma lies
 in the left apex.

 IMPRESSION:

 Old granuloma, nothing new.
"""


def words(text: str) -> str:
    return " ".join(text.split())


def stripped(text: str) -> str:
    """The same text as re-exported with its left margin gone."""
    return "\n".join(line.strip() for line in text.splitlines())


def on_one_line(text: str) -> str:
    return words(text)


@pytest.mark.parametrize("export", [str, stripped, on_one_line])
def test_sections_survive_lost_margins_and_joined_lines(export):
    found = find_sections(export(MIMIC_STYLE))
    assert words(found.findings) == (
        "Both lungs expand well. A small granuloma lies in the left apex."
    )
    assert found.impression == "Old granuloma, nothing new."
    assert words(found.indication) == "___ year old with a cough. // pneumonia?"
    assert found.comparison == "___"


def test_line_breaks_are_kept_for_the_cleaner():
    assert "lies\n in" in find_sections(MIMIC_STYLE).findings


@pytest.mark.parametrize(
    ("text", "findings", "impression"),
    [
        ("FINDINGS: Lungs clear. IMPRESSION: Normal.", "Lungs clear.", "Normal."),
        ("Findings: Lungs clear. Impression: Normal.", "Lungs clear.", "Normal."),
        ("FINDINGS:Lungs clear.IMPRESSION:Normal.", "Lungs clear.", "Normal."),
        ("Findings\nLungs clear.\nImpression\nNormal.", "Lungs clear.", "Normal."),
        ("FINDINGS:\r\nLungs clear.\r\nCONCLUSION: Normal.", "Lungs clear.", "Normal."),
        (
            "FINDINGS: LUNGS: Clear. HEART: Large.\nIMPRESSION: X.",
            "LUNGS: Clear. HEART: Large.",
            "X.",
        ),
        ("FINDINGS: A spot. NOTIFICATION: Dr. ___ was told.", "A spot.", ""),
        (
            "There are the following\nfindings: a spot on a rib.",
            "There are the following\nfindings: a spot on a rib.",
            "",
        ),
        ("", "", ""),
    ],
)
def test_headings(text, findings, impression):
    found = find_sections(text)
    assert (found.findings, found.impression) == (findings, impression)


def test_final_read_wins_over_wet_read_and_addendum():
    text = f"""WET READ: ___ ___ 7:21 PM
 FINDINGS: Wet findings here.
 IMPRESSION: Wet impression here.
{"_" * 78}
                 FINAL REPORT
 FINDINGS:  Final findings here.
 IMPRESSION:  Final impression here.
 ADDENDUM:  IMPRESSION: Added impression here.
"""
    for export in (str, stripped, on_one_line):
        found = find_sections(export(text))
        assert found.findings == "Final findings here."
        assert found.impression == "Final impression here."


def test_wet_read_inside_the_final_report_does_not_hide_its_end():
    text = f"""FINAL REPORT
INDICATION: Fall.

WET READ: ___ 10:40 AM
No break seen.
{"_" * 78}

FINDINGS: Ribs are whole.
IMPRESSION: No break.
"""
    found = find_sections(text)
    assert (found.findings, found.impression) == ("Ribs are whole.", "No break.")
    assert found.indication == "Fall."
    assert split_readings(text)["wet"].strip() == "No break seen."


def test_wet_read_is_used_only_where_there_is_nothing_else():
    assert find_sections("WET READ: ___ 9:01 AM\n IMPRESSION: Wet.").impression == "Wet."
    assert find_sections("ADDENDUM: IMPRESSION: Added.").impression == "Added."
    both = "ADDENDUM: IMPRESSION: Added.\nWET READ: IMPRESSION: Wet."
    assert find_sections(both).impression == "Wet."


def test_last_section_of_a_name_with_text_wins():
    text = "FINDINGS: First look.\nFINDINGS: Second look.\nFINDINGS:\nIMPRESSION: Fine."
    assert find_sections(text).findings == "Second look."


def test_unlabelled_body_is_found_and_taken_from_the_header_section():
    text = """INDICATION: Cough.

COMPARISON: None.

PA and lateral views of the chest were obtained.

The left base is hazy, and a tube ends
above the carina.

Comparison is made with the study of ___ at 20:50.

IMPRESSION: Hazy left base.
"""
    found = find_sections(text)
    assert words(found.findings) == "The left base is hazy, and a tube ends above the carina."
    assert found.comparison == "None."
    assert found.impression == "Hazy left base."


def test_boilerplate_alone_is_no_findings():
    text = "HISTORY: Fall.\n\nA chest film, ___ at 6:05 a.m. is submitted.\n\nIMPRESSION: Fine."
    assert find_sections(text).findings == ""


def test_heading_of_views_names_the_body_only_without_a_findings_heading():
    with_views = "HISTORY: Fall.\nPA AND LATERAL CHEST: A rib is bent.\nIMPRESSION: Bent rib."
    assert find_sections(with_views).findings == "A rib is bent."
    both = "FINDINGS: See parts.\nCHEST: A rib is bent.\nIMPRESSION: Bent rib."
    assert find_sections(both).findings == "See parts.\nCHEST: A rib is bent."


@pytest.mark.parametrize(
    "paragraph",
    [
        "PA and lateral views of the chest were obtained.",
        "Comparison to prior study of ___ at 20:50.",
        "No previous images.",
        "CHEST PORTABLE PLAIN FILM ___ AT 10:28",
        "AP CHEST, 5:39 A.M., ___",
        "Compressing:  Chest radiographs ___ through ___.",
        "Findings were discussed with Dr. ___ by telephone at 3:15 p.m.",
        "In comparison with the study of ___. Single portable view of the chest was provided.",
    ],
)
def test_boilerplate(paragraph):
    assert is_boilerplate(paragraph)


@pytest.mark.parametrize(
    "paragraph",
    [
        "As compared to the previous radiograph, the haze has grown.",
        "No pneumothorax.",
        "Pneumothorax: none. Effusion: none.",
        "Portable view of the chest. The heart is large.",
    ],
)
def test_not_boilerplate(paragraph):
    assert not is_boilerplate(paragraph)


@given(st.text(alphabet=st.sampled_from("FINDGS IMPRESON:\n_.aWETREDLACH-"), max_size=300))
def test_sections_never_invent_text(text):
    found = find_sections(text)
    for section in (found.findings, found.impression, found.indication, found.comparison):
        for line in section.splitlines():
            assert line.strip() in text


@pytest.mark.parametrize(
    "text",
    [
        "EXAM" * 250_000,
        "EXAM" + " " * 1_000_000,
        "FINDINGS: a\n" * 80_000,
        "WET READ" + "_ " * 500_000,
        "_" * 1_000_000,
        "\n " * 500_000,
        ("A" * 80 + "\n") * 12_000,
        "study-" * 160_000,
        "discussed-" * 100_000,
        "a b c\n\n" * 140_000,
    ],
    ids=range(10),
)
def test_a_megabyte_takes_linear_time(text):
    started = time.process_time()
    find_sections(text)
    assert time.process_time() - started < 5
