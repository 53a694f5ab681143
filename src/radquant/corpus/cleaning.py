"""Cleaning the text of a section, and telling which texts are not worth keeping."""

import re
import unicodedata

_BREAK = re.compile(r"<br\s?/?>", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")
INVISIBLE = re.compile("[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_RULE = re.compile(r"_{10,}")
_SPACE_BEFORE_STOP = re.compile(r" ([.,;:])(?!\d)")
_STOPS = re.compile(r"\.(?: ?\.)+(?!\d)")
# "1." "2)" "(3)" at a word's start, or a bullet at a line's start; both only before a capital.
_LIST_MARKER = re.compile(
    r"(?<!\S)(?:\(?(?P<number>\d{1,2})[.)]|(?:(?<=\n)|(?<=\A))[-*•–])\s{0,8}(?=[A-Z])"
)
# Hyphen, line break, lower-case letter: one word, and its hyphen may be meant ("right-\nsided").
_BROKEN_WORD = re.compile(r"(?<=[a-z]-)\n(?=[a-z])")


def clean_text(raw: str) -> str:
    """Return `raw` on one line, with single spaces and without list markers.

    Decimals ("5.5 cm") and the placeholders of de-identification (XXXX, ___) stay; ruled lines go.
    A number before a list item is removed only before a capital, and only where a list can be. That
    is at the start, after a full stop, or counting on. Where such a marker is the only thing
    between two items its full stop stays ("Emphysema 2. Clear lungs" becomes "Emphysema. Clear
    lungs"). Nothing is ever added at the end, where it would hide that a text was cut off.
    """
    text = _BREAK.sub("\n", raw)
    text = INVISIBLE.sub("", _CONTROL.sub(" ", text))
    text = "\n".join(line for part in text.splitlines() if (line := " ".join(part.split())))
    text = _RULE.sub(" ", text)
    text = _BROKEN_WORD.sub("", text)
    text = _drop_list_markers(text)
    text = " ".join(text.split())
    return _STOPS.sub(".", _SPACE_BEFORE_STOP.sub(r"\1", text)).strip()


def _drop_list_markers(text: str) -> str:
    """Drop the markers from text whose white space is single spaces and line breaks."""
    pieces: list[str] = []
    kept = last_number = 0
    for match in _LIST_MARKER.finditer(text):
        start = match.start()
        previous = text[start - 2] if start >= 2 else ""
        number = int(match["number"] or 0)
        starts_line = start == 0 or text[start - 1] == "\n"
        ended = previous in ("", ".", ";", ":", "?", "!")
        counts_on = last_number > 0 and number == last_number + 1
        if not (ended or counts_on or (starts_line and number <= 1)):
            continue  # "ribs 5 and 6. No pneumothorax"
        last_number = number or last_number
        pieces.append(text[kept:start].rstrip() + (" " if ended else ". "))
        kept = match.end()
    return "".join([*pieces, text[kept:]])


_WORD = re.compile(r"[^\W_]+")


def normalise(text: str) -> str:
    """Return the lower-case words and numbers of a text.

    Texts compare equal that differ in case, spacing, punctuation, placeholders (XXXX, ___),
    invisible characters or Unicode form alone.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", INVISIBLE.sub("", text)).casefold()
    return " ".join(word for word in _WORD.findall(text.lower()) if word.strip("x"))


_TIME = re.compile(r"\b[ap]\.?m\b", re.IGNORECASE)


def count_words(text: str) -> int:
    """Return how many words of a text are more than a number, a letter, a placeholder or the half
    of a day. "39 A.M., ___" has none.
    """
    words = _WORD.findall(_TIME.sub(" ", text))
    return sum(any(map(str.isalpha, word)) and len(word.strip("xX")) > 1 for word in words)


_SAID = "described|discussed|detailed|noted|stated|mentioned|dictated|reported|given|listed"
_PLACE = "above|below|findings|body|report|text|dictation|section|full|separate|ct|details|comment"
_POINTER = re.compile(
    rf"(?:(?:findings|changes|unchanged|please) )?(?:see|refer to|as per|per|same as|as)"
    rf"(?: the)?(?: (?:{_SAID}))?(?: (?:in|under|for|of|and|the|{_PLACE}))*"
    rf"|(?:{_PLACE})"
)


def refers_elsewhere(text: str) -> bool:
    """Say whether a cleaned text is only a pointer: "As above.", "See findings below."

    "No acute findings, see above." says something by itself and is not one.
    """
    if len(text) > 400:
        return False
    sentences = [normalise(sentence) for sentence in re.split(r"[.;:,]", text)]
    sentences = [sentence for sentence in sentences if sentence]
    return bool(sentences) and all(map(_POINTER.fullmatch, sentences))


_ENDS_OPEN = (
    "a an the and or nor but of in to with without from by for at into onto than that which whose "
    "is are was were be been has have had may might could can cannot should would will if because "
    "due versus vs between no not there this these its their very please when while including "
    "suggesting demonstrating showing measuring containing representing"
)
_DANGLING = frozenset(_ENDS_OPEN.split())
_CLOSERS = "\"'”’)]* \t\n"


def is_cut(raw: str) -> bool:
    """Say whether a raw text stops in mid-sentence.

    It does when it ends in an ellipsis, or in the number of a list item that never came. Without a
    full stop at its end, it also does if its last character or word asks for more. Such characters
    are a comma, a colon, a hyphen and an opening bracket; such words are "of", "the" and "is". A
    phrase without a full stop ("Normal chest") is complete.
    """
    text = raw.rstrip()
    if not text:
        return False
    if text.endswith(("...", "…")):
        return True
    if re.search(r"(?:^|[.;:?!]\s{1,8}|\n\s{0,8})\(?\d{1,2}[.)]$", text[-24:]):
        return True
    text = text.rstrip(_CLOSERS)
    if text.endswith((".", "!", "?")):
        return False
    if text.endswith((",", ";", ":", "-", "–", "/", "(", "[", "&", "+", "=")):
        return True
    last = re.search(r"[^\W\d_]+$", text[-40:])
    return bool(last and last[0].lower() in _DANGLING)
