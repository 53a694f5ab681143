"""CheXpert's labels and their F1, against the paper's rules and counts by hand."""

import numpy as np
import pytest

from radquant.scoring import lexicon
from radquant.scoring.chexpert import FIVE, LABEL_OF, LABELS, OTHER_DISEASE, labels
from radquant.scoring.errors import DEVICES
from radquant.scoring.finding_terms import CANONICAL
from radquant.scoring.metrics import chexpert
from radquant.scoring.metrics.kind import Pair

NOTHING = {"text": "", "entities": {}}
P, U, A = "present", "uncertain", "absent"
# As the labeler's program decides, sentence by sentence.
REPORTS = {
    "Moderate cardiomegaly. No effusion.": {"Cardiomegaly": P, "Pleural Effusion": A},
    "Possible pneumonia. No pneumothorax.": {"Pneumonia": U, "Pneumothorax": A},
    "Small effusion. No left effusion.": {"Pleural Effusion": P},
    "Chest tube in place. No pneumothorax.": {
        "No Finding": P,
        "Pneumothorax": A,
        "Support Devices": P,
    },
    "Clear lungs.": {"No Finding": P},
    "No acute cardiopulmonary abnormality.": {"No Finding": P},
    # Words of the labeler's list that are no label, and yet a finding.
    "Scoliosis. Clear lungs.": {},
    "Hiatal hernia.": {},
    "Congestive heart failure.": {"Cardiomegaly": U, "Edema": P},
    "Vascular congestion without pulmonary edema.": {"Edema": P},
    "Left rib fracture. 5 mm nodule.": {"Lung Lesion": P, "Fracture": P},
    "Reticular interstitial opacities.": {"Lung Opacity": P},
    "Widened mediastinum. Pleural thickening.": {
        "Enlarged Cardiomediastinum": P,
        "Pleural Other": P,
    },
    "Left lower lobe collapse and consolidation.": {"Consolidation": P, "Atelectasis": P},
    # What says nothing does not say that nothing is found.
    "13. to the to 1 to 1.": {},
    "": {},
}


@pytest.mark.parametrize("text", REPORTS)
def test_labels_of_a_report(text):
    assert labels(lexicon.annotate(text) if text else NOTHING) == REPORTS[text]


def test_every_finding_has_a_place():
    known = {*LABEL_OF, *OTHER_DISEASE}
    assert set(CANONICAL) - known == {"low lung volumes", "postoperative change"}
    assert known <= {*CANONICAL, *DEVICES}
    assert set(LABEL_OF.values()) | {"No Finding"} == set(LABELS)
    assert len(LABELS) == 14
    assert set(FIVE) <= set(LABELS)


def by_hand(reference, output, positive):
    """Micro and macro F1 of label decisions [reports, labels], one decision after the other."""
    pairs = [
        [
            (r[label] in positive, o[label] in positive)
            for r, o in zip(reference, output, strict=True)
        ]
        for label in range(len(reference[0]))
    ]
    hits = [sum(r and o for r, o in label) for label in pairs]
    wrong = [sum(r != o for r, o in label) for label in pairs]
    occurs = [any(r for r, _ in label) for label in pairs]
    f1 = [2 * h / (2 * h + w) for h, w, seen in zip(hits, wrong, occurs, strict=True) if seen]
    return 2 * sum(hits) / (2 * sum(hits) + sum(wrong)), sum(f1) / len(f1), len(f1)


@pytest.mark.parametrize("convention", chexpert.POSITIVE)
def test_f1_is_that_of_decisions_counted_by_hand(convention):
    rng = np.random.default_rng(3)
    reference, output = rng.choice(4, (2, 30, 5), p=(0.6, 0.2, 0.1, 0.1))
    reference[:, 4] = 0  # a label that no reference has, and outputs invent
    positive = chexpert.POSITIVE[convention]
    sums = chexpert.count(positive, reference * 10 + output).sum(axis=0)
    found = chexpert.micro(sums), chexpert.macro(sums), chexpert.occurring(sums)
    assert found == pytest.approx(by_hand(reference, output, positive), abs=1e-12)
    assert found[2] == 4


def test_two_reports_worked_out():
    """Edema is hit; pneumonia is uncertain in the reference and stated; an effusion is invented."""
    references = ("Pulmonary edema. Possible pneumonia.", "No effusion.")
    outputs = ("Pulmonary edema. Pneumonia.", "Small effusion.")
    codes = []
    for reference, output in zip(references, outputs, strict=True):
        notes = lexicon.annotate(reference), lexicon.annotate(output), NOTHING
        codes.append(chexpert.measure(Pair(reference, output, "", *notes)))
    values = {}
    for pooled in chexpert.ABOUT.pooled:
        names = [column.name for column in chexpert.ABOUT.columns]
        chosen = np.array(codes)[:, [names.index(name) for name in pooled.columns]]
        values[pooled.name] = pooled.value(pooled.count(chosen).sum(axis=0))
    # No Finding: the second reference has it, its output has not.
    assert values["chexpert14_micro_uncertain_positive"] == pytest.approx(2 * 2 / (2 * 2 + 2))
    assert values["chexpert14_micro_uncertain_negative"] == pytest.approx(2 * 1 / (2 * 1 + 3))
    assert values["chexpert14_macro_uncertain_positive"] == pytest.approx((1 + 1 + 0) / 3)
    assert values["chexpert5_micro_uncertain_positive"] == pytest.approx(2 / 3)
    assert values["chexpert5_macro_uncertain_negative"] == 1


def test_without_any_positive_label_there_is_no_f1():
    sums = np.zeros((2, 6))
    assert np.isnan(chexpert.micro(sums)).all()
    assert np.isnan(chexpert.macro(sums)).all()
