"""Words and sentences of a report, before any of them is understood."""

import re

from radquant.scoring import lexicon_triggers as triggers

WORD = re.compile(r"\w+|[^\w\s]+")
_SPLITS = ((").", ") ."), ("%.", "% ."), (".'", ". '"), ("%,", "% ,"), ("%)", "% )"))
# A blank line or a list marker starts a new statement even without a full stop.
_PARAGRAPH = re.compile(r"\n\s*\n|\n(?=\s*(?:\d+\s?[.)]|[-*•])\s)")
# A question mark that leads: nothing stands before it, or a blank.
_QUESTION_MARK = re.compile(r"(?P<leading>(?<![^\s([]))?\?")
# Not the end of a sentence, although a full stop follows.
_ABBREVIATIONS = {"vs", "approx", "dr"}


def tokenize(text: str) -> tuple[list[str], list[int], set[int]]:
    """Return RadGraph-XL's tokens and the positions at which sentences and paragraphs start."""
    tokens, starts, paragraphs, _ = read(text)
    return tokens, starts, paragraphs


def read(text: str) -> tuple[list[str], list[int], set[int], list[str]]:
    """Return tokens, the starts of sentences and of paragraphs, and the tokens as they are meant.

    The last are lower-case, and what is short for a word is that word. "?pneumonia" asks a
    question, the "no" of "effusion: no" is a "none", and "w/" is "with".
    """
    text = text.replace("\\n", "  ").replace("\\f", "  ").replace("\\u2122", "      ")
    text = text.replace('\\"', "``")
    tokens: list[str] = []
    starts: list[int] = []
    paragraphs: set[int] = set()
    leading: set[int] = set()
    for paragraph in _PARAGRAPH.split(text):
        joined = " ".join(WORD.findall(paragraph))
        for pair, apart in _SPLITS:
            joined = joined.replace(pair, apart)
        begin = len(tokens)
        tokens += joined.split()
        if "?" in paragraph:
            leading |= _leading(paragraph, tokens, begin)
        if begin < len(tokens):
            paragraphs.add(begin)
        fresh = True
        for index in range(begin, len(tokens)):
            if fresh:
                starts.append(index)
            fresh = (
                not tokens[index][0].isalnum()
                and index not in leading
                and _ends_sentence(tokens, index)
            )
    return tokens, starts, paragraphs, _meant(tokens, leading)


def _leading(paragraph: str, tokens: list[str], begin: int) -> set[int]:
    """Return which of `tokens`, from `begin` on, are question marks before what they ask."""
    marks = [match["leading"] is not None for match in _QUESTION_MARK.finditer(paragraph)]
    found = set()
    number = 0
    for index in range(begin, len(tokens)):
        count = tokens[index].count("?")
        if count and tokens[index].lstrip("([") == "?" * count and marks[number]:
            found.add(index)
        number += count
    return found


def _ends_sentence(tokens: list[str], index: int) -> bool:
    token = tokens[index]
    before = tokens[index - 1] if index else ""
    after = tokens[index + 1] if index + 1 < len(tokens) else ""
    if token in (":", "?") and _is_answered(tokens, index):
        return False
    if token == ":":  # A heading such as FINDINGS: also ends what went before.
        return before.isupper() or before.lower() in triggers.HEADINGS
    if not any(mark in token for mark in ".;?!"):
        return False
    if token == "." and before.lower() in _ABBREVIATIONS:
        return False
    return not (token == "." and before.isdigit() and after.isdigit())  # 2.5 cm


def _is_answered(tokens: list[str], index: int) -> bool:
    """Say whether an answer follows the colon or question mark: "PNEUMOTHORAX: None"."""
    if index + 1 == len(tokens):
        return False
    return _is_answer(tokens, index + 1)


def _is_answer(tokens: list[str], index: int) -> bool:
    """Say whether the word after a colon or question mark is no statement of its own."""
    word = tokens[index].lower()
    if index > 1 and tokens[index - 2].lower() in triggers.REQUEST_HEADINGS | triggers.HEADINGS:
        return False
    if word == "no":
        return _is_alone(tokens, index)
    if tokens[index + 1 : index + 2] in (["for"], ["of"]):  # "Shoulder: negative for fracture"
        return False
    return word in triggers.ANSWERS or word[:3] in triggers.SIGNS


def _is_alone(tokens: list[str], index: int) -> bool:
    """Say whether nothing follows the word in its statement: "no." and "no evidence."."""
    if tokens[index + 1 : index + 2] in (["evidence"], ["sign"], ["signs"]):
        index += 1
    return index + 1 == len(tokens) or tokens[index + 1][0] in ".,;)"


def _meant(tokens: list[str], leading: set[int]) -> list[str]:
    words = [token.lower() for token in tokens]
    for index in leading:
        words[index] = "question"
    for index, word in enumerate(words):
        if word in triggers.SHORT:
            words[index] = _meaning(words, index)
    return words


def _meaning(words: list[str], index: int) -> str:
    word = words[index]
    before = words[index - 1] if index else ""
    if word == "no":
        return "none" if _is_alone(words, index) else word
    if word in ("n", "y"):
        return triggers.SHORT[word] if before == ":" else word
    if word in triggers.NONE:
        answers = before and before[-1] in ":?=(-–—/" and _is_answer(words, index)
        return "none" if answers or (word == "nil" and _is_alone(words, index)) else word
    if word == "w":
        after = words[index + 1 : index + 3]
        return "with" if after[:1] == ["/"] and after[1:] not in (["o"], ["out"]) else word
    if word == "?":
        return ":" if _is_answered(words, index) else word
    return triggers.SHORT[word]
