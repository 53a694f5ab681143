"""What a sentence says of each of the findings in it: place, course, misplacement, tension."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from radquant.scoring.courses import courses
from radquant.scoring.devices import DEVICES, misplaced
from radquant.scoring.finding_terms import CANONICAL
from radquant.scoring.places import NOT_IN_LUNG, ON_BONES, bones, zone_lists, zones


@dataclass
class Said:
    """A mention of a finding in a sentence: where it stands there, and the words related to it."""

    finding: str
    start: int
    end: int
    related: str  # what modifies it and where it is, in the text's order, lower case
    places: set[str] = field(default_factory=set)
    course: set[str] = field(default_factory=set)
    misplaced: bool = False
    tension: bool = False
    words: Sequence[str] = ()  # of a sentence that is about it alone, in which its degree may be


_TENSION = re.compile(r"\btension\b")
_NO_TENSION = re.compile(r"\b(?:no|without|not|absen\w+)\W+(?:\w+\W+){0,5}?tension\b")
_JOINT = re.compile(r",|/|&|\b(?:and|with|or|while|whereas|but)\b")
# A predicate further away, in characters, is not looked for: a bound keeps the time linear.
NEAR = 120
# Between two findings of which one predicate is said: "effusion and left atelectasis".
_JOINED = re.compile(r"\W*(?:and|or|,|/|&)\W*(?:(?!is\b|are\b|has\b|have\b|with\b)\w+\W+){0,3}")


def read(sentence: str, mentions: Sequence[Said], following: str = "") -> None:
    """Fill in what `sentence`, in lower case, says of `mentions`, which are ordered by place.

    A sentence about a single finding is about it as a whole, and each mention has the words up to
    the joint before the next. In a sentence about several, each has the words that are related to
    it. What no list knows does not count as one. `following` goes on about the last device.
    """
    findings = {mention.finding for mention in mentions}
    known = findings.intersection(CANONICAL) or findings
    alone = len(known) == 1
    places = _Places(sentence, known)
    texts = _parts(sentence, mentions) if alone else [mention.related for mention in mentions]
    # Each text is read once for a finding. Mentions may share one. It is found by its identity,
    # since hashing a long text for each of its mentions would take time with the square of its
    # length.
    done: dict[tuple[str, int], tuple[set[str], set[str]]] = {}
    tension = bool(_TENSION.search(_NO_TENSION.sub(" ", sentence)))
    words = re.findall(r"\w+", sentence) if alone and len(mentions) == 1 else ()
    for mention, text in zip(mentions, texts, strict=True):
        mention.words = words
        key = (mention.finding, id(text))
        if key not in done:
            done[key] = courses(text, mention.finding), places.of(mention.finding, text)
        mention.course, mention.places = done[key]
        mention.tension = tension and mention.finding == "pneumothorax"
    _share_predicate(sentence, mentions)
    _devices(sentence, [m for m in mentions if m.finding in DEVICES], following)


class _Places:
    """The places that a sentence names, each read once, and whose they are."""

    def __init__(self, sentence: str, findings: Collection[str]) -> None:
        self.listed: dict[str, set[str]] = {}  # each label: what is listed with it
        for labels in zone_lists(sentence):
            for label in labels:
                self.listed.setdefault(label, set()).update(labels)
        self.zones, self.bones = set(self.listed), bones(sentence)
        self.alone = len(findings) == 1
        self.one_in_lung = len(set(findings) - NOT_IN_LUNG) == 1

    def of(self, finding: str, text: str) -> set[str]:
        """Its own words, with what they are listed with; those of the sentence if it has none."""
        if finding in ON_BONES:
            own = bones(text)
            return own if self.alone else own or self.bones
        if finding in NOT_IN_LUNG:
            return set()
        own = zones(text)
        if self.alone:
            return own
        if self.one_in_lung and not own:
            return self.zones
        return own.union(*(self.listed.get(label, ()) for label in own))


def _parts(sentence: str, mentions: Sequence[Said]) -> list[str]:
    """Return the words of each mention: up to the last joint before the next one, if there is any.

    Mentions with no joint between them have the same: "airspace opacities".
    """
    bounds, firsts = [0], [0]
    for before, here in pairwise(mentions):
        joints = list(_JOINT.finditer(sentence, before.end, max(before.end, here.start)))
        if joints:
            bounds.append(joints[-1].start())
        firsts.append(len(bounds) - 1)
    bounds.append(len(sentence))
    parts = [sentence[start:end] for start, end in pairwise(bounds)]
    return [parts[first] for first in firsts]


def _share_predicate(sentence: str, mentions: Sequence[Said]) -> None:
    """Give a course to what is joined to the finding before it: "A and B have increased"."""
    end = len(sentence)
    for index in range(len(mentions) - 1, 0, -1):
        here, before = mentions[index], mentions[index - 1]
        joined = _are_joined(sentence, before, here)
        if joined and here.course and not before.course:
            after = courses(sentence[here.end : min(end, here.end + NEAR)], before.finding)
            if after:
                before.course = after
        if not joined:
            end = here.start


def _are_joined(sentence: str, before: Said, here: Said) -> bool:
    near = here.start - before.end < NEAR
    return near and bool(_JOINED.fullmatch(sentence[before.end : here.start]))


def _devices(sentence: str, devices: Sequence[Said], following: str) -> None:
    """Find the misplaced ones: each device has the words up to the joint before the next one."""
    first = 0
    for index, device in enumerate(devices):
        last = len(sentence)
        if index + 1 < len(devices):
            gap = sentence[device.end : devices[index + 1].start]
            joints = list(_JOINT.finditer(gap))
            last = device.end + (joints[-1].start() if joints else len(gap))
        text = sentence[first:last]
        first = last
        if index + 1 == len(devices):
            text = f"{text} {following}"
        device.misplaced = misplaced(text, device.finding)
    for before, here in reversed(list(pairwise(devices))):
        if here.misplaced and _are_joined(sentence, before, here):
            before.misplaced = misplaced(sentence[here.end :], before.finding) or before.misplaced
