"""CheXpert's 14 labels of a report, read from its annotation: not the CheXpert labeler's output.

Labels, their values and the order in which mentions outweigh each other are those of Irvin et al.
(2019), arXiv:1901.07031, and of their program, stanfordmlgroup/chexpert-labeler. Its
`phrases/mention` says which words are which label, and its `stages/aggregate.py` how a report's
mentions become one value. Here the mentions are the findings of `radquant.scoring.findings`.
"""

from typing import Any

from radquant.scoring.findings import LABELS as ANNOTATED
from radquant.scoring.findings import PRESENT, STATUSES, UNCERTAIN, statuses

Record = dict[str, Any]

NO_FINDING, DEVICES, CARDIOMEGALY = "No Finding", "Support Devices", "Cardiomegaly"
LABELS = (
    *(NO_FINDING, "Enlarged Cardiomediastinum", CARDIOMEGALY, "Lung Opacity", "Lung Lesion"),
    *("Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion"),
    *("Pleural Other", "Fracture", DEVICES),
)
# The competition tasks of the paper, which F1CheXbert takes as its five, too.
FIVE = ("Atelectasis", CARDIOMEGALY, "Consolidation", "Edema", "Pleural Effusion")

# The label of each finding, with the labeler's own words for it. Three findings hold words that the
# labeler splits. Fibrosis is Pleural Other there and Lung Opacity here, and with a scar of the lung
# it is the other way round. Hardware and valves are Support Devices there, and have no label here.
LABEL_OF = {
    "widened mediastinum": "Enlarged Cardiomediastinum",
    "cardiomegaly": CARDIOMEGALY,
    "opacity": "Lung Opacity",  # opaci, infiltrate, airspace disease, increased density
    "interstitial disease": "Lung Opacity",  # interstitial marking, reticulation
    "nodule": "Lung Lesion",
    "mass": "Lung Lesion",
    "malignancy": "Lung Lesion",  # carcinoma, neoplasm, tumor
    "pulmonary edema": "Edema",
    "heart failure": "Edema",  # with Cardiomegaly as uncertain: `stages/aggregate.py`
    "vascular congestion": "Edema",  # vascular congestion, vascular prominence
    "consolidation": "Consolidation",
    "pneumonia": "Pneumonia",  # pneumonia, infection
    "atelectasis": "Atelectasis",  # atelecta, collapse
    "pneumothorax": "Pneumothorax",
    "pleural effusion": "Pleural Effusion",
    "scarring or pleural thickening": "Pleural Other",
    "fracture": "Fracture",
    **dict.fromkeys(
        ("endotracheal tube", "tracheostomy", "enteric tube", "chest tube", "tube"), DEVICES
    ),
    **dict.fromkeys(("pacemaker", "central line", "aortic balloon pump"), DEVICES),
}
# Findings without a label that rule out No Finding. They are the words of
# `phrases/mention/no_finding.txt`, and what is disease by any reading. The labeler's list is closed
# as well.
OTHER_DISEASE = frozenset(
    (
        *("pneumomediastinum", "free air", "subcutaneous emphysema", "pericardial effusion"),
        *("tuberculosis", "adenopathy or hilar enlargement", "pulmonary hypertension", "aneurysm"),
        *("aortic tortuosity or calcification", "granuloma or calcification"),
        *("hyperinflation or emphysema", "airway disease", "blunted costophrenic angle"),
        *("raised diaphragm", "hernia", "mediastinal shift", "degenerative change"),
        *("scoliosis or kyphosis", "osteopenia", "compression deformity"),
    )
)


def labels(record: Record) -> dict[str, str]:
    """Return {label: 'present', 'uncertain' or 'absent'} of those of LABELS that a text mentions.

    No Finding is present where no other label but Support Devices, and no other disease, is present
    or uncertain. The labeler gives it to an empty text as well. Here a text has to hold an
    observation that the annotator reads. A text that says nothing does not say that nothing is
    found.
    """
    found: dict[str, str] = {}
    healthy = any(entity["label"] in ANNOTATED for entity in record["entities"].values())
    for finding, status in statuses(record).items():
        label, stated = LABEL_OF.get(finding), status in (PRESENT, UNCERTAIN)
        if label:
            _add(found, label, status)
        if finding == "heart failure" and stated:
            _add(found, CARDIOMEGALY, UNCERTAIN)
        if stated and (finding in OTHER_DISEASE or label not in (None, DEVICES)):
            healthy = False
    if healthy:
        found[NO_FINDING] = PRESENT
    return {label: found[label] for label in LABELS if label in found}


def _add(found: dict[str, str], label: str, status: str) -> None:
    found[label] = min(status, found.get(label, status), key=STATUSES.index)
