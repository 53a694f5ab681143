"""Finding the sections of a radiology report written as one text.

The sections are returned as they stand, untouched but for the blank space around them: cleaning is
another step, and needs the line breaks.

Headings are taken from the MIMIC-CXR code repository's section parser (Johnson et al., 2019), but
are found with any left margin, in capitals or as a title, and in the middle of a line, because
re-exports of the corpus strip margins and join lines.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_HEADINGS = {
    "findings": "FINDINGS | FINDING | FINDINGS AND IMPRESSION | FINDINGS/IMPRESSION"
    " | FINDINGS / IMPRESSION | FINDINGS & IMPRESSION | IMPRESSION AND FINDINGS",
    "impression": "IMPRESSION | IMPRESSIONS | IMPRESSON | IMPRESION | CONCLUSION | CONCLUSIONS"
    " | OPINION | SUMMARY",
    "indication": "INDICATION | INDICATIONS | CLINICAL INDICATION | HISTORY | CLINICAL HISTORY"
    " | PATIENT HISTORY | CLINICAL INFORMATION | CLINICAL INFO | REASON FOR EXAM"
    " | REASON FOR EXAMINATION | REASON FOR THE EXAM | REASON FOR STUDY",
    "comparison": "COMPARISON | COMPARISONS | COMPARISON STUDY | REFERENCE EXAM",
    "technique": "TECHNIQUE | EXAMINATION | EXAM | EXAM TYPE | STUDY | PROCEDURE | VIEWS",
    "other": "NOTIFICATION | NOTIFICATIONS | RECOMMENDATION | RECOMMENDATIONS | SIGNED BY"
    " | RADIATION DOSE | DOSE | DICTATED BY | ATTENDING | CRITICAL RESULT",
}
NAMES = {name: section for section, names in _HEADINGS.items() for name in names.split(" | ")}
# Sections that come before the body, so an unlabelled body may hang on to their end.
HEADER = ("", "indication", "comparison", "technique")

_longest_first = sorted(NAMES, key=len, reverse=True)
_ALL = "|".join(re.escape(name).replace(r"\ ", "[ ]") for name in _longest_first)
_MAIN = r"FINDINGS?|IMPRESSIONS?|INDICATION|COMPARISON|TECHNIQUE"
_HEADING = re.compile(
    # At a line's start: any heading, capitals or title, with a colon or alone on its line.
    rf"^[ \t]*(?P<line>(?=[A-Z])(?i:{_ALL}))[ \t]*(?::|$)"
    # Within a line: any heading in capitals, the main ones also as a title after a full stop.
    rf"|(?<![A-Za-z/&])(?P<inline>{_ALL})[ \t]*:"
    rf"|(?<=[.:;\]_] )(?P<title>(?=[A-Z])(?i:{_MAIN}))[ \t]*:",
    re.MULTILINE,
)
# "PA AND LATERAL VIEWS OF THE CHEST:" names the body where no heading does.
_VIEW_HEADING = re.compile(r"^[ \t]*([A-Z][A-Z0-9 ,/()&.-]{3,80}):", re.MULTILINE)
_VIEW_WORD = re.compile(r"\b(?:CHEST|RADIOGRAPHS?|VIEWS?|FILMS?|X-?RAYS?)\b")
_MARKER = re.compile(
    r"(?P<rule>_{10,})"
    r"|(?<![A-Za-z])(?P<final>FINAL REPORT\b)"
    r"|(?<![A-Za-z])(?P<wet>WET READ(?: VERSION #?\d+)?\b[ \t]*:?"
    r"(?:[_\d/: \t]{1,40}[AaPp]\.?[Mm]\b)?)"  # who read it and when
    r"|(?<![A-Za-z])(?P<preliminary>PRELIMINARY (?:REPORT|READ)\b[ \t]*:?)"
    r"|(?<![A-Za-z])(?P<addendum>(?:FINAL[ ])?ADDENDUM\b[ \t]*:?)"
)
# Which reading counts where a text holds several; unmarked text is a report without a marker.
READINGS = ("final", "unmarked", "preliminary", "wet", "addendum")


@dataclass
class Sections:
    """The sections of one report, '' where absent, with their line breaks."""

    findings: str = ""
    impression: str = ""
    indication: str = ""
    comparison: str = ""


def find_sections(text: str) -> Sections:
    """Return the sections of a report.

    A wet read, a final report and addenda in one text are three things: the sections come from the
    final report, else from text without such a marker, else from the wet read, and never from an
    addendum unless there is nothing else. Where a heading comes twice the last one with text wins.

    Without a findings heading, the unlabelled paragraphs after the header sections are the
    findings, or the section named by a heading of views ("CHEST, TWO VIEWS:"); paragraphs that only
    tell of technique, comparison or who was told are not.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    readings = split_readings(text)
    candidates = [_sections(readings[name]) for name in READINGS if readings.get(name, "").strip()]
    with_heading = [found for found, labelled in candidates if labelled]
    return (with_heading or [found for found, _ in candidates] or [Sections()])[0]


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


def _sections(text: str) -> tuple[Sections, bool]:
    """Return the sections of one reading and whether it labels findings or impression."""
    parts = list(_split(text))
    found: dict[str, str] = {}
    for name, body in parts:
        if name and body.strip():
            found[name] = body.strip()
    labelled = "findings" in found or "impression" in found
    if "findings" not in found:
        found.update(_body_without_heading(text, parts))
    names = ("findings", "impression", "indication", "comparison")
    return Sections(**{name: found.get(name, "") for name in names}), labelled


def _split(text: str, views: bool = False) -> Iterator[tuple[str, str]]:
    """Yield (section name, its text); '' names what precedes the first heading."""
    headings = [
        (match.start(), match.end(), NAMES[str(match[str(match.lastgroup)]).upper()])
        for match in _HEADING.finditer(text)
    ]
    if views:
        taken = {start for start, _, _ in headings}
        headings += [
            (match.start(), match.end(), "findings")
            for match in _VIEW_HEADING.finditer(text)
            if match.start() not in taken and _VIEW_WORD.search(match[1])
        ]
        headings.sort()
    name, start = "", 0
    for heading_start, heading_end, heading in headings:
        if heading_start < start:  # a heading of views that holds another heading
            continue
        yield name, text[start:heading_start]
        name, start = heading, heading_end
    yield name, text[start:]


def _body_without_heading(text: str, parts: list[tuple[str, str]]) -> dict[str, str]:
    by_view = [body.strip() for name, body in _split(text, views=True) if name == "findings"]
    by_view = [body for body in by_view if body and not is_boilerplate(body)]
    if by_view:
        return {"findings": by_view[-1]}
    trimmed: dict[str, str] = {}
    body: list[str] = []
    for name, section in parts:
        if name not in HEADER:
            continue
        paragraphs = [part for part in re.split(r"\n[ \t]*(?=\n)", section) if part.strip()]
        own = 1 if name else 0
        prose = [part.strip("\n") for part in paragraphs[own:] if not is_boilerplate(part)]
        if prose and name:
            trimmed[name] = paragraphs[0].strip()
        body += prose
    return {**trimmed, "findings": "\n\n".join(body).strip()} if body else {}


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
    "provided available reviewed am pm a.m p.m none no"
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
    words = re.findall(r"[a-z][a-z.]*", sentence)
    if all(word in _VIEW_WORDS for word in words):
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
