"""Where annotations and sentences stand in the text as it was written, in characters."""

import re
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

Record = dict[str, Any]
Span = tuple[int, int]

# How far ahead a token is looked for when the text does not go on with it. An annotator may drop
# or replace a few characters; a longer search could run past a whole sentence.
WINDOW = 24

# A point between digits belongs to a number, and one inside a token to an abbreviation's like.
_END = re.compile(r"(?<!\d)[.?!;]+|[?!;]+|(?<=\d)\.+(?!\s?\d)")
# A blank line or a list marker starts a new statement even without a full stop.
_PARAGRAPH = re.compile(r"\n\s*\n|\n(?=\s*(?:\d+\s?[.)]|[-*•])\s)")


def spans(text: str, record: Record) -> list[tuple[int, int, dict[str, Any]]]:
    """Return (start, end, entity) of each of the record's entities, in the order of the text.

    `text[start:end]` is the entity's tokens but for white space. What cannot be found in the text,
    because the annotator changed its characters, is left out.
    """
    places = _places(text, record["text"].split())
    found = []
    for entity in record["entities"].values():
        inside = places[entity["start_ix"] : entity["end_ix"] + 1]
        if not inside or any(place is None for place in inside):
            continue
        start, end = inside[0][0], inside[-1][1]  # type: ignore[index]
        if "".join(text[start:end].split()) == "".join(entity["tokens"].split()):
            found.append((start, end, entity))
    return sorted(found, key=lambda span: span[:2])


def _places(text: str, tokens: Sequence[str]) -> list[Span | None]:
    """Return where each token stands in `text`: greedily, from left to right, None if nowhere."""
    places: list[Span | None] = []
    position = 0
    for token in tokens:
        while position < len(text) and text[position].isspace():
            position += 1
        start = text.find(token, position, position + WINDOW + len(token))
        if start < 0 or (start > position and _is_inside_word(text, start, token)):
            places.append(None)
            continue
        position = start + len(token)
        places.append((start, position))
    return places


def _is_inside_word(text: str, start: int, token: str) -> bool:
    """Say whether a token found further on would begin or end in the middle of a word there."""
    end = start + len(token)
    before, after = text[start - 1 : start], text[end : end + 1]
    return (token[0].isalnum() and before.isalnum()) or (token[-1].isalnum() and after.isalnum())


def sentences(text: str) -> list[Span]:
    """Return the sentences of `text`, without the white space around them.

    They end with . ? ! ; and with a paragraph, not with the point of 2.5 cm.
    """
    bounds = {0, len(text)}
    bounds.update(match.end() for match in _END.finditer(text))
    bounds.update(match.start() for match in _PARAGRAPH.finditer(text))
    ordered = sorted(bounds)
    found = []
    for start, end in pairwise(ordered):
        sentence = text[start:end]
        start += len(sentence) - len(sentence.lstrip())
        if any(character.isalnum() for character in sentence):
            found.append((start, start + len(sentence.strip())))
    return found


def sentence_at(bounds: Sequence[Span], position: int) -> int:
    """Return the index of the sentence in `bounds` that holds the character at `position`."""
    return max(0, bisect_right(bounds, position, key=lambda span: span[0]) - 1)
