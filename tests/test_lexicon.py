import importlib.util
import time
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radquant.scoring import lexicon, lexicon_terms
from radquant.scoring.lexicon import annotate
from radquant.scoring.lexicon_relations import ENTITIES
from radquant.scoring.lexicon_tokens import tokenize

PRESENT, ABSENT, UNCERTAIN = "definitely present", "definitely absent", "uncertain"


def statuses(text: str) -> dict[str, str]:
    entities = annotate(text)["entities"].values()
    return {
        entity["tokens"].lower(): entity["label"].split("::")[1]
        for entity in entities
        if entity["label"].startswith("Observation")
    }


def relations(text: str) -> set[tuple[str, str, str]]:
    entities = annotate(text)["entities"]
    return {
        (entity["tokens"].lower(), name, entities[target]["tokens"].lower())
        for entity in entities.values()
        for name, target in entity["relations"]
    }


def test_schema_of_a_sentence():
    assert annotate("No acute cardiopulmonary abnormality.") == {
        "text": "No acute cardiopulmonary abnormality .",
        "entities": {
            "1": {
                "tokens": "acute",
                "label": "Observation::definitely absent",
                "start_ix": 1,
                "end_ix": 1,
                "relations": [["modify", "3"]],
            },
            "2": {
                "tokens": "cardiopulmonary",
                "label": "Anatomy::definitely present",
                "start_ix": 2,
                "end_ix": 2,
                "relations": [],
            },
            "3": {
                "tokens": "abnormality",
                "label": "Observation::definitely absent",
                "start_ix": 3,
                "end_ix": 3,
                "relations": [["located_at", "2"]],
            },
        },
    }


@pytest.mark.parametrize(
    ("text", "word", "status"),
    [
        ("Small pleural effusion.", "effusion", PRESENT),
        ("No focal consolidation, effusion, or pneumothorax.", "pneumothorax", ABSENT),
        ("No focal consolidation, effusion or pneumothorax is seen.", "pneumothorax", ABSENT),
        ("Lungs are clear without effusion.", "clear", PRESENT),
        ("Lungs are clear without effusion.", "effusion", ABSENT),
        # The scope of a negation ends with its clause.
        ("No effusion. Cardiomegaly.", "cardiomegaly", PRESENT),
        ("No effusion but mild edema.", "edema", PRESENT),
        ("No effusion; however, edema persists.", "edema", PRESENT),
        ("No effusion, and the heart is enlarged.", "enlarged", PRESENT),
        ("No effusion, stable cardiomegaly.", "cardiomegaly", PRESENT),
        ("No pneumothorax\n\nModerate edema", "edema", PRESENT),
        ("1. No pneumothorax\n2. Moderate edema", "edema", PRESENT),
        ("FINDINGS: No edema IMPRESSION: Pneumonia", "pneumonia", PRESENT),
        ("No nodule above 2.5 cm and no mass.", "mass", ABSENT),
        # Triggers after the finding.
        ("Pneumothorax is not seen.", "pneumothorax", ABSENT),
        ("The effusion has resolved. Edema remains.", "effusion", ABSENT),
        ("The effusion has resolved. Edema remains.", "edema", PRESENT),
        ("The chest tube has been removed.", "tube", ABSENT),
        ("Pneumonia cannot be excluded.", "pneumonia", UNCERTAIN),
        ("No effusion, but pneumonia is not excluded.", "pneumonia", UNCERTAIN),
        ("Atelectasis is likely.", "atelectasis", UNCERTAIN),
        ("Small effusions, if any.", "effusions", UNCERTAIN),
        # Triggers before the finding.
        ("Possible pneumonia.", "pneumonia", UNCERTAIN),
        ("Opacity may represent pneumonia.", "opacity", PRESENT),
        ("Opacity may represent pneumonia.", "pneumonia", UNCERTAIN),
        ("Opacity concerning for edema or pneumonia.", "pneumonia", UNCERTAIN),
        ("There are likely small effusions.", "effusions", UNCERTAIN),
        ("Opacity consistent with pneumonia.", "pneumonia", PRESENT),
        ("Effusions, if any, are small.", "effusions", UNCERTAIN),
        ("If any, there is a small effusion.", "effusion", UNCERTAIN),
        ("Effusion is small if any, beside displaced fractures.", "fractures", PRESENT),
        ("Small effusions, left greater than right, are thought likely.", "effusions", UNCERTAIN),
        # What is uncertain is the cause, not the finding.
        ("Opacity, likely related to positioning.", "opacity", PRESENT),
        ("Opacity might be positional but edema cannot be excluded.", "opacity", PRESENT),
        ("Opacity, likely edema, pneumonia not excluded.", "opacity", PRESENT),
        ("Opacity, likely edema, pneumonia not excluded.", "pneumonia", UNCERTAIN),
        ("Possible edema in the setting of effusion.", "effusion", PRESENT),
        ("Likely effusion with associated opacity.", "opacity", PRESENT),
        ("Apparent widening of the mediastinum.", "widening", PRESENT),
        ("Compression fracture, age indeterminate.", "fracture", PRESENT),
        ("No change in the effusion.", "effusion", PRESENT),
        ("No evidence of worsening of edema.", "worsening", ABSENT),
        ("The effusion has nearly resolved.", "effusion", PRESENT),
        ("The tube is in place and its tip is not seen.", "tube", PRESENT),
        # A finding that is in no list, known by its ending.
        ("Sigmoid diverticulosis.", "diverticulosis", PRESENT),
    ],
)
def test_status(text, word, status):
    assert statuses(text)[word] == status


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Small left pleural effusion.", {
            ("small", "modify", "effusion"),
            ("left", "modify", "pleural"),
            ("effusion", "located_at", "pleural"),
        }),
        ("Right lower lobe opacity.", {
            ("right", "modify", "lobe"),
            ("lower", "modify", "lobe"),
            ("opacity", "located_at", "lobe"),
        }),
        ("Opacity in the right lower lobe.", {
            ("right", "modify", "lobe"),
            ("lower", "modify", "lobe"),
            ("opacity", "located_at", "lobe"),
        }),
        ("The heart is mildly enlarged.", {
            ("mildly", "modify", "enlarged"),
            ("enlarged", "located_at", "heart"),
        }),
        ("The heart and lungs are normal.", {
            ("normal", "located_at", "heart"),
            ("normal", "located_at", "lungs"),
        }),
        ("The aorta is tortuous and calcified.", {
            ("tortuous", "located_at", "aorta"),
            ("calcified", "located_at", "aorta"),
        }),
        ("Bibasilar opacities.", {("opacities", "located_at", "bibasilar")}),
        ("ET tube above the carina.", {("et tube", "located_at", "carina")}),
        ("The effusion has increased.", {("increased", "modify", "effusion")}),
        ("Opacities may represent edema or pneumonia.", {
            ("opacities", "suggestive_of", "edema"),
            ("opacities", "suggestive_of", "pneumonia"),
        }),
        ("Nodular opacities.", {("nodular", "modify", "opacities")}),
        ("The heart is moderate to severely enlarged.", {
            ("moderate", "modify", "enlarged"),
            ("severely", "modify", "enlarged"),
            ("enlarged", "located_at", "heart"),
        }),
        ("Opacity, likely edema.", {("opacity", "suggestive_of", "edema")}),
        ("Opacity and a possible nodule.", set()),
        ("Opacity may be edema, although pneumonia cannot be excluded.", {
            ("opacity", "suggestive_of", "edema"),
            ("opacity", "suggestive_of", "pneumonia"),
        }),
        ("Effusion, although pneumonia cannot be excluded.", set()),  # a disease is no sign
        ("Opacity is seen. This may be edema.", {("opacity", "suggestive_of", "edema")}),
        ("Opacity is seen. There may be edema.", set()),
        ("Lungs are large suggesting emphysema.", {
            ("large", "located_at", "lungs"),
            ("large", "suggestive_of", "emphysema"),
            ("emphysema", "located_at", "lungs"),
        }),
    ],
)  # fmt: skip
def test_relations(text, expected):
    assert relations(text) == expected


def test_requests_are_no_findings():
    assert annotate("INDICATION: Pneumonia. ")["entities"] == {}
    assert annotate("Evaluate for pneumothorax.")["entities"] == {}
    assert annotate("// please evaluate effusions.")["entities"] == {}
    assert set(statuses("HISTORY: Cough. FINDINGS: Edema.")) == {"edema"}
    # A history reaches to the next heading or paragraph; where none follows, to the full stop.
    assert set(statuses("HISTORY: Falls. Effusion. FINDINGS: Edema.")) == {"edema"}
    assert set(statuses("HISTORY: Falls. Effusion.\n\nEdema.")) == {"edema"}
    assert set(statuses("HISTORY: Cough. Edema.\n\n")) == {"edema"}
    assert set(statuses("COMPARISON: None. Edema. FINDINGS: Mass.")) == {"edema", "mass"}


PIECES = (
    "no No effusion , . ; and but is not seen the heart may represent pneumonia 2 . 5 cm : ( ) % "
    "XXXX cannot be excluded right lower lobe - FINDINGS ' é 肺 \\n"
)
TEXTS = st.one_of(
    # Of rare Unicode characters (superscript digits) it depends on nltk's version what is a word.
    st.text(
        st.one_of(st.characters(max_codepoint=127), st.sampled_from("éüß肺µ…–😀\u200b")),
        max_size=80,
    ),
    st.lists(st.sampled_from(PIECES.split()), max_size=40).map(" ".join),
    st.lists(st.sampled_from([*"a.%)(',\\n\"5 \n\t"]), max_size=30).map("".join),
)


@given(TEXTS)
def test_annotation_is_well_formed_and_repeatable(text):
    annotation = annotate(text)
    tokens = annotation["text"].split()
    entities = annotation["entities"]
    assert annotate(text) == annotation
    assert list(entities) == [str(number) for number in range(1, len(entities) + 1)]
    end = -1
    for name, entity in entities.items():
        assert end < entity["start_ix"] <= entity["end_ix"] < len(tokens)
        end = entity["end_ix"]
        assert entity["tokens"] == " ".join(tokens[entity["start_ix"] : end + 1])
        targets = [target for _, target in entity["relations"]]
        assert all(target in entities and target != name for target in targets)
        assert len(entity["relations"]) == len(set(map(tuple, entity["relations"])))


@pytest.fixture(scope="module")
def package_utils() -> ModuleType:
    spec = importlib.util.find_spec("radgraph")
    path = Path(spec.submodule_search_locations[0]) / "utils.py"
    spec = importlib.util.spec_from_file_location("radgraph_utils", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@given(text=TEXTS)
def test_tokens_are_those_of_radgraph(package_utils, text):
    expected = package_utils.radgraph_xl_preprocess_report(text).split()
    assert tokenize(text)[0] == expected


def test_blank_text_has_no_entities():
    assert annotate("") == annotate(" \n\t") == {"text": "", "entities": {}}


@pytest.mark.parametrize(
    "piece",
    [
        "no effusion and ",
        "right ",
        "mild ",
        "lung , ",
        "possible ",
        "opacity may be edema , ",
        "opacity , edema not excluded , ",
        "large if any , ",
    ],
)
def test_time_is_linear_in_a_text_without_end(piece):
    started = time.process_time()
    annotate(piece * 20_000)
    assert time.process_time() - started < 5


def test_at_least_500_reports_a_second():
    report = (
        "FINDINGS: The heart is mildly enlarged. There is a small left pleural effusion with "
        "adjacent atelectasis. No pneumothorax. Right lower lobe opacity may represent pneumonia. "
        "A PICC line ends in the mid SVC. IMPRESSION: Stable cardiomegaly. Possible pneumonia."
    )
    annotate(report)
    started = time.process_time()
    for number in range(300):
        annotate(f"{report} {number}")
    assert 300 / (time.process_time() - started) > 500


def test_terms_are_lower_case_and_in_one_list_of_entities():
    for _, names in lexicon.KINDS:
        assert all(name == name.lower() and name.strip() for name in names)
        assert len(names) == len(set(names))
    entity_lists = [names for kind, names in lexicon.KINDS if kind in ENTITIES]
    flat = [name for names in entity_lists for name in names]
    assert sorted(name for name in set(flat) if flat.count(name) > 1) == []


def test_identity_names_version_and_rules():
    name, version, _, digest = lexicon.identity().split()
    assert (name, version) == ("lexicon", lexicon.VERSION)
    assert len(digest.strip("()")) == 12
    assert lexicon_terms.FINDINGS
