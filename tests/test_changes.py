import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radquant.scoring import lexicon
from radquant.scoring.changes import (
    ATTRIBUTES,
    FLAGS,
    KINDS,
    PRIOR,
    changes,
    flags,
    harm,
    unsupported,
)

OLD_LABELS = {
    "Observation::definitely present": "OBS-DP",
    "Observation::definitely absent": "OBS-DA",
    "Observation::uncertain": "OBS-U",
    "Anatomy::definitely present": "ANAT-DP",
}


def annotate(text, old=False):
    record = lexicon.annotate(text)
    if old:
        for entity in record["entities"].values():
            entity["label"] = OLD_LABELS[entity["label"]]
    return record


def found(before, after, inputs=None, old=False):
    rows = changes(annotate(before, old), annotate(after, old), before, after, inputs)
    assert all(list(row) == ["kind", "finding", "before", "after"] for row in rows)
    return [tuple(row.values()) for row in rows]


EFFUSION = "pleural effusion"


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("Effusion.", "", [("lost", EFFUSION, "Effusion.", "")]),
        ("", "Effusion.", [("invented", EFFUSION, "", "Effusion.")]),
        ("Small effusion seen.", "Clear. No effusion.",
         [("negated", EFFUSION, "Small effusion seen.", "No effusion.")]),
        ("No effusion.", "An effusion.", [("invented", EFFUSION, "No effusion.", "An effusion.")]),
        ("Edema.", "Possible edema.", [("hedged", "pulmonary edema", "Edema.", "Possible edema.")]),
        ("Possible edema.", "Edema.",
         [("asserted", "pulmonary edema", "Possible edema.", "Edema.")]),
        # Neither side is sure that it is there: nothing definite changed.
        ("Possible edema.", "No edema.", []),
        ("No edema.", "", []),
        ("", "Possible edema.", []),
        ("Left effusion.", "Right effusion.", [("side", EFFUSION, "left", "right")]),
        ("Right effusion.", "Left effusion.", [("side", EFFUSION, "right", "left")]),
        ("Left effusion.", "Bilateral effusions.", [("side", EFFUSION, "left", "both")]),
        ("Left and right effusions.", "Bilateral effusions.", []),
        # What is not said has not changed.
        ("Left effusion.", "Effusion.", []),
        ("A 5.5 cm mass.", "A 5.0 cm mass.", [("measurement", "mass", "5.5 cm", "5.0 cm")]),
        ("A 5.5 cm mass.", "A 55 mm mass.", []),
        ("A mass of 5 x 7 mm.", "A mass of 5 x 9 mm.", [("measurement", "mass", "7 mm", "9 mm")]),
        ("A 5 mm mass.", "A mass.", []),
        ("Mild edema.", "Severe edema.", [("severity", "pulmonary edema", "mild", "severe")]),
        ("Large effusion.", "Tiny effusion.", [("severity", EFFUSION, "severe", "mild")]),
        ("Mild to moderate edema.", "Moderate edema.", []),
        ("Mild edema.", "Minimal edema.", []),
        ("RUL opacity.", "RLL opacity.", [("place", "opacity", "upper", "lower")]),
        ("Lingular nodule.", "Left lower lobe nodule.", [("place", "nodule", "lingula", "lower")]),
        ("Fracture of the left fifth rib.", "Fracture of the left 8th rib.",
         [("place", "fracture", "rib 5", "rib 8")]),
        ("Left basilar opacity.", "Left lower lobe opacity.", []),
        ("Opacity in the upper and lower lobes.", "Lower and upper lobe opacities.", []),
        ("Upper lobe opacity.", "Upper lobe opacity. Lower lobes are clear.", []),
        ("Effusion has increased.", "Effusion has decreased.",
         [("course", EFFUSION, "worse", "better")]),
        ("Enlarging nodule.", "Stable nodule.", [("course", "nodule", "worse", "stable")]),
        ("No change in the effusion.", "The effusion is unchanged.", []),
        ("Effusion and edema have worsened.", "Edema and effusion are stable.",
         [("course", EFFUSION, "worse", "stable"),
          ("course", "pulmonary edema", "worse", "stable")]),
        ("Large right effusion and small left effusion.",
         "Small right effusion and large left effusion.",
         [("severity", EFFUSION, "mild", "severe")]),
        ("Right effusion is worse. Left effusion is stable.",
         "Right effusion is stable while the left effusion is worse.",
         [("course", EFFUSION, "stable", "worse")]),
        ("Right effusion is worse. Left effusion is stable.",
         "Left effusion is stable while the right effusion is worse.", []),
        ("The effusion is larger on the right than on the left.", "Bilateral effusions.", []),
        ("ETT in good position.", "ETT in the right main bronchus.",
         [("device", "endotracheal tube", "not misplaced", "misplaced")]),
        ("NG tube coiled in the esophagus.", "NG tube.",
         [("device", "enteric tube", "misplaced", "not misplaced")]),
        ("NG tube passes the esophagus. Tip in the stomach.", "NG tube in the stomach.", []),
        ("ETT. Its tip is at the carina; retraction is advised.", "ETT above the carina.",
         [("device", "endotracheal tube", "misplaced", "not misplaced")]),
        ("Left pneumothorax.", "Left tension pneumothorax.",
         [("severity", "pneumothorax", "no degree", "tension")]),
        ("Small pneumothorax without tension.", "Small pneumothorax.", []),
        # The same finding in other words; a negation reaches to the end of its clause.
        ("The heart is enlarged.", "Cardiomegaly.", []),
        ("No effusion or edema.", "No edema. No effusion.", []),
        ("No effusion, but edema.", "Edema without effusion.", []),
        ("No acute disease. Lungs are clear.", "Normal chest.", []),
        ("Pleural effusion.", "Pericardial effusion.",
         [("lost", EFFUSION, "Pleural effusion.", ""),
          ("invented", "pericardial effusion", "", "Pericardial effusion.")]),
    ],
)  # fmt: skip
def test_each_kind(before, after, expected, old):
    assert found(before, after, old=old) == expected


def test_the_most_harmful_come_first():
    before = (
        "Mild edema. Left mass. Possible pneumonia. Scoliosis. Effusion. A 3 mm nodule. Hernia. "
        "NG tube in the stomach. Upper lobe atelectasis. The granuloma is larger."
    )
    after = (
        "Severe edema. Right mass. Pneumonia. No scoliosis. Possible hernia. A 9 mm nodule. "
        "Fracture. Unchanged. NG tube in the esophagus. Lower lobe atelectasis. "
        "The granuloma is smaller."
    )
    kinds = [kind for kind, *_ in found(before, after, {"findings": "Clear."})]
    assert kinds == list(KINDS)


def test_harm_weighs_by_the_order_of_kinds_and_flags_most():
    def of(*kinds):
        return [{"kind": kind, "finding": "", "before": "", "after": ""} for kind in kinds]

    weights = [harm(of(kind), []) for kind in KINDS]
    assert weights == sorted(weights, reverse=True)
    assert weights[-1] == 1
    assert harm(of("lost", "prior"), ["empty"]) == weights[0] + 1 + len(KINDS)
    assert harm([], []) == 0
    # Of the faults, that of a text that was cut off is seen by everybody.
    assert 0 < harm([], ["cut off"]) < harm(of("negated"), [])
    assert harm([], ["cut off"]) < min(harm([], [flag]) for flag in FLAGS if flag != "cut off")


STATEMENTS = [
    *("Effusion.", "No effusion.", "Possible effusion.", "Left effusion.", "Right effusion."),
    *("Mild edema.", "Severe edema.", "No edema.", "A 5 mm nodule.", "A 7 mm nodule on the right."),
    *("Upper lobe mass.", "Mass in the lower lobe.", "The mass has grown.", "Stable edema."),
    *("ETT at the carina.", "ETT.", "Pneumothorax with tension.", "New effusion and edema."),
    *("Clear lungs.", "Unchanged.", "An odd bezoaroma.", "Enlarged heart.", "XXXX, 2.5 cm."),
]
TEXTS = st.lists(st.sampled_from(STATEMENTS), max_size=5).map(" ".join)


@pytest.mark.parametrize("half", ["tuned", "apart", "later", "last"])
def test_labelled_pairs_are_read_as_docs_say(half):
    """`docs/benchmarks.md` has the figures; these are a floor below them."""
    table = Path(__file__).parents[1] / "benchmarks" / "changes_pairs.tsv"
    rows = [line.split("\t") for line in table.read_text(encoding="utf-8").splitlines()[1:]]
    read = [
        {kind for kind, *_ in found(before, after)} == set(kinds.split(",")) - {"-"}
        for name, kinds, before, after in rows
        if name == half
    ]
    assert len(read) >= 55
    assert sum(read) >= 0.94 * len(read)


@given(TEXTS)
def test_nothing_changes_against_itself(text):
    assert found(text, text, {"findings": "Clear."}) == []


@given(TEXTS, TEXTS)
def test_swapping_sides_swaps_what_changed(one, other):
    there, back = found(one, other), found(other, one)

    def findings(rows, *kinds):
        return {finding for kind, finding, *_ in rows if kind in kinds}

    assert findings(there, "lost", "negated") == findings(back, "invented")
    assert findings(there, "hedged") == findings(back, "asserted")
    for kind in ATTRIBUTES:
        one_way = {row[1:] for row in there if row[0] == kind}
        assert one_way == {(f, b, a) for k, f, a, b in back if k == kind}


@given(TEXTS, TEXTS)
def test_quotes_stand_in_their_text(one, other):
    for kind, _, before, after in found(one, other):
        if kind in ("lost", "negated", "invented", "hedged", "asserted"):
            assert before in one
            assert after in other


@pytest.mark.parametrize(
    "claim",
    [
        "Unchanged effusion.",
        "Stable chest.",
        "No interval change.",
        "No significant change.",
        "Again seen is a mass.",
        "Effusion has increased.",
        "Nodule decreased in size.",
        "Worsening edema.",
        "Improved aeration.",
        "A new opacity.",
        "Persistent edema.",
        "Heart remains large.",
        "Previously seen nodule.",
        "Larger compared to the last study.",
        "Seen on the prior chest radiograph.",
        "Resolved pneumonia.",
    ],
)
def test_a_comparison_needs_an_input_that_knows_of_a_prior(claim):
    text = f"Clear lungs. {claim}"
    assert unsupported(text, {"findings": "Small effusion."}) == [claim]
    for known in ("Stable effusion.", "Compared with the previous film.", "Has worsened."):
        assert unsupported(text, {"findings": known}) == []
    assert unsupported(text, {"findings": "", "comparison": "Radiograph of May."}) == []
    assert unsupported(text, {"findings": "", "comparison": "None."}) == [claim]


@pytest.mark.parametrize(
    "text",
    [
        "Increased interstitial markings.",
        "Decreased lung volumes.",
        "Prior granulomatous disease.",
        "Previous sternotomy.",
        "Sequela of prior surgery.",
        "Degenerative changes. No acute change.",
        "The remaining lung is clear.",
        "No prior studies.",
        "Recommend comparison with prior films.",
        "Follow-up until resolution is recommended.",
        "Short interval follow-up.",
        "Arthritis, left worse than right.",
    ],
)
def test_what_only_sounds_like_a_comparison(text):
    assert unsupported(text, {"findings": "Clear."}) == []


def test_a_claim_that_the_original_makes_too_is_no_change():
    inputs = {"findings": "Edema."}
    assert found("Edema.", "Edema. It is stable.", inputs) == [
        ("prior", PRIOR, "", "It is stable.")
    ]
    assert found("Stable edema.", "Edema is stable.", inputs) == []
    assert found("Edema.", "Stable edema.") == []  # no input, no judgement


PROMPT = [
    "Summarize what a doctor must know of these findings in a few words.\n\nFindings: ",
    "\nAnswer",
]


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("", ["empty"]),
        (" \n ", ["empty"]),
        ("...", ["empty"]),
        ("No effusion. No pneumothorax. No edema.", []),
        ("No acute disease. No acute disease.", []),
        ("No acute disease. " * 3, ["repetition"]),
        ("Clear. NO ACUTE DISEASE; no acute disease. Edema. No acute, disease", ["repetition"]),
        ("No. No. No.", []),
        ("mass and mass and mass and mass and", ["repetition"]),
        ("the the the the", ["repetition"]),
        ("the the the", []),
        ("no sign of a of b of c of d", []),
        ("aaaaaaaaaaaa", ["repetition"]),
        ("Seen by XXXX XXXX XXXX XXXX XXXX today.", []),
        ("a b a b c a b a c b a b c b a a c b b a c b", ["repetition"]),
        (f"Edema. {PROMPT[0]}", ["prompt echo"]),
        ("What a doctor must know of these findings in: edema", ["prompt echo"]),
        ("A doctor must know of these findings.", []),
        ("Findings: edema. Answer", []),
    ],
)  # fmt: skip
def test_flags(output, expected):
    assert flags(output, PROMPT) == expected


def test_flags_come_in_order_and_only_length_is_cut_off():
    text = "Summarize what a doctor must know of these findings in a few. " * 3
    assert flags(text, PROMPT, "length") == list(FLAGS[1:])
    assert flags("Edema.", PROMPT, "stop") == flags("Edema.", PROMPT, None) == []


@given(st.lists(st.sampled_from(["edema", "mass", "no", "."]), min_size=1, max_size=12), st.text())
def test_any_text_repeated_often_is_repetition(words, noise):
    loop = " ".join(words)
    if re.search(r"\w", loop):
        assert "repetition" in flags(f"{noise} {' '.join([loop] * 12)}", [])


@given(st.text(max_size=60))
def test_any_text_has_flags_and_claims(text):
    assert set(flags(text, PROMPT)) <= set(FLAGS)
    assert all(claim in text for claim in unsupported(text, {}))


def test_an_echo_needs_more_words_than_an_answer_that_was_asked_for():
    asked = ["If nothing is acute, say that there is no acute abnormality. Findings:"]
    assert flags("This shows that there is no acute abnormality.", asked) == []
