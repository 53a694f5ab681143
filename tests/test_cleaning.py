import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from radquant.corpus.cleaning import (
    clean_text,
    count_words,
    is_cut,
    normalise,
    refers_elsewhere,
)


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("A mass of 5.5 cm.", "A mass of 5.5 cm."),
        ("A mass of .5 cm.", "A mass of .5 cm."),
        ("The heart\n is large.", "The heart is large."),
        ("The right-\n sided tube.", "The right-sided tube."),
        ("Clear -\nno mass.", "Clear - no mass."),
        ("  Two \t spaces\r\nand\x0ba break\x00 .", "Two spaces and a break."),
        ("Haze for<BR>review.", "Haze for review."),
        ("1. Large heart. 2. Clear lungs.", "Large heart. Clear lungs."),
        ("1) Large heart.\n2) Clear lungs.", "Large heart. Clear lungs."),
        ("1.Large heart. 2.Clear lungs.", "Large heart. Clear lungs."),
        ("1. Large heart 2. Clear lungs", "Large heart. Clear lungs"),
        ("- Large heart.\n- Clear lungs.", "Large heart. Clear lungs."),
        ("2. 1.4 cm nodule. 3. Clear.", "2. 1.4 cm nodule. Clear."),
        ("Breaks of ribs 5 and 6. No air.", "Breaks of ribs 5 and 6. No air."),
        ("Breaks of ribs 5 and\n6. No air.", "Breaks of ribs 5 and 6. No air."),
        ("Old break of T12. No air.", "Old break of T12. No air."),
        ("Seen on x-XXXX of ___ by XXXX.", "Seen on x-XXXX of ___ by XXXX."),
        ("Clear lungs. .", "Clear lungs."),
        ("Clear lungs..", "Clear lungs."),
        ("Clear lungs", "Clear lungs"),
        ("Tube in place ,clear.", "Tube in place,clear."),
        ("Above.\n" + "_" * 40 + "\nBelow.", "Above. Below."),
        ("soft\u00adhyphen and\u00a0space", "softhyphen and space"),
        (" \n ", ""),
    ],
)
def test_clean_text(raw, cleaned):
    assert clean_text(raw) == cleaned


_pieces = st.sampled_from(
    ["1. ", "2) ", "\n", " ", ".", "5.5 cm", "XXXX", "___", "Heart", "lung", "-", "\r\n", "3.", ","]
)


@given(st.lists(_pieces, max_size=40).map("".join))
@example("1. ____________")
def test_cleaning_keeps_words_decimals_and_placeholders_in_order(raw):
    cleaned = clean_text(raw)
    assert "\n" not in cleaned
    assert "  " not in cleaned
    assert cleaned == cleaned.strip()
    letters = [character for character in raw if character.isalpha()]
    assert [character for character in cleaned if character.isalpha()] == letters
    ending = re.sub("_{10,}", "", raw).rstrip()  # a ruled line is no text
    assert cleaned.endswith(".") <= ending.endswith(".")


@given(st.text(alphabet=st.sampled_from("aB1. \n-_,)("), max_size=60))
def test_cleaning_neither_glues_nor_splits_words(raw):
    assert re.findall("[aB]+", clean_text(raw)) == re.findall("[aB]+", raw)


@pytest.mark.parametrize(
    "text",
    [
        "As above.",
        "See above",
        "As below.",
        "Please see findings above.",
        "See full report for details.",
        "As described above.",
        "Findings as described above.",
        "Above.",
        "As above. See findings.",
    ],
)
def test_refers_elsewhere(text):
    assert refers_elsewhere(text)


@pytest.mark.parametrize(
    "text",
    [
        "No acute findings, see above.",
        "Tubes as above. Large effusion.",
        "Tube above the carina.",
        "As expected.",
        "",
    ],
)
def test_says_something_itself(text):
    assert not refers_elsewhere(text)


@pytest.mark.parametrize(
    "raw",
    [
        "Clear lungs. The heart is",
        "Clear lungs. A tube ends in the ",
        "Clear lungs,",
        "The right-",
        "Clear lungs (",
        "Clear lungs and...",
        "Clear lungs…",
        "1. Clear lungs.\n2.",
        "Compared with ___:",
    ],
)
def test_cut(raw):
    assert is_cut(raw)


@pytest.mark.parametrize(
    "raw",
    ["Normal chest", "Clear lungs.", "Clear lungs. .", "Clear (lungs.)", "Mass of 5.5 cm", ""],
)
def test_not_cut(raw):
    assert not is_cut(raw)


def test_normalise_ignores_case_spacing_punctuation_and_placeholders_only():
    assert normalise("Heart, LARGE  (XXXX);\n___ 5.5 cm") == "heart large 5 5 cm"
    assert normalise("XXXX ___.") == ""
    assert normalise("No mass") != normalise("A mass")


@pytest.mark.parametrize(
    "text",
    [
        " " * 1_000_000,
        "1. A " * 200_000,
        "x 5) A " * 140_000,
        ". " * 500_000 + "5",
        "." * 1_000_000 + "5",
        "<br " * 250_000,
        "a-\n" * 300_000,
        "_" * 1_000_000,
        "as above " * 110_000,
        "\u200b" * 1_000_000,
    ],
    ids=range(10),
)
def test_a_megabyte_takes_linear_time(text):
    started = time.process_time()
    clean_text(text)
    is_cut(text)
    refers_elsewhere(text)
    refers_elsewhere(text[:400])
    normalise(text)
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("39 A.M., ___", 0),
        ("5:39 PM XXXX", 0),
        ("___", 0),
        ("1. 2.", 0),
        ("T12 is whole.", 3),
        ("No change", 2),
        ("Größe: unverändert", 2),
        ("肺野は清明", 1),
        ("X-ray of a chest", 3),
    ],
)
def test_words_that_say_something(text, words):
    assert count_words(text) == words
