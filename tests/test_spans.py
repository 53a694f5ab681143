from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radquant.scoring import lexicon
from radquant.scoring.spans import sentence_at, sentences, spans


def found(text, record=None):
    return [text[start:end] for start, end, _ in spans(text, record or lexicon.annotate(text))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Small effusion.", ["Small", "effusion"]),
        ("No effusion.No\n\nedema", ["effusion", "edema"]),
        ("A 2.5 cm nodule in the left-sided XXXX lobe.", ["nodule", "left-sided", "lobe"]),
        ("Naïve “opacity” – ½ edema™", ["opacity", "edema"]),
        ("ground-glass\n opacity, (mass).", ["ground-glass", "opacity", "mass"]),
        ("ground- glass opacity", ["ground- glass", "opacity"]),
        ('"edema" \\n and a quoted \\"mass\\"', ["edema", "mass"]),
        ("\tEdema; edema\r\nEDEMA", ["Edema", "edema", "EDEMA"]),
        ("", []),
    ],
)
def test_spans_of_awkward_texts(text, expected):
    assert found(text) == expected


def test_an_entity_that_is_not_in_the_text_is_left_out_and_no_other():
    text = "Mild edema. No effusion."
    record = lexicon.annotate(text)
    record["text"] = record["text"].replace("edema", "oedema")
    record["entities"]["2"]["tokens"] = "oedema"
    assert found(text, record) == ["Mild", "effusion"]


def test_a_token_is_not_found_within_a_word_further_on():
    # The annotator lost nothing but "no": the next "no" is part of "nodules".
    text = "Clear. Many nodules."
    record = lexicon.annotate("Clear. no nodules.")
    assert found(text, record) == ["Clear", "nodules"]


REPORTS = st.text(st.sampled_from('aA1.,;:"\\\n\t -–éX½”%)n') | st.characters(), max_size=80)
WORDS = st.lists(
    st.sampled_from(["edema", "No", "left", "effusion.", "2.5 cm", "ground-glass", "XXXX,", "\n\n"])
)


@given(REPORTS, WORDS)
def test_spans_hold_exactly_their_tokens(noise, words):
    text = noise + " ".join(words)
    record = lexicon.annotate(text)
    for start, end, entity in spans(text, record):
        assert 0 <= start < end <= len(text)
        assert "".join(text[start:end].split()) == "".join(entity["tokens"].split())


@given(WORDS)
def test_every_entity_of_an_ordinary_text_is_found(words):
    text = " ".join(words)
    record = lexicon.annotate(text)
    assert len(spans(text, record)) == len(record["entities"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two? Three", ["One.", "Two?", "Three"]),
        ("A 2.5 cm nodule. It is 2. 5 cm.", ["A 2.5 cm nodule.", "It is 2. 5 cm."]),
        ("No edema.No mass", ["No edema.", "No mass"]),
        ("Grade 3. Next", ["Grade 3.", "Next"]),
        ("1. No edema\n2. Clear lungs", ["No edema", "Clear lungs"]),
        ("FINDINGS\n\n - edema", ["FINDINGS", "- edema"]),
        ("...", []),
    ],
)
def test_sentences(text, expected):
    parts = [
        text[start:end].removeprefix("1. ").removeprefix("2. ") for start, end in sentences(text)
    ]
    assert [part for part in parts if part not in ("1.", "2.")] == expected


@given(REPORTS)
def test_sentences_stand_in_order_and_lose_no_letter(text):
    bounds = sentences(text)
    assert all(a[1] <= b[0] for a, b in pairwise(bounds))
    kept = "".join(text[start:end] for start, end in bounds)
    assert [c for c in kept if c.isalnum()] == [c for c in text if c.isalnum()]
    for number, (start, end) in enumerate(bounds):
        assert {sentence_at(bounds, place) for place in range(start, end)} == {number}
