"""What the lexicon makes of the constructions of chest reports, against labels by a reader."""

import time

import pytest
import sentences as benchmark

from radquant.scoring import findings, lexicon
from radquant.scoring import lexicon_terms as terms
from radquant.scoring.lexicon_spelling import correct

MARKS = {"present": "+", "absent": "-", "uncertain": "?"}


def read(text: str) -> str:
    found = findings.statuses(lexicon.annotate(text))
    return ", ".join(f"{finding} {MARKS[status]}" for finding, status in found.items())


@pytest.fixture(scope="module")
def sentences():
    return benchmark.read_sentences()


@pytest.mark.parametrize(("half", "least"), [("tuning", 275), ("held", 265)])
def test_sentences_are_read_as_by_a_reader(sentences, half, least):
    chosen = [sentence for sentence in sentences if sentence.half == half]
    wrong = [sentence.text for sentence in chosen if benchmark.faults(sentence)]
    assert len(chosen) - len(wrong) >= least, wrong if half == "tuning" else len(wrong)


def test_halves_are_those_of_the_seed(sentences):
    assert len(sentences) >= 500
    halves = benchmark.halves(sentences)
    assert {sentence.text: sentence.half for sentence in sentences} == halves


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # The first has been read as the contrary of what it says.
        ("Chest is negative for pneumothorax.", "pneumothorax -"),
        ("FINDINGS: Negative for cardiac enlargement.", "cardiomegaly -"),
        ("Pneumothorax: none. Edema: mild.", "pneumothorax -, pulmonary edema +"),
        ("Effusion absent, edema (+), pneumothorax (-).",
         "pleural effusion -, pneumothorax -, pulmonary edema +"),
        ("Consolidation? No. Effusion? Yes.", "consolidation -, pleural effusion +"),
        ("Left basilar opacity w/o effusion.", "opacity +, pleural effusion -"),
        # "With" after a negation.
        ("No rib with a fracture.", "fracture -"),
        ("No wound with a healed fracture.", "fracture -"),
        ("None of the ribs has a fracture.", "fracture -"),
        ("No consolidation with stable effusion.", "consolidation -, pleural effusion +"),
        ("No pneumothorax with a chest tube in place.", "chest tube +, pneumothorax -"),
        ("No pneumothorax after chest tube removal.", "chest tube -, pneumothorax -"),
        # What resolves is gone; what nearly does is not.
        ("Clearing of the edema.", "pulmonary edema -"),
        ("Resolved pneumothorax.", "pneumothorax -"),
        ("Near complete resolution of the effusion.", "pleural effusion +"),
        ("Follow-up to document resolution of the pneumonia.", "pneumonia +"),
        ("The effusion has resolved partially.", "pleural effusion +"),
        ("Slight interval clearing of the edema.", "pulmonary edema +"),
        ("Slight effusion has cleared.", "pleural effusion -"),
        ("The chest tube has not been removed.", "chest tube +"),
        ("Endotracheal tube and NG tube have been removed.",
         "endotracheal tube -, enteric tube -"),
        ("Effusion unchanged, pneumothorax resolved.", "pleural effusion +, pneumothorax -"),
        # Seeing.
        ("Pneumothorax cannot be seen or identified.", "pneumothorax -"),
        ("Effusion can no longer be clearly identified.", "pleural effusion -"),
        ("The nodule is not well seen.", "nodule +"),
        ("Nodule, not seen on the prior exam.", "nodule +"),
        # Suggesting.
        ("Findings do not suggest pneumonia.", "pneumonia -"),
        ("No opacity to suggest pneumonia.", "opacity -, pneumonia -"),
        ("No effusion, opacity suggestive of pneumonia.",
         "opacity +, pleural effusion -, pneumonia ?"),
        ("Pneumonia is doubtful.", "pneumonia ?"),
        ("A fracture is not likely.", "fracture -"),
        ("?pneumonia. No effusion.", "pleural effusion -, pneumonia ?"),
        ("Opacity (?pneumonia).", "opacity +, pneumonia ?"),
        # RadGraph-XL's convention: stated is what precedes "versus" and follows "less likely".
        ("Atelectasis vs. pneumonia.", "atelectasis +, pneumonia ?"),
        ("Opacity, likely atelectasis, less likely pneumonia.",
         "atelectasis ?, opacity +, pneumonia +"),
        ("It is possible that there is a small effusion.", "pleural effusion ?"),
        # Denied twice.
        ("Neither the effusion nor the edema has changed.",
         "pleural effusion +, pulmonary edema +"),
        ("Neither lung has an effusion or edema.", "pleural effusion -, pulmonary edema -"),
        ("Malignancy is not suspected but cannot be excluded.", "malignancy ?"),
        ("The lung is not free of edema.", "pulmonary edema +"),
        ("There is no evidence that the effusion has resolved.", "pleural effusion +"),
        ("Pneumonia could not be ruled out.", "pneumonia ?"),
        ("The CT excludes a fracture.", "fracture -"),
        ("Fracture must be excluded.", "fracture ?"),
        # Lists.
        ("No consolidation, large effusion is seen.", "consolidation -, pleural effusion +"),
        ("No consolidation, large effusion, or mass.",
         "consolidation -, mass -, pleural effusion -"),
        ("Heart not enlarged, lungs hyperinflated.",
         "cardiomegaly -, hyperinflation or emphysema +"),
        ("Effusion is absent on the right but present on the left.", "pleural effusion +"),
        ("No ETT, NGT in the stomach.", "endotracheal tube -, enteric tube +"),
        ("Consolidation, atelectasis, and effusion have cleared.",
         "atelectasis -, consolidation -, pleural effusion -"),
        # Short and misspelt.
        ("No PTX/eff, RLL opacity c/f PNA.",
         "opacity +, pleural effusion -, pneumonia ?, pneumothorax -"),
        ("No pneumothroax. Effussion. Atelectesis. Consolidaton. Cardiomegally.",
         "atelectasis +, cardiomegaly +, consolidation +, pleural effusion +, pneumothorax -"),
    ],
)  # fmt: skip
def test_constructions(text, expected):
    assert read(text) == expected


def test_slips_of_the_keyboard_are_corrected_and_other_words_are_not():
    slips = {
        "pneumothroax": "pneumothorax",  # two letters changed places
        "effussion": "effusion",  # one too many
        "consolidaton": "consolidation",  # one too few
        "atelectesis": "atelectasis",  # one wrong
        "opacites": "opacities",
        "edmea": "edema",
    }
    assert {word: correct(word) for word in slips} == slips
    others = """
        enema module modules infusion injection fraction capacity notation testing fibrosus
        effusive collagen oxygen catheters consolidated radiograph 2021 ödem
    """
    assert [word for word in others.split() if correct(word) != word] == []
    assert all(correct(name) == name for name in terms.NAMES)


@pytest.mark.parametrize(
    "piece",
    ["no rib with a fracture and ", "mild none ", "effusion : ", "which is no longer seen ", "? "],
)
def test_time_is_linear_in_constructions_without_end(piece):
    started = time.process_time()
    lexicon.annotate(piece * 10_000)
    assert time.process_time() - started < 4
