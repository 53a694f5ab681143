"""What a sentence says of each of the findings in it: place, course, misplacement, tension."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from radquant.scoring.courses import courses
from radquant.scoring.devices import DEVICES, misplaced
from radquant.scoring.places import ON_BONES, bones, zones


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


_TENSION = re.compile(r"\btension\b")
_NO_TENSION = re.compile(r"\b(?:no|without|not|absen\w+)\W+(?:\w+\W+){0,5}?tension\b")
_JOINT = re.compile(r",|/|&|\b(?:and|with|or|while|whereas|but)\b")
# A predicate further away, in characters, is not looked for: a bound keeps the time linear.
NEAR = 120
# Between two findings of which one predicate is said: "effusion and left atelectasis".
_JOINED = re.compile(r"\W*(?:and|or|,|/|&)\W*(?:(?!is\b|are\b|has\b|have\b|with\b)\w+\W+){0,3}")


def read(sentence: str, mentions: Sequence[Said], following: str = "") -> None:
    """Fill in what `sentence`, in lower case, says of `mentions`, which are ordered by place.

    A sentence about a single finding is about it as a whole; of several, each has the words that
    are related to it. `following` goes on about the last device.
    """
    alone = len({mention.finding for mention in mentions}) == 1
    known: dict[tuple[str, str], tuple[set[str], set[str]]] = {}  # each text is read once
    tension = bool(_TENSION.search(_NO_TENSION.sub(" ", sentence)))
    for mention in mentions:
        key = (mention.finding, sentence if alone else mention.related)
        if key not in known:
            known[key] = _places(*key), courses(key[1], mention.finding)
        mention.places, mention.course = known[key]
        mention.tension = tension and mention.finding == "pneumothorax"
    if not alone:
        _share_predicate(sentence, mentions)
    _devices(sentence, [m for m in mentions if m.finding in DEVICES], following)


def _places(finding: str, text: str) -> set[str]:
    if finding in ON_BONES:
        return bones(text)
    return set() if finding in DEVICES else zones(text)


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
