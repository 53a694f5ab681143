"""Where the headings of a report are.

They are found with any left margin, in capitals or as a title, numbered, bold or in Markdown, and
in the middle of a line. Re-exports of a corpus strip margins and join lines. Lower-case ones count
where the report uses them so.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from radquant.corpus.heading_names import (
    Declared,
    flat,
    is_plain,
    kind_in_capitals,
    known_kind,
    known_names,
    pairs_of,
    read_capitals,
)
from radquant.settings.corpus import LONGEST_HEADING

BODY = ("findings", "impression", "both", "summary")


class Heading(NamedTuple):
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
    known = known_names(pairs_of(declared or {}))
    shadow = _without_tags(flat(text))
    found = [*_at_line_starts(shadow, known), *_within_lines(shadow, known)]
    found.sort(key=lambda heading: (heading.start, -heading.end))
    apart: list[Heading] = []
    for heading in _without_lower(found):
        if not apart or heading.start >= apart[-1].end:
            apart.append(heading)
    kept = [heading for heading in _ending(shadow, apart) if heading.kind != "part"]
    return _with_space(shadow, kept)


def _with_space(shadow: str, headings: Sequence[Heading]) -> list[Heading]:
    """Take the blank space around each heading into it, and with it the tags there."""
    ends = [0, *(heading.end for heading in headings)]
    begins = [*(heading.start for heading in headings[1:]), len(shadow)]
    grown = []
    for heading, last, following in zip(headings, ends, begins, strict=False):
        start = last + len(shadow[last : heading.start].rstrip())
        end = following - len(shadow[heading.end : following].lstrip())
        grown.append(heading._replace(start=start, end=end))
    return grown


# ------------------------------------------------------------------------------ at a line's start

# What stands before a heading: Markdown, a bullet, quote or rule, an item's number.
_OPEN = re.compile(
    r"[ \t]*(?:(?:[^\w\s(<]{1,20}|(?<!_)_{1,2}(?!_))[ \t]*"
    r"|\(?(?:\d{1,2}|[IVX]{1,4}|[A-Ha-h])[.)](?:[ \t]+|(?=[*_]))){0,4}"
)
_MARKED = re.compile(r"[#*~`'\"\[|]|(?<!_)_{1,2}(?!_)")
# What may close it, behind the colon, which ":-" is, too, and in the next line.
_CLOSE = re.compile(r":(?::|[-\u2013\u2014]+(?=\s|$))?")
_CLOSE_MARK = re.compile(r"[ \t]*(?:[*~`'\"\]|]{1,6}|(?<!_)_{1,2}(?!_))")
_UNDERLINE = re.compile(r"[ \t]*\n[ \t]*(?:[-=~*]{3,}|_{3,9})[ \t]*(?=\n|$)")
_CLOCK = re.compile(r"[0-9_X]:[ ]?(?=[0-9_X])")
# "FINDINGS - Clear.", "FINDINGS; clear", a tab or a gap, where there is no colon.
_GAP = re.compile(
    r"([A-Za-z][A-Za-z /&()]{3,40}?)[ ]*(?:[ ][-\u2013\u2014]+(?=\s)|[-\u2013\u2014]+(?=[ ][A-Z])"
    r"|\t|;|[|=>\]]|\.{2,}|[ ]{2,}(?=[A-Z0-9]))"
)
_TAIL = " \t.:*_#=~`'\"|-\u2013\u2014]"


def _at_line_starts(shadow: str, known: Mapping[str, str]) -> Iterator[Heading]:
    loud = sum(map(shadow.count, "aeiou")) < sum(map(shadow.count, "AEIOU")) / 4
    start = 0
    before = ""  # the line before, "" where there is none
    headed = bare = True  # whether that has a heading, and nothing else
    for line in shadow.split("\n"):
        found = _of_line(line[: 2 * LONGEST_HEADING], len(line), known)
        if found:
            end, kind, style = found
            prose = line.rstrip().endswith(".") or (loud and is_plain(line, known))
            doubtful = prose and end == len(line)
            if doubtful:  # "NO ACUTE", and in the next line "FINDINGS."
                clear = _ends(before) or bare
            elif kind not in ("unknown", "part", "views"):
                clear = (headed or _ends(before)) and not _OPEN_WORD.search(before)
                clear = clear or style == "capitals"
            elif loud:  # where all is in capitals they say little
                clear = not before or not line[end:].strip()
            else:
                clear = headed or not _goes_on(before)
            rule = _UNDERLINE.match(shadow, start + end)
            if clear or not doubtful:
                yield Heading(start, rule.end() if rule else start + end, kind, style, clear)
        bare = found is not None and not line[found[0] :].strip()
        headed, before = bool(found), line[-2 * LONGEST_HEADING :].strip()
        start += len(line) + 1


def _of_line(line: str, length: int, known: Mapping[str, str]) -> tuple[int, str, str] | None:
    """(end, kind, style) of the heading that begins a line; `line` is the start of its `length`."""
    opened = _OPEN.match(line)
    assert opened is not None
    begin = opened.end()
    if begin >= len(line) or not line[begin].isalpha():
        return None
    marked = bool(_MARKED.search(line, 0, begin + 1))
    colon = _colon(line, begin)
    if colon > 0:
        phrase = line[begin:colon].rstrip(_TAIL)
        kind = known_kind(phrase, known)
        if not kind and _colon_ends(line, colon):
            kind = kind_in_capitals(phrase)
        if kind:
            return _end(line, colon, marked), kind, _style(phrase, marked)
    if length <= LONGEST_HEADING:
        phrase = line[begin:].strip(_TAIL)
        style = _style(phrase, marked)
        ends = style == "capitals" or (style == "title" and not line.rstrip().endswith("."))
        if ends and (kind := known_kind(phrase, known)):
            return length, kind, style
    gap = _GAP.match(line, begin)
    if gap and not is_plain(gap[1], known):
        style = _style(gap[1], marked)
        if style != "lower" and (kind := known_kind(gap[1], known)):
            return gap.end(), kind, style
    return None


def _end(line: str, colon: int, marked: bool) -> int:
    """Where the text behind a heading's colon begins."""
    closed = _CLOSE.match(line, colon)
    end = closed.end() if closed else colon + 1
    mark = _CLOSE_MARK.match(line, end) if marked else None
    return mark.end() if mark else end


def _colon(line: str, begin: int) -> int:
    """Where the first colon that is none of a clock time or a ratio stands, else -1."""
    colon = line.find(":", begin, begin + LONGEST_HEADING)
    while colon > 0 and _CLOCK.match(line, colon - 1):
        colon = line.find(":", colon + 1, begin + LONGEST_HEADING)
    return colon


def _colon_ends(line: str, colon: int) -> bool:
    return not line[colon + 1 : colon + 2].strip(" \t*_:-")


def _style(phrase: str, marked: bool) -> str:
    phrase = read_capitals(phrase)
    if phrase == phrase.upper():
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

_IN_CAPITALS = re.compile(
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
_JOINT = re.compile(r"[ ]+(?:[/&,+-][ ]*)?")
_POINTED = re.compile(
    r"\b(?:see|the|this|these|that|under|per|our|my|his|her|above|following|and|or)$", re.IGNORECASE
)


def _within_lines(shadow: str, known: Mapping[str, str]) -> Iterator[Heading]:
    for match in _IN_CAPITALS.finditer(shadow):
        found = _last_known(match[1], known)
        if found and not _CLOCK.match(shadow, match.end() - 2):
            kind, offset = found
            begin = match.start() + offset
            before = shadow[max(0, begin - 40) : begin].rstrip(" \t")
            plain = is_plain(match[1][offset:], known)
            if not _POINTED.search(before) and (_ends(before) or not plain):
                yield Heading(begin, match.end(), kind)
    for match in _AFTER_SENTENCE.finditer(shadow):
        title = known_kind(match[1], known)
        if title and title != "other" and not is_plain(match[1], known):
            yield Heading(match.start(1), match.end(), title, _style(match[1], False))
    for match in _BOLD_NAME.finditer(shadow):
        title = known_kind(match[2], known)
        if title:
            yield Heading(match.start(), match.end(), title, "title")


def _last_known(phrase: str, known: Mapping[str, str]) -> tuple[str, int] | None:
    """The kind of the longest end of a phrase in capitals that is a heading, and its place."""
    for start in [0, *(match.end() for match in _JOINT.finditer(phrase))]:
        kind = known_kind(phrase[start:], known)
        if kind:
            return kind, start
    return None


# --------------------------------------------------------------------------------- which ones count


def _without_lower(found: Sequence[Heading]) -> list[Heading]:
    """Leave out lower-case headings, unless the report uses them so.

    One of findings or impression must begin where nothing goes on, and no section may have a
    heading of its own in another style.
    """
    other = {heading.kind for heading in found if heading.style != "lower"}
    clear = {it.kind for it in found if it.style == "lower" and it.clear} - other
    used = clear - other if clear & set(BODY) else set()

    def counts(heading: Heading) -> bool:
        return heading.kind not in other and bool(used) and (heading.clear or len(used) > 1)

    return [heading for heading in found if heading.style != "lower" or counts(heading)]


def _ending(shadow: str, headings: Sequence[Heading]) -> list[Heading]:
    """Return the headings, those that end no section as parts.

    Words in capitals that are no name may head a part. They do where a sentence goes on in them, or
    where a part follows. They also do where nothing stands between them and the heading of findings
    or impression. Those that follow then head parts, too.
    """
    kinds = [heading.kind for heading in headings]
    for place in range(len(kinds) - 1, -1, -1):
        unclear = not headings[place].clear and kinds[place] in ("unknown", "views")
        if unclear or (kinds[place] == "unknown" and kinds[place + 1 : place + 2] == ["part"]):
            kinds[place] = "part"
    parted = False
    for place in range(1, len(kinds)):
        last = headings[place - 1]
        empty = not shadow[last.end : headings[place].start].strip()
        if kinds[place] == "unknown":
            parted = parted or (empty and kinds[place - 1] in BODY)
            kinds[place] = "part" if parted else "unknown"
        elif kinds[place] != "part":
            parted = False
    return [it._replace(kind=kind) for it, kind in zip(headings, kinds, strict=True)]


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
