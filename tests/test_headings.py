"""Headings as reports of many houses and exporting programs write them."""

import time
import unicodedata

import pytest

from radquant.corpus.sections import find_sections

FOUND, JUDGED = "The lungs are clear.", "No acute process."
GERMAN = {
    "findings": ["Befund"],
    "impression": ["Beurteilung", "Zusammenfassende Beurteilung"],
    "indication": ["Klinische Angaben"],
    "other": ["Empfehlung"],
}
ROMANCE = {
    "findings": ["Hallazgos", "Résultats"],
    "impression": ["Impresión diagnóstica", "Synthèse"],
}


def found(text, headings=None):
    """(findings, impression) on one line each."""
    sections = find_sections(text, headings)
    return " ".join(sections.findings.split()), " ".join(sections.impression.split())


@pytest.mark.parametrize(
    "clock",
    [
        "AP CHEST, 5:39 A.M., ___",
        "AP CHEST 2:35 P.M., ___",
        "PORTABLE CHEST FILM ___ AT 17:30",
        "PORTABLE CHEST ON ___ AT ___:41 A.M.",
        "AP CHEST, 1:___ ___M., ___",
        "AP CHEST, XX:XX",
        "CHEST 05:39 HOURS",
        "CHEST, 5: 39 A.M.",
    ],
)
def test_a_clock_time_is_no_heading(clock):
    assert found(f"{clock}\n\nHISTORY: Fever.\n\nIMPRESSION: {JUDGED}") == ("", JUDGED)
    assert found(f"HISTORY: Fever.\n\n{clock}\n\n{FOUND}\n\nIMPRESSION: {JUDGED}") == (
        FOUND,
        JUDGED,
    )


def test_a_heading_of_views_may_hold_a_clock_time():
    assert found(f"PORTABLE CHEST, ___ AT 20:48: {FOUND}\nIMPRESSION: {JUDGED}") == (FOUND, JUDGED)


@pytest.mark.parametrize(
    "prose",
    [
        "The tube is 1:2 of it.",
        "CTR: 1:2.",
        "T12: fractured.",
        "C: none.",
        "HTTP://EXAMPLE.ORG/A is said.",
        "At 5:39 A.M., stable.",
        "AT 17:30: stable.",
        "As stated in the FINDINGS: nothing.",
        "THERE ARE THE FOLLOWING FINDINGS: a, b.",
        "LUNGS: Clear.",
        "LUNGS AND PLEURA: Clear.",
        "LINES/TUBES: None.",
        "BONES, SOFT TISSUES: Whole.",
        "CHEST WALL: Whole.",
        "TUBES, CATHETERS, AND SUPPORT DEVICES: None.",
        "OTHER FINDINGS: None.",
        "Pleura: Clear.",
    ],
)
def test_prose_and_parts_stay_in_their_section(prose):
    assert found(f"FINDINGS:\n{FOUND}\n{prose}\nIMPRESSION: {JUDGED}") == (
        f"{FOUND} {prose}",
        JUDGED,
    )
    assert found(f"FINDINGS:\n{prose}\n{FOUND}\nIMPRESSION: {JUDGED}") == (
        f"{prose} {FOUND}",
        JUDGED,
    )
    assert found(f"FINDINGS: {FOUND} {prose}\nIMPRESSION: {JUDGED}") == (f"{FOUND} {prose}", JUDGED)
    assert found(f"FINDINGS: {FOUND}\nIMPRESSION:\n{JUDGED}\n{prose}") == (
        FOUND,
        f"{JUDGED} {prose}",
    )


def test_capitals_that_are_no_name_head_parts_among_parts():
    parts = "LUNGS: Clear. THORACIC INLET: Free. BONES: Whole."
    assert found("FINDINGS:\n" + parts.replace(". ", ".\n") + f"\nIMPRESSION: {JUDGED}") == (
        parts,
        JUDGED,
    )
    unknown = "THORACIC INLET: Free. GREAT SOMETHING: Free."
    assert found("FINDINGS:\n" + unknown.replace(". ", ".\n") + "\nIMPRESSION: X.") == (
        unknown,
        "X.",
    )


@pytest.mark.parametrize(
    "heading",
    [
        "RECOMMENDATION(S)",
        "PROVISIONAL FINDINGS IMPRESSION (PFI)",
        "PFI",
        "COMMENT",
        "NOTIFICATION",
        "WET READ",
        "ADDENDUM",
        "ATTESTATION",
        "ELECTRONICALLY SIGNED BY",
        "LUNG-RADS CATEGORY",
        "ICD-10 CODE",
        "ICD-10 CODES",
        "Electronically signed by",
        "UNEXPECTED FINDINGS",
        "PREVIOUS IMPRESSION",
        "END OF IMPRESSION",
        "SOME HOUSE'S OWN",
    ],
)
def test_capitals_with_a_colon_end_a_section(heading):
    text = f"FINDINGS:\n\n {FOUND}\n \n IMPRESSION:\n\n {JUDGED}\n \n {heading}:  Left effusion.\n"
    assert found(text) == (FOUND, JUDGED)


@pytest.mark.parametrize(
    "heading",
    [
        *("IMPRESSOIN", "IMPRSSION", "MPRESSION", "IMPERSSION", "IMRPESSOIN", "lMPRESSION"),
        *("Impresion", "IMPRESSI0N", "IMPRESSION (preliminary)", "IMPRESSION, CHEST", "CONCLUSION"),
        *("lMPRESSlON", "IMPRESSION AT 7:05 P.M.", "IMP", "IMPRESSION WITH RECOMMENDATIONS"),
        *("1. IMPRESSION", "II. IMPRESSION", "(2) IMPRESSION", "• IMPRESSION", "[IMPRESSION]"),
        *(
            "**IMPRESSION**",
            "__Impression__",
            "*Impression*",
            "### Impression",
            "=== IMPRESSION ==",
        ),
        *(
            "<b>Impression</b>",
            "****IMPRESSION****",
            "<strong>IMPRESSION</strong>",
            "ＩＭＰＲＥＳＳＩＯＮ",
            "`IMPRESSION`",
        ),
        *(
            "\u200bIMPRESSION",
            "IMPRES\u00adSION",
            "\xa0IMPRESSION\u202f",
            "IMPRESSION\t",
            "OPINION",
        ),
    ],
)
def test_a_heading_of_the_impression_in_many_forms(heading):
    before = f"EXAMINATION: CHEST\n\nFINDINGS:\n\n{FOUND}\n\n"
    for colon in (":", " :", "：", ":-", "::"):
        for break_ in (" ", "\n", "\r\n\r\n ", "\f"):
            assert found(f"{before}{heading}{colon}{break_}{JUDGED}\n") == (FOUND, JUDGED)


@pytest.mark.parametrize(
    "form",
    [
        "FINDINGS - {f}\nIMPRESSION - {i}",
        "Findings -- {f}\nImpression -- {i}",
        "FINDINGS.\n{f}\nIMPRESSION.\n{i}",
        "FINDINGS\t{f}\nIMPRESSION\t{i}",
        "FINDINGS; {f}\nIMPRESSION; {i}",
        "FINDINGS\n--------\n{f}\n\nIMPRESSION\n==========\n{i}",
        "**Findings:** {f} **Impression:** {i}",
        "**findings**\n{f}\n**impression**\n{i}",
        "<p><b>Findings</b><br>{f}</p><p><b>Impression</b><br/>{i}",
        "<h3>Findings</h3>{f}<h3>Impression</h3>{i}",
        "findings: {f}\nimpression: {i}",
        "findings: {f} impression: {i}",
        "indication: cough and\nfever\nfindings: {f}\nimpression: {i}",
        "FINDINGS (CHEST): {f}\nIMPRESSION (preliminary): {i}",
        "REPORT: {f}\nCONCLUSION: {i}",
        "COMPARISON/FINDINGS: {f}\nIMPRESSION: {i}",
        "FINDINGS: {f}\nSUMMARY: {i}",
        "FINDINGS: {f}\nIMPRESSION: {i}\nSUMMARY: 2-ABNORMAL",
        "FINDINGS: {f}\nIMPRESSION: {i}\nAddendum: More was found.",
        "FINDINGS: {f}\nIMPRESSION: {i}\nRecommendation(s): CT.",
        "ACCESSION NUMBER: 12345\n\n{f}\n\nIMPRESSION: {i}",
    ],
)
def test_reports_of_many_houses(form):
    assert found(form.format(f=FOUND, i=JUDGED)) == (FOUND, JUDGED)


@pytest.mark.parametrize(
    ("text", "findings", "impression"),
    [
        (
            "FINDINGS: See these\nfindings: a spot.\nIMPRESSION: X.",
            "See these findings: a spot.",
            "X.",
        ),
        ("FINDINGS: Note the\nimpression: of a coin.", "Note the impression: of a coin.", ""),
        (
            "FINDINGS: LUNGS CLEAR.\nNO ACUTE BONY\nFINDINGS.\nCOMPARED TO PRIOR: SAME.\n"
            "IMPRESSION: NO ACUTE\nFINDINGS.",
            "LUNGS CLEAR. NO ACUTE BONY FINDINGS. COMPARED TO PRIOR: SAME.",
            "NO ACUTE FINDINGS.",
        ),
        ("FINDINGS: A.\nFINDINGS (CONTINUED): B.", "A. FINDINGS (CONTINUED): B.", ""),
    ],
)
def test_what_only_looks_like_a_heading(text, findings, impression):
    assert found(text) == (findings, impression)


@pytest.mark.parametrize(
    "heading",
    [
        *("FINDINGS/IMPRESSION", "FINDINGS / IMPRESSION", "FINDINGS/ IMPRESSION"),
        *("FINDINGS AND IMPRESSION", "Findings and Impression", "FINDINGS & IMPRESSION"),
        *("IMPRESSION/FINDINGS", "FINDINGS/IMPRESSOIN", "FINDINGS, IMPRESSION"),
        *("FINDINGS|IMPRESSION", "FINDINGS\\IMPRESSION"),
    ],
)
def test_a_heading_of_both(heading):
    assert found(f"INDICATION: x\n{heading}: {FOUND}") == (FOUND, FOUND)
    # Beside a heading of its own, a section is what stands there.
    assert found(f"FINDINGS: {FOUND}\n{heading}:\n{JUDGED}") == (FOUND, JUDGED)
    assert found(f"{heading}: {FOUND}\nIMPRESSION: {JUDGED}") == (FOUND, JUDGED)
    # The impression comes last: where the text is cut off, it is not there.
    assert found(f"{heading}: The lungs are") == ("The lungs are", "")


def test_a_heading_of_views_in_an_impression():
    views = "CHEST, TWO VIEWS:"
    assert found(f"FINDINGS: {FOUND}\nIMPRESSION:\n{views} {JUDGED}") == (
        FOUND,
        f"{views} {JUDGED}",
    )
    assert found(f"HISTORY: x\nIMPRESSION:\n{views} {JUDGED}") == ("", f"{views} {JUDGED}")
    assert found(f"FINDINGS: {FOUND}\nIMPRESSION: X.\n{views} {JUDGED}") == (
        FOUND,
        f"X. {views} {JUDGED}",
    )
    assert found(f"HISTORY: x\n\n{FOUND}\n\nIMPRESSION: X.\n{views} Y.") == (
        FOUND,
        f"X. {views} Y.",
    )
    # Without findings elsewhere, it names them behind an impression that is there.
    assert found(f"IMPRESSION: {JUDGED}\n\n{views}\n{FOUND}") == (FOUND, JUDGED)


def test_parts_of_several_examinations_are_the_findings():
    views = f"CHEST, TWO VIEWS: {FOUND}\nRIBS, LEFT, 2 VIEWS: Whole."
    text = f"HISTORY: Fall.\n{views}\nIMPRESSION: {JUDGED}"
    assert found(text) == (f"{FOUND} RIBS, LEFT, 2 VIEWS: Whole.", JUDGED)
    assert find_sections(text).indication == "Fall."


def test_a_wet_read_without_headings_is_no_findings():
    assert found(f"WET READ: ___ ___ 5:39 PM\n{FOUND}") == ("", "")


@pytest.mark.parametrize(
    "form",
    [
        "Klinische Angaben: Husten\nBefund: {f}\nBeurteilung: {i}\nEmpfehlung: CT.",
        "BEFUND: {f}\nZUSAMMENFASSENDE BEURTEILUNG: {i}",
        "Befund\n{f}\nBeurteilung\n{i}",
        "befund: {f}\nbeurteilung: {i}",
        "**Befund:** {f}\n**Beurteilung:** {i}",
        "Befund: {f} Beurteilung: {i}",
        "BEFUND: {f} BEURTEILUNG: {i}",
        "Befund - {f}\nBeurteilung - {i}",
        "FINDINGS: {f}\nBeurteilung: {i}",
    ],
)
def test_declared_headings(form):
    assert found(form.format(f=FOUND, i=JUDGED), GERMAN) == (FOUND, JUDGED)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize(
    "headings",
    [
        ("HALLAZGOS:", "IMPRESIÓN DIAGNÓSTICA:"),
        ("Hallazgos:", "Impresion diagnostica:"),
        ("Résultats\u202f:", "Synthèse\xa0:"),
        ("RESULTATS :", "SYNTHESE :"),
    ],
)
def test_declared_headings_with_accents(headings, form):
    text = unicodedata.normalize(form, f"{headings[0]} {FOUND}\n{headings[1]} {JUDGED}")
    assert found(text, ROMANCE) == (FOUND, JUDGED)


@pytest.mark.parametrize(
    "both", ["Befund und Beurteilung", "BEFUND/BEURTEILUNG", "Befund & Beurteilung"]
)
def test_declared_headings_together_are_both(both):
    declared = {"findings": ["Befund"], "impression": ["Beurteilung"]}
    sections = find_sections(f"{both}: {FOUND}", declared)
    assert (sections.findings, sections.impression) == (FOUND, FOUND)


def test_an_apostrophe_is_one_however_it_is_written():
    sections = find_sections(
        f"Description de l\u2019examen : {FOUND}", {"findings": ["Description de l'examen"]}
    )
    assert sections.findings == FOUND


def test_a_declared_heading_is_none_for_others():
    text = f"Befund: {FOUND}\nBeurteilung: {JUDGED}"
    assert found(text) == (f"Befund: {FOUND} Beurteilung: {JUDGED}", "")
    assert found(
        f"所見：{FOUND}\n診断：{JUDGED}", {"findings": ["所見"], "impression": ["診断"]}
    ) == (FOUND, JUDGED)


@pytest.mark.parametrize(
    "text",
    [
        "XYZW: a\n" * 8_000,
        "CHEST, TWO VIEWS: a b c\n" * 3_000,
        "findings: a\n" * 5_000,
        "**a** " * 11_000,
        "AA " * 22_000,
        "<b>" * 22_000,
    ],
    ids=range(6),
)
def test_many_headings_take_linear_time(text):
    started = time.process_time()
    find_sections(text)
    assert time.process_time() - started < 2
