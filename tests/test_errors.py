"""Errors against the reference, by the kinds of ReXVal. All sentences are invented."""

from collections import Counter

import pytest

from radquant.scoring import errors as module
from radquant.scoring import lexicon
from radquant.scoring.comparisons import comparisons
from radquant.scoring.errors import KINDS, errors
from radquant.scoring.finding_terms import CANONICAL
from radquant.scoring.metrics import errors as metric
from radquant.scoring.metrics.kind import Pair

NAMES = ("false", "missed", "place", "severity", "+comparison", "-comparison")
SHORT = dict(zip(NAMES, KINDS, strict=True))
NOTHING = {"text": "", "entities": {}}
# Reference, output, kinds of error with their number, sum of the weights; labelled by hand.
PAIRS = [
    # Findings.
    ("No acute findings", "Pneumonia", "false", 1),
    ("Pneumonia", "No acute findings", "missed", 1),
    ("Pneumonia.", "Pneumonia.", "", 0),
    ("Normal chest.", "No acute disease.", "", 0),
    ("The heart is normal in size.", "Cardiomegaly.", "false", 1),
    ("Cardiomegaly.", "The heart is enlarged.", "", 0),
    ("No pneumothorax.", "Small right pneumothorax.", "false", 1),
    ("Small right pneumothorax.", "No pneumothorax.", "missed", 1),
    ("Pneumonia.", "Atelectasis.", "false missed", 2),
    ("No effusion or pneumothorax.", "Small effusion and pneumothorax.", "false false", 2),
    ("Left pleural effusion.", "Left pleural effusion and atelectasis.", "false", 1),
    ("Mild edema. Small nodule.", "", "missed missed", 2),
    ("", "Pneumonia.", "false", 1),
    ("No acute disease.", "", "missed", 1),
    ("No acute disease.", "13. to the to 1 to 1.", "missed", 1),
    ("No acute disease.", "heart lung lung", "missed", 1),
    # A word for it that is less precise.
    ("Right lower lobe pneumonia", "Right lower lobe opacity", "missed", 1),
    ("Right lower lobe opacity", "Right lower lobe pneumonia", "false", 1),
    ("Pulmonary edema.", "Vascular congestion.", "missed", 1),
    ("2 cm mass in the left upper lobe.", "2 cm nodule in the left upper lobe.", "severity", 1),
    # What is said in two words is one finding.
    (
        "Left opacity concerning for pneumonia.",
        "Right opacity concerning for pneumonia.",
        "place",
        1,
    ),
    ("Left lower lobe opacity concerning for pneumonia.", "No acute disease.", "missed", 1),
    ("Compression fracture of T8.", "No acute disease.", "missed", 1),
    # Hedges reach the reader, and weigh half by themselves.
    ("Possible pneumonia.", "Pneumonia.", "", 0),
    ("Pneumonia.", "Possible pneumonia.", "", 0),
    ("No acute disease.", "Possible pneumonia.", "false", 0.5),
    ("Possible pneumonia.", "No pneumonia.", "missed", 0.5),
    # What is old, or a device, weighs half.
    ("Pacemaker. No acute disease.", "No acute disease.", "missed", 0.5),
    ("No acute disease.", "Degenerative changes of the spine. No acute disease.", "false", 0.5),
    ("Calcified granuloma.", "No acute disease.", "missed", 0.5),
    # Places.
    ("Large left pleural effusion", "Moderate right pleural effusion", "place severity", 2),
    ("Small right pneumothorax.", "Small left pneumothorax.", "place", 1),
    ("Bilateral effusions.", "Left effusion.", "place", 1),
    ("Left effusion.", "Bilateral effusions.", "place", 1),
    ("Bibasilar atelectasis.", "Right basilar atelectasis.", "place", 1),
    ("Fracture of the left sixth rib.", "Fracture of the right sixth rib.", "place", 1),
    ("Left effusion.", "Effusion.", "", 0),
    ("Right central line.", "Left central line.", "place", 0.5),
    ("Endotracheal tube 3 cm above the carina.", "Endotracheal tube 5 cm above it.", "place", 0.5),
    # Severity.
    ("Small right pneumothorax.", "Large right pneumothorax.", "severity", 1),
    ("Mild cardiomegaly.", "Moderate cardiomegaly.", "severity", 1),
    ("Trace effusion.", "Small effusion.", "", 0),
    (
        "1.2 cm nodule in the right upper lobe",
        "2.1 cm nodule in the right upper lobe",
        "severity",
        1,
    ),
    ("1.2 cm nodule in the right upper lobe", "12 mm nodule in the right upper lobe", "", 0),
    ("Mild edema, small effusion.", "Severe edema, large effusion.", "severity severity", 2),
    # Comparisons.
    ("Edema", "Worsening edema", "+comparison", 1),
    ("Worsening edema", "Edema", "-comparison", 1),
    ("Edema", "Unchanged edema", "+comparison", 0.5),
    ("Stable cardiomegaly", "Cardiomegaly", "-comparison", 0.5),
    ("Worsening edema", "Improving edema", "+comparison -comparison", 2),
    ("New right effusion.", "Right effusion.", "-comparison", 1),
    ("Right effusion.", "New right effusion.", "+comparison", 1),
    ("No acute disease.", "No interval change.", "+comparison", 0.5),
    ("No interval change.", "Unchanged.", "", 0),
    ("Interval resolution of the right effusion.", "No effusion.", "-comparison", 1),
    ("Left effusion has increased.", "Left effusion is larger compared to the prior.", "", 0),
    ("Edema and effusion have worsened.", "Worsened edema and effusion.", "", 0),
    (
        "Worsening edema, stable effusion.",
        "Stable edema, worsening effusion.",
        "+comparison +comparison -comparison -comparison",
        3,
    ),
    (
        "Increased size of left effusion.",
        "Left effusion has decreased.",
        "+comparison -comparison",
        2,
    ),
    ("No new effusion.", "No effusion.", "", 0),
    ("Compare with prior films if available.", "No acute disease.", "", 0),
    ("The left upper lobe nodule has grown.", "Left upper lobe nodule.", "-comparison", 1),
    ("The effusion is slightly smaller.", "The effusion is larger.", "+comparison -comparison", 2),
    ("The effusion is larger on the right.", "Effusion, larger on the right.", "", 0),
    ("Nodule, compared to the prior study.", "Nodule.", "-comparison", 0.5),
    ("Persistent effusion, but improved.", "Effusion, improved.", "", 0),
    ("As compared to the prior study, no change.", "No acute disease.", "-comparison", 0.5),
    ("Pneumothorax, enlarging.", "Pneumothorax.", "-comparison", 1),
    # A comparison of what is false or missed is no error of its own.
    ("New effusion.", "No effusion.", "missed", 1),
    ("No edema.", "Worsening edema.", "false", 1),
]


def annotate(text):
    return lexicon.annotate(text) if text else NOTHING


@pytest.mark.parametrize(("reference", "output", "kinds", "weight"), PAIRS)
def test_errors_of_a_pair(reference, output, kinds, weight):
    found = errors(annotate(reference), annotate(output), reference, output)
    assert Counter(error.kind for error in found) == Counter(SHORT[kind] for kind in kinds.split())
    assert sum(error.weight for error in found) == weight
    assert [KINDS.index(e.kind) for e in found] == sorted(KINDS.index(e.kind) for e in found)


def test_a_text_has_no_errors_against_itself_and_swapped_texts_swap_kinds():
    """False and missed ones change places, for findings and comparisons; the others stay."""
    swap = {"false finding": "missed finding", "missed finding": "false finding"}
    swap |= {"false comparison": "missed comparison", "missed comparison": "false comparison"}
    for reference, output, *_ in PAIRS:
        one, other = annotate(reference), annotate(output)
        assert errors(one, one, reference, reference) == []
        if not (reference and output) or "No acute disease." in (reference, output):
            continue  # what says nothing is an output's fault alone
        there = errors(one, other, reference, output)
        back = errors(other, one, output, reference)
        kinds = Counter(swap.get(error.kind, error.kind) for error in back)
        assert kinds == Counter(error.kind for error in there), reference


def test_the_metric_counts_them():
    reference, output = "Pacemaker. Stable left effusion.", "Right effusion. Pneumonia."
    notes = annotate(reference), annotate(output), NOTHING
    values = metric.measure(Pair(reference, output, "", *notes))
    found = dict(zip((column.name for column in metric.ABOUT.columns), values, strict=True))
    assert found == {
        "errors_weighted": 3.0,
        "errors_significant": 2,
        "errors_false_finding": 1,
        "errors_missed_finding": 1,
        "errors_wrong_place": 1,
        "errors_wrong_severity": 0,
        "errors_false_comparison": 0,
        "errors_missed_comparison": 1,
    }


def test_lists_name_findings_that_there_are():
    named = {*module.MINOR_FINDINGS, *module.SAID_BY, *module.BY_SIZE}
    named |= {name for names in module.SAID_BY.values() for name in names}
    assert named <= {*CANONICAL, "aortic balloon pump"}  # where devices are read by name


def test_a_comparison_may_be_of_each_finding_of_its_sentence():
    text = "Edema and effusion have worsened. The heart is large."
    sure, maybe = comparisons(annotate(text), text)
    assert sure == {("pleural effusion", "worse")}
    assert maybe == sure | {("pulmonary edema", "worse")}
    assert comparisons(NOTHING, "") == (set(), set())
