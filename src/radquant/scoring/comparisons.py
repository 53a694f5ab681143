"""Which findings a text compares with an earlier examination, and how they have changed since."""

import re
from collections.abc import Sequence
from typing import Any

from radquant.scoring.finding_terms import CANONICAL
from radquant.scoring.findings import ABSENT, Mention, mentions
from radquant.scoring.spans import Span, sentence_at, sentences

Record = dict[str, Any]
Claim = tuple[str, str]  # finding, course; "" for the finding where it stands at none

WORSE, BETTER, SAME, COMPARED = "worse", "better", "same", "compared"
COURSES = (WORSE, BETTER, SAME)

_PRIOR = r"(?:prior|previous|earlier|last)"
# Findings that can have grown only since a point in time; "increased markings" is a state.
_GROWS = (
    r"(?:effusions?|o?edema|pneumothora\w+|consolidations?|atelectasis|cardiomegaly|nodules?"
    r"|mass(?:es)?|infiltrates?|pneumonia)\b"
)
_NOT = r"\b(?:no|not|without|never)\s+(?:\w+\s+){0,3}?"
# The order counts, as words that one pattern has taken are not looked at by the next.
_PATTERNS = {
    SAME: r"\bunchanged\b"
    r"|\b(?:no|not|without)\s+(?:(?!acute\b)\w+\s+){0,3}?chang(?:e[ds]?|ing)\b"
    rf"|\bstabl[ey]\b|\bagain\b|\bpersist(?:s|ed|ent|ently|ing|ence)?\b|\bremain(?:s|ed|ing)?\b"
    rf"|\bsimilar\s+(?:to|in)\b|\bstability\b"
    rf"|{_NOT}(?:improv\w+|worsen\w*|worse|progress\w*|(?:in|de)creas(?:e|ed|ing)\b)",
    BETTER: rf"\bimprov(?:ed|ing|es|ement)\b|\bresol(?:ved|ving|ution)\b|\bno\s+longer\b"
    rf"|\bdecreasing\b|\bdecreased?\s+(?:in\s+size|since|from|compared)\b|\bclearing\b"
    rf"|\b(?:has|have)\s+(?:\w+\s+)?(?:decreased|cleared|diminished)\b|\bre-?expan(?:ded|sion)\b"
    rf"|\binterval\s+(?:\w+\s+)?(?:decrease|reduction|clearance|removal)\b"
    rf"|\b(?:decreased?(?:\s+in)?|diminished|smaller)\s+(?:\w+\s+){{0,3}}?{_GROWS}"
    rf"|\bdecreased?\s+(?:in\s+)?(?:the\s+)?size\b"
    r"|\b(?:shrunk(?:en)?|shrink(?:ing|age)|regress(?:ed|ing|ion))\b"
    r"|\b(?:is|are)\s+(?:\w+\s+)?smaller\b(?!\s+(?:on|than)\b)"
    rf"|\bnow\s+(?:\w+\s+)?smaller\b|\bsmaller\s+(?:compared|since|than\s+(?:before|{_PRIOR}))",
    WORSE: rf"\bworse(?:n(?:ed|ing|s)?)?\b(?!\s+(?:on|in|at)\b)|\bprogress(?:ed|ion|ing|ive)\b"
    rf"|\bincreasing\b|\bincreased?\s+(?:in\s+size|since|from|compared)\b|\benlarging\b"
    rf"|\b(?:has|have)\s+(?:\w+\s+)?(?:increased|enlarged|progressed|developed)\b"
    rf"|\binterval\s+(?:\w+\s+)?(?:increase|progression|enlargement|development|placement)\b"
    rf"|\b(?:increased?(?:\s+in)?|larger)\s+(?:\w+\s+){{0,3}}?{_GROWS}"
    rf"|\bincreased?\s+(?:in\s+)?(?:the\s+)?size\b"
    r"|\bgrow(?:n|ing|th)\b|\b(?:is|are)\s+(?:\w+\s+)?larger\b(?!\s+(?:on|than)\b)"
    rf"|\bnow\s+(?:\w+\s+)?larger\b|\blarger\s+(?:compared|since|than\s+(?:before|{_PRIOR}))"
    r"|\bnew(?:ly)?\b",
    COMPARED: rf"(?<!no )(?<!without )\b{_PRIOR}\s+(?:\w+\s+){{0,3}}?(?:exam\w*|stud(?:y|ies)"
    rf"|films?|radiographs?|x-?rays?|images?|ct|scans?)\b|\bcompar(?:ed|ison)\s+(?:to|with)\b"
    rf"|\bpreviously\b(?!\s+(?:healthy|well))|\binterval\b(?!\s+follow)",
}
_COURSE = {name: re.compile(pattern, re.IGNORECASE) for name, pattern in _PATTERNS.items()}
_ADVICE = re.compile(
    r"\b(?:recommend\w*|advis\w+|if\s+available|helpful|suggested|consider|should"
    r"|follow(?:ed)?\W?up\s+(?:to|until))\b",
    re.IGNORECASE,
)


def comparisons(record: Record, text: str) -> tuple[set[Claim], set[Claim]]:
    """Return what a text surely claims and what it may claim, as (finding, course) each.

    A word of change belongs to the finding nearest to it in its sentence. Where the sentence has
    one course alone, it may mean each finding there ("edema and effusion have worsened"). Advice
    claims nothing, and nor does what is new, grown or unchanged about a finding that is denied.
    """
    bounds = sentences(text)
    claims = {place: found for place, span in enumerate(bounds) if (found := _courses(text, span))}
    if not claims:
        return set(), set()
    stated: dict[int, list[Mention]] = {}
    for mention in mentions(record, text):
        if mention.span is not None and not is_change(mention.finding):
            stated.setdefault(sentence_at(bounds, mention.span[0]), []).append(mention)
    sure: set[Claim] = set()
    maybe: set[Claim] = set()
    for place, found in claims.items():
        here = stated.get(place, [])
        own = (_claim(course, span, here) for course, span in found)
        sure |= {claim for claim in own if claim is not None}
        if len({course for course, _ in found}) == 1:
            maybe |= {(m.finding, found[0][0]) for m in here}
    # "Persistent, but improved" has changed.
    changed = {finding for finding, course in sure if course in (BETTER, WORSE)}
    lesser = {(finding, course) for finding in changed for course in (SAME, COMPARED)}
    return sure - lesser, sure | maybe


def is_change(finding: str) -> bool:
    """Say whether what an annotator took for a finding of its own is a word of change."""
    return finding not in CANONICAL and any(pattern.search(finding) for pattern in _COURSE.values())


def _courses(text: str, bounds: Span) -> list[tuple[str, Span]]:
    """Return each course of a sentence with its place in the text; COMPARED only by itself."""
    start, end = bounds
    left = text[start:end]
    if _ADVICE.search(left):
        return []
    found: list[tuple[str, Span]] = []
    for course, pattern in _COURSE.items():
        if course == COMPARED and found:
            break
        own = list(pattern.finditer(left))
        found += [(course, (start + match.start(), start + match.end())) for match in own]
        if own:
            left = pattern.sub(lambda match: "\0" * len(match[0]), left)
    return found


def _claim(course: str, span: Span, here: Sequence[Mention]) -> Claim | None:
    """The claim of a word of change at `span`, None where its finding is denied."""
    if not here:
        return "", course
    nearest = min(here, key=lambda m: (_distance(m.span, span), m.finding))
    if nearest.status == ABSENT and course in (WORSE, SAME):
        return None
    return nearest.finding, course


def _distance(one: Span | None, other: Span) -> int:
    assert one is not None
    return max(one[0] - other[1], other[0] - one[1])
