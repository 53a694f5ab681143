import pytest

from radquant.scoring import lexicon
from radquant.scoring.finding_terms import CANONICAL
from radquant.scoring.findings import describe, statuses

OLD_LABELS = {"definitely present": "OBS-DP", "definitely absent": "OBS-DA", "uncertain": "OBS-U"}


def annotation(*entities):
    """Return a record in RadGraph's schema of entities (tokens, label, relations)."""
    return {
        "text": " ".join(tokens for tokens, _, _ in entities),
        "entities": {
            str(number): {
                "tokens": tokens,
                "label": label,
                "start_ix": number - 1,
                "end_ix": number - 1,
                "relations": [list(relation) for relation in relations],
            }
            for number, (tokens, label, relations) in enumerate(entities, 1)
        },
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The heart is enlarged.", {"cardiomegaly": "present"}),
        ("Mildly enlarged cardiac silhouette.", {"cardiomegaly": "present"}),
        ("Heart size is enlarged.", {"cardiomegaly": "present"}),
        ("The heart is not enlarged.", {"cardiomegaly": "absent"}),
        ("Heart size is normal.", {}),
        ("No acute cardiopulmonary abnormality. The lungs are clear.", {}),
        ("Stable. No active disease.", {}),
        ("Pericardial effusion.", {"pericardial effusion": "present"}),
        ("Small pleural effusions.", {"pleural effusion": "present"}),
        ("Patchy airspace disease.", {"opacity": "present"}),
        ("Granulomatous opacity.", {"granuloma or calcification": "present", "opacity": "present"}),
        ("The interstitial markings are normal.", {}),
        ("Increased interstitial markings.", {"interstitial disease": "present"}),
        ("No interstitial abnormality.", {"interstitial disease": "absent"}),
        ("Interstitial opacity in the apex.", {"interstitial disease": "present"}),
        ("Calcified aorta.", {"aortic tortuosity or calcification": "present"}),
        ("Calcified granuloma.", {"granuloma or calcification": "present"}),
        ("Low lung volumes.", {"low lung volumes": "present"}),
        ("Lung volumes are low.", {"low lung volumes": "present"}),
        ("The right hemidiaphragm is elevated.", {"raised diaphragm": "present"}),
        ("Subcutaneous emphysema.", {"subcutaneous emphysema": "present"}),
        ("No free air.", {"free air": "absent"}),
        ("Widened mediastinum.", {"widened mediastinum": "present"}),
        ("Endotracheal tube.", {"endotracheal tube": "present"}),
        ("Bronchovascular markings are normal.", {}),
        ("Coarse interstitial markings.", {"interstitial disease": "present"}),
        ("A glomus pseudotumor.", {"pseudotumor": "present"}),
        ("Bony deformities.", {"deformity": "present"}),
        ("Low lung volumes with atelectasis.",
         {"atelectasis": "present", "low lung volumes": "present"}),
        ("Lower lung volumes.", {"low lung volumes": "present"}),
        ("The sternal wires are fractured.", {"postoperative change": "present"}),
        ("Fractured pacemaker lead.", {"pacemaker": "present"}),
        ("Fractured ribs, chest tube.", {"chest tube": "present", "fracture": "present"}),
        ("Chest tube with its side port.", {"chest tube": "present"}),
        ("Air space disease.", {"opacity": "present"}),
        ("An enlarging nodule.", {"nodule": "present"}),
        # Several mentions: present before uncertain before absent.
        ("No effusion. Possible effusion.", {"pleural effusion": "uncertain"}),
        ("No left effusion. Possible effusion. Right effusion.", {"pleural effusion": "present"}),
        ("No effusion or edema, but atelectasis.",
         {"atelectasis": "present", "pleural effusion": "absent", "pulmonary edema": "absent"}),
        ("", {}),
    ],
)  # fmt: skip
def test_statuses(text, expected):
    assert statuses(lexicon.annotate(text)) == expected


def test_labels_of_the_first_radgraph_model_mean_the_same():
    text = "Large effusion. No edema. Possible pneumonia. The heart is enlarged."
    record = lexicon.annotate(text)
    expected = statuses(record)
    assert set(expected.values()) == {"present", "absent", "uncertain"}
    for entity in record["entities"].values():
        kind, _, certainty = entity["label"].partition("::")
        entity["label"] = "ANAT-DP" if kind == "Anatomy" else OLD_LABELS[certainty]
    assert statuses(record) == expected


def test_radgraph_marks_the_parts_of_a_phrase_as_entities_of_their_own():
    present, place = "Observation::definitely present", "Anatomy::definitely present"
    record = annotation(
        ("airspace", present, [("modify", "2")]),
        ("opacity", present, [("located_at", "4")]),
        ("left", place, [("modify", "4")]),
        ("lobe", place, []),
        ("3", "Observation::measurement::definitely present", []),
        ("enlarged", present, [("located_at", "8")]),
        ("cardiac", place, [("modify", "8")]),
        ("silhouette", place, []),
    )
    assert statuses(record) == {"opacity": "present", "cardiomegaly": "present"}
    assert describe(record, record["text"])["opacity"].sides == {"left"}


@pytest.mark.parametrize(
    ("text", "finding", "sides"),
    [
        ("Left pleural effusion.", "pleural effusion", {"left"}),
        ("Bilateral effusions.", "pleural effusion", {"left", "right"}),
        ("Right lower lobe and left lower lobe opacity.", "opacity", {"left", "right"}),
        ("Opacity in the posterior segment of the right upper lobe.", "opacity", {"right"}),
        ("Right greater than left effusions.", "pleural effusion", {"left", "right"}),
        ("Left effusion. No right effusion.", "pleural effusion", {"left"}),
        ("Opacity of the right and left base.", "opacity", {"left", "right"}),
        ("Bibasilar and left perihilar opacities.", "opacity", {"left", "right"}),
        ("Left mass with bilateral effusions.", "mass", {"left"}),
        ("Right greater than left atelectasis/opacity.", "opacity", {"left", "right"}),
        ("Bibasilar opacities with a right effusion.", "pleural effusion", {"right"}),
        ("Left effusion and right pneumothorax.", "pneumothorax", {"right"}),
        # A lead in the right ventricle says nothing of the pacemaker's side.
        ("Left-sided pacemaker. Pacemaker leads in the right ventricle.", "pacemaker", {"left"}),
        ("Right mass. Another mass on the left is possible.", "mass", {"right"}),
        ("An effusion.", "pleural effusion", set()),
    ],
)
def test_sides(text, finding, sides):
    assert describe(lexicon.annotate(text), text)[finding].sides == sides


@pytest.mark.parametrize(
    ("text", "finding", "places"),
    [
        ("Opacity in the right upper lobe.", "opacity", {"upper"}),
        ("Upper and middle lobe opacities with an effusion.", "opacity", {"upper", "middle"}),
        ("RUL opacity and LLL atelectasis.", "atelectasis", {"lower"}),
        ("Bibasilar atelectasis.", "atelectasis", {"base"}),
        ("Mid lung opacities, no effusion or edema.", "opacity", {"mid"}),
        ("Upper lobe nodule with clear bases.", "nodule", {"upper"}),
        ("Nodule. Degenerative change of the lower thoracic spine.", "nodule", set()),
        ("Degenerative change of the lower thoracic spine.", "degenerative change",
         {"thoracic", "spine"}),
        ("Fractures of the left 4th and fifth ribs.", "fracture", {"rib 4", "rib 5"}),
        ("Compression fracture of T12, 5 mm.", "fracture", {"T12"}),
        ("Left clavicle fracture.", "fracture", {"clavicle"}),
        ("Low lung volumes in the upper lobes.", "low lung volumes", set()),
    ],
)  # fmt: skip
def test_places(text, finding, places):
    assert describe(lexicon.annotate(text), text)[finding].places == places


@pytest.mark.parametrize(
    ("text", "finding", "course"),
    [
        ("Increasing effusion.", "pleural effusion", {"worse"}),
        ("Interval decrease in the effusion.", "pleural effusion", {"better"}),
        ("The effusion has not increased.", "pleural effusion", {"stable"}),
        ("No significant interval change in the effusion.", "pleural effusion", {"stable"}),
        ("The effusion remains unchanged.", "pleural effusion", {"stable"}),
        ("New effusion.", "pleural effusion", {"new"}),
        ("Effusion.", "pleural effusion", set()),
        ("Effusion, larger on the left.", "pleural effusion", set()),
        ("Effusion is better seen today.", "pleural effusion", set()),
        ("Increased interstitial markings.", "interstitial disease", {"more"}),
        ("Decreased lung volumes.", "low lung volumes", set()),
        ("Stable cardiomegaly and worsening edema.", "cardiomegaly", {"stable"}),
        ("Stable cardiomegaly and worsening edema.", "pulmonary edema", {"worse"}),
        ("Effusion and atelectasis have improved.", "pleural effusion", {"better"}),
        ("The edema is partially resolved.", "pulmonary edema", {"better"}),
    ],
)
def test_courses(text, finding, course):
    assert describe(lexicon.annotate(text), text)[finding].course == course


@pytest.mark.parametrize(
    ("text", "misplaced"),
    [
        ("Endotracheal tube in the right mainstem bronchus.", {"endotracheal tube"}),
        ("ETT 4 cm above the carina.", set()),
        ("ETT in good position. NG tube in the distal esophagus.", {"enteric tube"}),
        ("ETT and NG tube are malpositioned.", {"endotracheal tube", "enteric tube"}),
        ("ETT at the carina, NG tube in the stomach.", {"endotracheal tube"}),
        ("NG tube in the stomach. Its side port is above the GE junction.", {"enteric tube"}),
        ("NG tube is coiled in the stomach.", set()),
        ("NG tube is coiled in the pharynx.", {"enteric tube"}),
        ("Right internal jugular line with tip in the SVC.", set()),
        ("Left PICC with tip in the internal jugular vein.", {"central line"}),
        ("Line tip at the superior cavoatrial junction.", set()),
        ("ETT previously in the right bronchus, now in standard position.", set()),
        ("ETT is not malpositioned.", set()),
        ("ETT should be withdrawn by 2 cm.", {"endotracheal tube"}),
        ("ETT has been withdrawn by 2 cm, now in good position.", set()),
        ("Pacemaker leads in the right atrium and ventricle.", set()),
    ],
)
def test_devices_out_of_place(text, misplaced):
    found = describe(lexicon.annotate(text), text)
    assert {name for name, finding in found.items() if finding.misplaced} == misplaced


def test_tension_is_a_degree_of_a_pneumothorax_alone():
    for text, degrees in (
        ("Left tension pneumothorax.", {"tension"}),
        ("Large pneumothorax with signs of tension.", {"severe", "tension"}),
        ("Small pneumothorax, no sign of tension.", {"mild"}),
    ):
        assert describe(lexicon.annotate(text), text)["pneumothorax"].severities == degrees


@pytest.mark.parametrize(
    ("text", "measured"),
    [
        ("A 2.5 cm nodule.", {"nodule": {25.0}}),
        ("A 25-mm nodule.", {"nodule": {25.0}}),
        ("A nodule measures 5 x 7 mm.", {"nodule": {5.0, 7.0}}),
        ("A nodule is seen. It measures 1.5cm.", {"nodule": {15.0}}),
        ("A 3 cm mass and a 4 mm nodule.", {"mass": {30.0}, "nodule": {4.0}}),
        ("The tip of the endotracheal tube is 5.5 cm above the carina.",
         {"endotracheal tube": {55.0}}),
        ("No nodule above 5 mm.", {}),
        ("Seen on 5.5.2020 with 3 nodules, cm.", {}),
    ],
)  # fmt: skip
def test_measurements_belong_to_the_nearest_finding(text, measured):
    found = describe(lexicon.annotate(text), text)
    assert {k: set(f.measurements) for k, f in found.items() if f.measurements} == measured


def test_a_word_that_names_the_finding_is_no_degree():
    text = "The heart is slightly large."
    assert describe(lexicon.annotate(text), text)["cardiomegaly"].severities <= {"mild"}


def test_canonical_names_are_distinct():
    assert len(set(CANONICAL)) == len(CANONICAL)
