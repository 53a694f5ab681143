"""Finding the sections of a radiology report written as one text.

The sections are returned as they stand, without the blank space around them and characters that
nobody sees. Cleaning is another step, and needs the line breaks.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from radquant.corpus.cleaning import INVISIBLE, is_cut
from radquant.corpus.heading_names import Declared
from radquant.corpus.headings import BODY, Heading, find_headings

# Sections that come before the body, so an unlabelled body may hang on to their end.
HEADER = ("", "indication", "comparison", "technique")
# Headings that name the body of a report that has no heading of findings.
_NAMES_BODY = ("views", "report")

_MARKER = re.compile(
    r"(?P<rule>_{10,})"
    r"|(?<![A-Za-z])(?P<final>FINAL REPORT\b|^[ \t]*Final [Rr]eport(?=[ \t]*(?::|$)))"
    r"|(?<![A-Za-z])(?P<wet>(?:WET[ -]?READ|^[ \t]*Wet [Rr]ead(?=[ \t]*:))"
    r"(?: VERSION #?\d+)?\b[ \t]*:?"
    r"(?:[_\d/: \t]{1,40}[AaPp]\.?[Mm]\b)?)"  # who read it and when
    r"|(?<![A-Za-z])(?P<preliminary>PRELIMINARY (?:REPORT|READ)\b[ \t]*:?"
    r"|^[ \t]*Preliminary (?:[Rr]eport|[Rr]ead)[ \t]*:)"
    r"|(?<![A-Za-z])(?P<addendum>(?:FINAL[ ])?ADDENDUM[ \t]*:|^[ \t]*Addendum[ \t]*:"
    r"|^[ \t]*(?:FINAL[ ])?ADDENDUM\b(?![ \t]+(?:WILL|MAY|CAN|IS|WAS|TO)\b))",
    re.MULTILINE,
)
# Which reading counts where a text holds several; unmarked text is a report without a marker.
READINGS = ("final", "unmarked", "preliminary", "wet", "addendum")


_WITH_BODY = ("final", "unmarked", "preliminary")


@dataclass
class Sections:
    """The sections of one report, '' where absent, with their line breaks."""

    findings: str = ""
    impression: str = ""
    indication: str = ""
    comparison: str = ""


def find_sections(text: str, headings: Declared | None = None) -> Sections:
    """Return the sections of a report.

    headings: names of a user's own for a kind of section, beside the usual ones.

    A text may hold a wet read, a final report and addenda. The sections come from the final report,
    else from text without such a marker, else from the wet read. They come from an addendum only if
    there is nothing else. Where a heading comes twice the last one with text wins. What stands
    under a heading of both ("FINDINGS/IMPRESSION:") is findings and impression, unless one of them
    has a heading of its own.

    Without a findings heading, the findings are the unlabelled paragraphs after the header
    sections. Or they are the section named by a heading of views ("CHEST, TWO VIEWS:"). Paragraphs
    that only tell of technique, comparison or who was told are not. What a wet read or an addendum
    says without a heading is no findings of a report.
    """
    readings = split_readings(_visible(text))
    candidates = [
        _sections(readings[name], headings, name in _WITH_BODY)
        for name in READINGS
        if readings.get(name, "").strip()
    ]
    with_heading = [found for found, labelled in candidates if labelled]
    return (with_heading or [found for found, _ in candidates] or [Sections()])[0]


_LINE_END = re.compile("\r\n|[\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_ACCENTED = re.compile("[A-Za-z][\u0300-\u036f]+")


def _visible(text: str) -> str:
    """Return `text` with plain line breaks, accents in their letters, and nothing invisible."""
    text = INVISIBLE.sub("", _LINE_END.sub("\n", text))
    return _ACCENTED.sub(lambda match: unicodedata.normalize("NFC", match[0]), text)


def split_readings(text: str) -> dict[str, str]:
    """Return the text of each reading in `text`, by the names in `READINGS`."""
    readings: dict[str, list[str]] = {}
    current, start = "unmarked", 0
    for match in _MARKER.finditer(text):
        kind = str(match.lastgroup)
        readings.setdefault(current, []).append(text[start : match.start()])
        if kind != "rule":
            current = kind
        elif current != "final":  # a ruled line ends every other reading
            current = "final" if "final" in readings else "unmarked"
        start = match.end()
    readings.setdefault(current, []).append(text[start:])
    return {name: "\n".join(parts) for name, parts in readings.items()}


def _sections(text: str, declared: Declared | None, with_body: bool) -> tuple[Sections, bool]:
    """Return the sections of one reading and whether it labels findings or impression.

    with_body: whether what has no heading may be the findings.
    """
    headings = find_headings(text, declared)
    parts = _split(text, headings)
    found = _named(parts)
    labelled = bool({"findings", "impression"} & found.keys())
    if with_body and "findings" not in found:
        found.update(_body_without_heading(text, headings, parts))
    names = ("findings", "impression", "indication", "comparison")
    return Sections(**{name: found.get(name, "") for name in names}), labelled


def _named(parts: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return the sections by name; where one comes twice, the last that has text."""
    found = {name: body.strip() for name, body in parts if name and body.strip()}
    if "summary" in found:
        found.setdefault("impression", found["summary"])
    if "both" in found:
        found.setdefault("findings", found["both"])
        if not is_cut(found["both"]):  # else the impression, which comes last, is not there
            found.setdefault("impression", found["both"])
    return found


def _split(
    text: str, headings: Sequence[Heading], views_in_impression: bool = False
) -> list[tuple[str, str]]:
    """Return (kind of section, its text) in order; "" is what precedes the first heading.

    A heading of views stays in a section of findings or impression, and in one of views that has
    text already. views_in_impression: whether it ends an impression that has text.
    """
    parts: list[tuple[str, str]] = []
    name, start, looked = "", 0, 0
    written = said = False  # whether the section has text so far, and some that says something
    for heading in headings:
        if heading.kind in _NAMES_BODY:
            text_since = text[looked : heading.start].strip()
            written = written or bool(text_since)
            said = said or _says_something(text_since)
            looked = heading.start
            stays = name in (*BODY, "other") or (name in _NAMES_BODY and said)
            if stays and not (views_in_impression and name == "impression" and written):
                continue
        parts.append((name, text[start : heading.start]))
        name, start, looked = heading.kind, heading.end, heading.end
        written = said = False
    return [*parts, (name, text[start:])]


def _says_something(body: str) -> bool:
    return bool(body) and not is_boilerplate(body)


def _body_without_heading(
    text: str, headings: Sequence[Heading], parts: Sequence[tuple[str, str]]
) -> dict[str, str]:
    """Return the findings of a report that has no heading for them, and what that changes."""
    under_views = _under_views(parts)
    if under_views:
        return {"findings": under_views}
    found = _unlabelled(parts)
    if found:
        return found
    parts = _split(text, headings, views_in_impression=True)
    under_views = _under_views(parts)
    return {**_named(parts), "findings": under_views} if under_views else {}


def _under_views(parts: Sequence[tuple[str, str]]) -> str:
    bodies = [body.strip() for name, body in parts if name in _NAMES_BODY]
    return next((body for body in reversed(bodies) if _says_something(body)), "")


def _unlabelled(parts: Sequence[tuple[str, str]]) -> dict[str, str]:
    trimmed: dict[str, str] = {}
    body: list[str] = []
    headed = False  # whether the impression has come
    for name, section in parts:
        headed = headed or name in BODY
        if name not in HEADER and (name != "unknown" or headed):
            continue
        paragraphs = [part for part in re.split(r"\n[ \t]*(?=\n)", section) if part.strip()]
        own = 1 if name else 0
        prose = [part.strip("\n") for part in paragraphs[own:] if not is_boilerplate(part)]
        if prose and name:
            trimmed[name] = paragraphs[0].strip()
        body += prose
    return {**trimmed, "findings": "\n\n".join(body).strip()} if body else {}


_LABEL = re.compile(r"^[a-z]+: +")
_OBTAINED = re.compile(
    r"\b(?:obtained|performed|acquired|submitted|provided|reviewed|available|presented|dated)\b"
)
_IMAGE = re.compile(r"\b(?:views?|radiographs?|films?|images?|study|studies|exam(?:ination)?s?)\b")
_COMPARED = re.compile(r"(?:in |as )?(?:comparison|comparisons|compared)\b[^,;]*")
_NO_PRIOR = re.compile(r"(?:none|no|there (?:is|are) no)\b.*\b(?:comparisons?|prior|previous)\b")
_TOLD = re.compile(
    r"\b(?:dictated|electronically signed|telephone|was notified|was paged|by phone)\b"
    r"|\b(?:discussed|communicated|conveyed|relayed)\b.*\b(?:with|to|by)\b"
)
_VIEW_TEXT = (
    "a an the of and with in on at from to is are was were dated single two three one portable "
    "frontal lateral ap pa upright supine semi semierect erect chest plain view views radiograph "
    "radiographs film films x ray rays xray image images study studies examination exam bedside "
    "comparison compared prior previous earlier most recent made obtained performed submitted "
    "provided available reviewed am pm a.m p.m m hours hrs none no upper through"
)
_VIEW_WORDS = frozenset(_VIEW_TEXT.split())


def is_boilerplate(paragraph: str) -> bool:
    """Say whether a paragraph holds nothing but technique, comparison, or who was told.

    A single word is no paragraph of a report either.
    """
    if len(paragraph.split()) < 2:
        return True
    sentences = re.split(r"[.!?](?:\s+|$)", paragraph.lower().replace("\n", " "))
    return all(_is_boilerplate_sentence(sentence.strip()) for sentence in sentences)


def _is_boilerplate_sentence(sentence: str) -> bool:
    unlabelled = _LABEL.sub("", sentence) if _IMAGE.search(sentence) else sentence
    words = [word.rstrip(".") for word in re.findall(r"[a-z][a-z.]*", unlabelled)]
    if all(word in _VIEW_WORDS or not word.strip("x") for word in words):
        return True
    if len(words) > 30:
        return False
    image = _IMAGE.search(sentence)
    return bool(
        (image and _OBTAINED.search(sentence, image.end()))
        or _COMPARED.fullmatch(sentence)
        or _NO_PRIOR.match(sentence)
        or _TOLD.search(sentence)
    )
