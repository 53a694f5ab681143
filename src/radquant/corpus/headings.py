"""Where the headings of a report are.

They are found with any left margin, in capitals or as a title, numbered, bold or in Markdown, and
in the middle of a line, because re-exports of a corpus strip margins and join lines. Lower-case
ones count where the report uses them so.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from radquant.corpus.heading_names import (
    Declared,
    Name,
    Names,
    flat,
    names_of,
    pairs_of,
)
from radquant.settings.corpus import LONGEST_HEADING

BODY = ("findings", "impression", "both")


@dataclass(frozen=True)
class Heading:
    """A heading from `start` up to `end`, where its text begins."""

    start: int
    end: int
    kind: str  # of heading_names
    style: str = "capitals"  # "title", "lower"
    clear: bool = True  # nothing before it goes on


def find_headings(text: str, declared: Declared | None = None) -> list[Heading]:
    """Return the headings of a report, in order and apart, without those of mere parts.

    declared: names of a user's own for each kind of section, beside the usual ones.
    """
    names = names_of(pairs_of(declared or {}))
    shadow = _without_tags(flat(text))
    lines = list(_at_line_starts(shadow, names))
    found = sorted([*lines, *_within_lines(shadow, names)], key=lambda it: (it.start, -it.end))
    apart: list[Heading] = []
    for heading in _without_lower(found):
        if not apart or heading.start >= apart[-1].end:
            apart.append(heading)
    return _with_space(shadow, list(_decided(shadow, apart)))


def _with_space(shadow: str, headings: Sequence[Heading]) -> list[Heading]:
    """Take the blank space around each heading into it, and with it the tags there."""
    ends = [0, *(heading.end for heading in headings)]
    begins = [*(heading.start for heading in headings[1:]), len(shadow)]
    grown = []
    for heading, last, following in zip(headings, ends, begins, strict=False):
        start = last + len(shadow[last : heading.start].rstrip())
        end = following - len(shadow[heading.end : following].lstrip())
        grown.append(replace(heading, start=start, end=end))
    return grown


# ------------------------------------------------------------------------------ at a line's start

# What stands before a heading: Markdown, a bullet or rule, an item's number.
_OPEN = re.compile(
    r"[ \t]*(?:(?:#{1,6}|>|[*=~\u2022\u00b7\u25aa\u25cf-]{1,20}|(?<!_)_{1,2}(?!_)|\[)[ \t]*"
    r"|\(?(?:\d{1,2}|[IVX]{1,4}|[A-Ha-h])[.)](?:[ \t]+|(?=[*_]))){0,4}"
)
_MARKED = re.compile(r"#|\*\*|(?<!_)__(?!_)|\*(?=[A-Za-z])|_(?=[A-Za-z])|\[")
# What may close it, before and behind the colon. ":-" is a colon, too.
_CLOSE = re.compile(r":(?::|[-\u2013\u2014]+(?=\s|$))?")
_CLOSE_MARK = re.compile(r"[ \t]*(?:\*{1,3}|(?<!_)_{1,2}(?!_)|\])")
_CLOCK = re.compile(r"[0-9_X]:[ ]?(?=[0-9_X])")
# "FINDINGS - Clear.", "FINDINGS; clear", a tab or a gap, where there is no colon.
_GAP = re.compile(
    r"([A-Za-z][A-Za-z /&()]{3,40}?)[ ]*(?:[ ][-\u2013\u2014]+(?=\s)|[-\u2013\u2014]+(?=[ ][A-Z])"
    r"|\t|;|[ ]{2,}(?=[A-Z0-9]))"
)
_TAIL = " \t.:*_#=~-\u2013\u2014]"


def _at_line_starts(shadow: str, names: Names) -> Iterator[Heading]:
    start = 0
    before = ""  # the line before, "" where there is none
    headed = True  # whether that has a heading
    for line in shadow.split("\n"):
        heading = _of_line(line[: LONGEST_HEADING + 60], len(line), names)
        if heading:
            clear = headed or _ends(before) or heading.style == "capitals"
            if heading.kind in ("unknown", "part", "views"):
                clear = headed or not _goes_on(before)
            yield replace(
                heading, start=start + heading.start, end=start + heading.end, clear=clear
            )
        headed, before = bool(heading), line.strip() if len(line) < 2000 else line[-2000:].strip()
        start += len(line) + 1


def _of_line(line: str, length: int, names: Names) -> Heading | None:
    """The heading at the start of a line of which `line` is the beginning, of `length` in all."""
    opened = _OPEN.match(line)
    assert opened is not None
    begin = opened.end()
    if begin >= len(line) or not line[begin].isalpha():
        return None
    marked = bool(_MARKED.search(line, 0, begin + 1))
    colon = _colon(line, begin)
    if colon > 0:
        phrase = line[begin:colon].rstrip(_TAIL)
        name = names.known(phrase)
        if not name and _colon_ends(line, colon):
            name = names.in_capitals(phrase)
        if name:
            closed = _CLOSE.match(line, colon)
            assert closed is not None
            mark = _CLOSE_MARK.match(line, closed.end()) if marked else None
            end = mark.end() if mark else closed.end()
            return Heading(0, end, name.kind, _style(phrase, marked))
    if length <= LONGEST_HEADING:
        phrase = line[begin:].strip(_TAIL)
        name = names.known(phrase)
        alone = _style(phrase, marked)
        if name and alone != "lower" and (alone == "capitals" or not line.rstrip().endswith(".")):
            return Heading(0, length, name.kind, alone)
    gap = _GAP.match(line, begin)
    if gap:
        name, style = names.known(gap[1]), _style(gap[1], marked)
        if name and not names.plain(gap[1]) and style != "lower":
            return Heading(0, gap.end(), name.kind, style)
    return None


def _colon(line: str, begin: int) -> int:
    """Where the first colon that is none of a clock time or a ratio stands, else -1."""
    colon = line.find(":", begin, begin + LONGEST_HEADING)
    while colon > 0 and _CLOCK.match(line, colon - 1):
        colon = line.find(":", colon + 1, begin + LONGEST_HEADING)
    return colon


def _colon_ends(line: str, colon: int) -> bool:
    return not line[colon + 1 : colon + 2].strip(" \t*_:-")


def _style(phrase: str, marked: bool) -> str:
    if phrase[1:] == phrase[1:].upper():  # "lMPRESSION"
        return "capitals"
    return "title" if marked or not phrase[0].islower() else "lower"


_STOP = re.compile(r"[.:;!?)\]*_\"'>]$")
_OPEN_WORD = re.compile(
    r"(?:[,(/&+-]|\b(?:a|an|the|this|these|and|or|of|in|on|to|at|by|for|from|with|without|is|are|was"
    r"|were|see|per|than|that|no))$",
    re.IGNORECASE,
)
_WRAPPED = 60  # characters of a line that was broken because it was full


def _ends(line: str) -> bool:
    return not line or bool(_STOP.search(line))


def _goes_on(line: str) -> bool:
    """Whether a sentence of `line` goes on in the next one."""
    return not _ends(line) and (len(line) >= _WRAPPED or bool(_OPEN_WORD.search(line)))


# ----------------------------------------------------------------------------------- within a line

_CAPITALS = re.compile(
    r"(?<![A-Za-z/&_(])([A-Z][A-Z]+(?:[ ]?[/&,+-][ ]?[A-Z]+|[ ][A-Z]+){0,5}(?:[ ]?\([A-Z]{1,4}\))?)"
    r"[ \t]{0,9}:"
)
_AFTER_SENTENCE = re.compile(
    r"(?<=[.:;!?\])])[ \t]{0,3}([^\W\d_]{4,30}(?:[ ][^\W\d_]{2,20}){0,4})[ \t]{0,9}:"
)
_BOLD_NAME = re.compile(
    r"(?<![\w*])(?P<mark>\*\*|__)(?!_)[ ]{0,9}([A-Za-z][A-Za-z /&,()-]{2,40}?)[ ]{0,9}:?[ ]{0,9}"
    r"(?P=mark)(?!_)[ ]{0,9}:?"
)
_POINTED = re.compile(
    r"\b(?:see|the|this|these|that|under|per|our|my|his|her|above|following|and|or)$", re.IGNORECASE
)


def _within_lines(shadow: str, names: Names) -> Iterator[Heading]:
    for match in _CAPITALS.finditer(shadow):
        found = _last_known(match[1], names)
        if found and not _CLOCK.match(shadow, match.end() - 2):
            name, begin = found[0], match.start() + found[1]
            before = shadow[max(0, begin - 40) : begin].rstrip(" \t")
            plain = names.plain(match[1][found[1] :])
            if not _POINTED.search(before) and (_ends(before) or not plain):
                yield Heading(begin, match.end(), name.kind)
    for match in _AFTER_SENTENCE.finditer(shadow):
        title = names.known(match[1])
        if title and not names.plain(match[1]) and title.kind != "other":
            yield Heading(match.start(1), match.end(), title.kind, _style(match[1], False))
    for match in _BOLD_NAME.finditer(shadow):
        title = names.known(match[2])
        if title:
            yield Heading(match.start(), match.end(), title.kind, "title")


def _last_known(phrase: str, names: Names) -> tuple[Name, int] | None:
    """The longest end of a phrase in capitals that is a known heading, and where it begins."""
    for start in [0, *(m.end() for m in re.finditer(r"[ ]+(?:[/&,+-][ ]*)?", phrase))]:
        name = names.known(phrase[start:])
        if name:
            return name, start
    return None


# --------------------------------------------------------------------------------- which ones count


def _without_lower(found: list[Heading]) -> list[Heading]:
    """Leave out lower-case headings, unless the report uses them so.

    One of findings or impression must begin where nothing goes on, and no section may have a
    heading of its own in another style.
    """
    other = {heading.kind for heading in found if heading.style != "lower"}
    lower = [it for it in found if it.style == "lower" and it.kind not in other]
    clear = {heading.kind for heading in lower if heading.clear}
    if not clear & set(BODY):
        lower = []
    taken = {id(it) for it in lower if it.clear or len(clear) > 1}
    return [it for it in found if it.style != "lower" or id(it) in taken]


def _decided(shadow: str, headings: list[Heading]) -> Iterator[Heading]:
    """Leave out parts; make "other" of what ends a section, and of nothing that goes on.

    A line in capitals that is no name we know heads a part where a part follows it, or where it
    comes right behind the heading of findings or impression.
    """
    follows = ""  # the kind of the next heading
    kinds: dict[int, str] = {}
    for place in range(len(headings) - 1, -1, -1):
        heading = headings[place]
        kind = heading.kind
        if kind == "unknown" and (follows == "part" or not heading.clear):
            kind = "part"
        kinds[place] = follows = kind
    opened = False  # right behind a heading of a body, or among the unknown parts that follow it
    last = None
    for place, heading in enumerate(headings):
        kind = kinds[place]
        empty = last is not None and not shadow[last.end : heading.start].strip()
        if kind == "unknown":
            opened = opened or (empty and last is not None and last.kind in BODY)
            if opened:
                kind = "part"
        elif kind != "part":
            opened = False
        if kind not in ("part", "unknown") and (heading.clear or kind != "views"):
            yield replace(heading, kind=kind)
        elif kind == "unknown":
            yield replace(heading, kind="unknown")
        last = heading


# -------------------------------------------------------------------------------------------- tags

_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9]{0,9})(?:[ \t][^<>\n]{0,200})?/?>")
_BOLD = frozenset(("b", "strong", "u", "em", "i", "h1", "h2", "h3", "h4", "h5", "h6"))
_BLOCK = frozenset(("br", "p", "div", "li", "tr", "td", "h1", "h2", "h3", "h4", "h5", "h6"))


def _without_tags(shadow: str) -> str:
    """Return `shadow` with HTML tags as Markdown and space, in as many characters."""
    return _TAG.sub(_tag, shadow) if "<" in shadow else shadow


def _tag(match: re.Match[str]) -> str:
    closing, name = match[1], match[2].lower()
    mark = "**" if name in _BOLD and len(match[0]) > 2 else ""
    line = "\n" if name in _BLOCK else ""
    shown = mark + line if closing else line + mark
    return shown.ljust(len(match[0]))
