"""Which findings a text states, read from its annotation in RadGraph's schema.

Annotators mark words; a finding is what the words mean: "heart size is enlarged" and
"cardiomegaly" are one. Both annotators' labels are read, those of the first RadGraph too.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from radquant.scoring.attributes import Said, read
from radquant.scoring.devices import CONTINUES, DEVICES
from radquant.scoring.finding_names import finding_of
from radquant.scoring.lexicon_spelling import correct
from radquant.scoring.spans import Span, sentence_at, sentences, spans

Record = dict[str, Any]

PRESENT, UNCERTAIN, ABSENT = "present", "uncertain", "absent"
# A finding that is mentioned several times gets the first of these statuses that one of its
# mentions has.
STATUSES = (PRESENT, UNCERTAIN, ABSENT)
LABELS = {
    "Observation::definitely present": PRESENT,
    "OBS-DP": PRESENT,
    "Observation::uncertain": UNCERTAIN,
    "OBS-U": UNCERTAIN,
    "Observation::definitely absent": ABSENT,
    "OBS-DA": ABSENT,
}

_SIDES = {
    **dict.fromkeys(("left", "leftward", "leftsided", "lll", "lul", "lingula", "lingular"), "left"),
    **dict.fromkeys(("right", "rightward", "rightsided", "rll", "rml", "rul"), "right"),
    **dict.fromkeys(
        ("bilateral", "bilaterally", "both", "bibasilar", "bibasal", "biapical", "bibasally"),
        "bilateral",
    ),
}
_CHAMBER = re.compile(r"\b(?:atri|ventric)")
# "right greater than left", "right lower lobe and left lower lobe": relations name one of them.
# Bounds on what is repeated keep the time linear in texts that are nothing but commas or blanks.
_APART = r"\W{1,8}"
_BOTH_SIDES = re.compile(
    rf"\b(?:left|right){_APART}"
    rf"(?:(?:\w+{_APART})?(?:greater|larger|worse|more|bigger){_APART}(?:\w+{_APART})?than{_APART}"
    rf"|(?:(?:sided|upper|lower|middle|mid|lobes?|lungs?|base|basilar|basal|apex|apical){_APART})"
    rf"{{0,3}}(?:and|or|,){_APART})(?:(?:in|at|of|within){_APART})?(?:the{_APART})?(?:left|right|lingula\w*)\b"
    r"|\b(?:bilateral|bibasilar|bibasal|biapical)\b"
)
_SEVERITIES = {
    word: degree
    for degree, words in {
        "mild": "mild mildly small minimal minimally tiny trace slight slightly subtle minor faint "
        "borderline",
        "moderate": "moderate moderately",
        "severe": "severe severely large extensive extensively marked markedly massive massively "
        "gross grossly huge profound substantial sizable sizeable considerable florid",
    }.items()
    for word in words.split()
}
_LOW = {"low", "lower", "decreased", "diminished", "reduced"}
_NUMBER = r"\d+(?:\.\d+)?"
_MEASUREMENT = re.compile(
    rf"(?<![\w.])({_NUMBER}(?:\s{{0,8}}(?:x|×|by|to|-)\s{{0,8}}{_NUMBER}){{0,5}})"
    r"\s{0,8}-?\s{0,8}(cm|mm|centimeters?|millimeters?)\b",
    re.IGNORECASE,
)


@dataclass
class Mention:
    """One observation that names a finding."""

    finding: str
    status: str
    sides: set[str]
    severities: set[str]
    tokens: str
    related: str  # what modifies it and where it is, as the text has it, in lower case
    span: Span | None  # characters; None where the text has not the annotation's tokens


@dataclass
class Finding:
    """One finding of a text; its attributes are those of the mentions that have its status."""

    status: str
    sides: set[str] = field(default_factory=set)  # left, right
    unsided: bool = False  # one of the mentions names no side
    severities: set[str] = field(default_factory=set)  # mild, moderate, severe, tension
    places: set[str] = field(default_factory=set)  # see `places`: upper, base, "rib 5", "T12"
    unplaced: bool = False  # one of the mentions names no place
    course: set[str] = field(default_factory=set)  # see `courses`: worse, better, stable, new …
    misplaced: bool = False  # a device that is where it should not be
    measurements: dict[float, str] = field(default_factory=dict)  # mm: as written
    quote: str = ""  # the first sentence that states it
    # The same of the mentions that are on one side alone; without measurements and quote.
    of_side: dict[str, "Finding"] = field(default_factory=dict)


# (entity's key, finding, status, (words that modify it, words of where it is))
Named = tuple[str, str, str, tuple[list[str], list[str]]]
_WORDS = re.compile(r"\w+")


def statuses(record: Record) -> dict[str, str]:
    """Return {finding: 'present', 'uncertain' or 'absent'} of an annotation.

    A finding mentioned several times is present if one mention has it definitely present, else
    uncertain if one has it uncertain, else absent.
    """
    return _worst(_named(record["entities"]))


def _worst(named: Iterable[Named]) -> dict[str, str]:
    found: dict[str, str] = {}
    for _, finding, status, _ in named:
        found[finding] = min(status, found.get(finding, status), key=STATUSES.index)
    return dict(sorted(found.items()))


def describe(record: Record, text: str) -> dict[str, Finding]:
    """Return each finding of `text`, whose annotation is `record`, with its attributes."""
    bounds = sentences(text)
    named = list(_named(record["entities"]))
    found = {name: Finding(status) for name, status in _worst(named).items()}
    # A mention that is only possible says nothing about the side and size of what is there.
    mentions = [m for m in _mentions(record, text, named) if m.status == found[m.finding].status]
    sided: dict[int, set[str]] = {}
    for here, same in _by_sentence(bounds, mentions).items():
        sided.update(zip(map(id, same), _sides(text, bounds[here], same), strict=True))
    said = _said(text, bounds, mentions)
    for mention in mentions:
        finding = found[mention.finding]
        finding.quote = finding.quote or _quote(text, bounds, mention)
        if mention.status == ABSENT:
            continue
        sides = sided.get(id(mention), mention.sides)
        _add(finding, mention, sides, said.get(id(mention)))
        if len(sides) == 1:  # "large on the right, small on the left"
            side = next(iter(sides))
            of_side = finding.of_side.setdefault(side, Finding(mention.status))
            _add(of_side, mention, sides, said.get(id(mention)))
    for name, value, written in _measurements(text, bounds, mentions):
        found[name].measurements.setdefault(value, written)
    return found


def _add(finding: Finding, mention: Mention, sides: set[str], said: Said | None) -> None:
    """Add to `finding` what one mention of it says."""
    finding.sides |= sides
    finding.unsided |= not sides
    finding.severities |= mention.severities
    if said is None:
        return
    finding.places |= said.places
    finding.unplaced |= not said.places
    finding.course |= said.course
    finding.misplaced |= said.misplaced
    finding.severities |= {"tension"} if said.tension else set()
    if not mention.severities:
        own = set(mention.tokens.lower().split())  # "large" of "the heart is large"
        finding.severities |= _degrees({*said.words} - own)


def _by_sentence(bounds: list[Span], mentions: Iterable[Mention]) -> dict[int, list[Mention]]:
    """Return {sentence: the mentions in it, in their order} of those that have a span.

    A text without letters and digits has no sentence, but a model may mark something in it.
    """
    found: dict[int, list[Mention]] = {}
    for mention in mentions:
        if mention.span is not None and bounds:
            found.setdefault(sentence_at(bounds, mention.span[0]), []).append(mention)
    return found


def _degrees(words: Iterable[str]) -> set[str]:
    return {_SEVERITIES[word] for word in words if word in _SEVERITIES}


def _said(text: str, bounds: list[Span], mentions: Iterable[Mention]) -> dict[int, Said]:
    """Return {id of a mention: what its sentence says of it} of those that have a span."""
    found: dict[int, Said] = {}
    by_sentence = _by_sentence(bounds, mentions)
    for here, same in by_sentence.items():
        start, end = bounds[here]
        same = sorted(same, key=lambda m: (m.span, m.finding))
        said = [
            Said(m.finding, m.span[0] - start, m.span[1] - start, m.related)  # type: ignore[index]
            for m in same
        ]
        read(text[start:end].lower(), said, _following(text, bounds, by_sentence, here))
        found.update(zip(map(id, same), said, strict=True))
    return found


def _following(
    text: str, bounds: list[Span], by_sentence: Mapping[int, list[Mention]], here: int
) -> str:
    """Return the sentences that go on about the device of sentence `here`: "Its tip is …"."""
    found = []
    for index in range(here + 1, min(here + 3, len(bounds))):
        sentence = text[slice(*bounds[index])].lower()
        named = {mention.finding for mention in by_sentence.get(index, ())}
        if named & DEVICES or not CONTINUES.match(sentence):
            break
        found.append(sentence)
    return " ".join(found)


def _sides(text: str, bounds: Span, same: list[Mention]) -> Iterator[set[str]]:
    """Yield the sides of each of `same`, all mentions of a sentence: its own, or the sentence's if
    that names no other finding."""
    start, end = bounds
    sentence = text[start:end].lower()
    cues = [m for m in _BOTH_SIDES.finditer(sentence) if len(_known_sides(_split(m[0]))) > 1]
    spans_of = np.array([m.span for m in same])
    nearest = {
        int(np.argmin(_distances(spans_of, (start + cue.start(), start + cue.end()))))
        for cue in cues
    }
    elsewhere = _known_sides(_split(_BOTH_SIDES.sub(" ", sentence)))
    alone = len({m.finding for m in same}) == 1 and not _CHAMBER.search(sentence)
    whole = _known_sides(_split(sentence))
    for index, mention in enumerate(same):
        # Its side is one of "right greater than left".
        of_both = cues and mention.sides and mention.sides.isdisjoint(elsewhere)
        if index in nearest or of_both:
            yield {"left", "right"}
        else:
            yield whole if alone and not mention.sides else mention.sides


def _known_sides(words: Iterable[str]) -> set[str]:
    sides = {_SIDES[word] for word in words if word in _SIDES}
    return {"left", "right"} if "bilateral" in sides else sides


def _mentions(record: Record, text: str, named: Iterable[Named]) -> list[Mention]:
    entities = record["entities"]
    places = {id(entity): (start, end) for start, end, entity in spans(text, record)}
    found = []
    for key, finding, status, related in named:
        modifiers, locations = related
        words = [*_words(entities[key]), *modifiers]
        if any(_CHAMBER.match(word) for word in locations):
            locations = []  # a lead in the right ventricle is on the left
        found.append(
            Mention(
                finding,
                status,
                _known_sides([*words, *locations]),
                _degrees(modifiers),
                entities[key]["tokens"],
                " ".join((*modifiers, *locations)).lower(),
                places.get(id(entities[key])),
            )
        )
    return found


def _named(entities: Mapping[str, Any]) -> Iterator[Named]:
    modifiers_of: dict[str, list[str]] = {}
    for key, entity in entities.items():
        for relation, target in entity["relations"]:
            if relation == "modify":
                modifiers_of.setdefault(target, []).append(key)
    low, broken = _low_volumes(entities), _broken_devices(entities)
    for key, entity in entities.items():
        status = LABELS.get(entity["label"])
        if key in broken:
            continue
        if key in low:
            yield key, "low lung volumes", status or PRESENT, ([], [])
            continue
        if status is None or any(relation == "modify" for relation, _ in entity["relations"]):
            continue
        modifiers = _reached(modifiers_of, modifiers_of.get(key, []))
        places = _reached(
            modifiers_of,
            [target for relation, target in entity["relations"] if relation == "located_at"],
        )
        related = (_in_order(entities, modifiers), _in_order(entities, places))
        finding = finding_of(tuple(_words(entity)), *map(tuple, related))
        if finding is not None:
            yield key, finding, status, related


def _broken_devices(entities: Mapping[str, Any]) -> set[str]:
    """Return the "fractured" of "the lead is fractured" and "fractured wires": no bone's."""
    ordered = sorted(entities, key=lambda key: int(entities[key]["start_ix"]))
    found = set()
    for before, here in pairwise(ordered):
        for key, other, most in ((here, before, 2), (before, here, 0)):
            apart = entities[here]["start_ix"] - entities[before]["end_ix"] - 1
            if entities[key]["tokens"].lower() in ("fractured", "broken") and apart <= most:
                named = finding_of(tuple(_words(entities[other])), (), ())
                if named in DEVICES or named == "postoperative change":
                    found.add(key)
    return found


def _low_volumes(entities: Mapping[str, Any]) -> set[str]:
    """Return the "low" of "low lung volumes".

    An annotator may take it for a side's or for a modifier of what follows: "lower lung volumes",
    "low lung volumes with atelectasis".
    """
    ordered = sorted(entities, key=lambda key: int(entities[key]["start_ix"]))
    return {
        key
        for index, key in enumerate(ordered)
        if entities[key]["tokens"].lower() in _LOW
        and any(
            entities[other]["tokens"].lower().split()[-1:] in (["volume"], ["volumes"])
            and entities[other]["start_ix"] - entities[key]["end_ix"] <= 2
            for other in ordered[index + 1 : index + 3]
        )
    }


def _in_order(entities: Mapping[str, Any], keys: Iterable[str]) -> list[str]:
    """Return the words of some entities, in the text's order: "right upper lobe"."""
    ordered = sorted(keys, key=lambda key: int(entities[key]["start_ix"]))
    return [word for key in ordered for word in _words(entities[key])]


def _reached(modifiers_of: Mapping[str, list[str]], start: Iterable[str]) -> list[str]:
    """Return `start` and everything that modifies it, directly or not, each once."""
    found = list(dict.fromkeys(start))
    for key in found:  # grows while it is read
        found += [other for other in modifiers_of.get(key, []) if other not in found]
    return found


def _words(entity: Mapping[str, Any]) -> list[str]:
    return [correct(word) for word in _split(entity["tokens"].lower())]


def _split(text: str) -> list[str]:
    return _WORDS.findall(text)


def _quote(text: str, bounds: list[Span], mention: Mention) -> str:
    """Return the sentence of the mention; its own tokens where the text has them not."""
    if mention.span is None or not bounds:
        return mention.tokens
    start, end = bounds[sentence_at(bounds, mention.span[0])]
    return text[start:end]


def _measurements(
    text: str, bounds: list[Span], mentions: list[Mention]
) -> Iterator[tuple[str, float, str]]:
    """Yield (finding, millimetres, as written).

    A measurement belongs to the finding that stands nearest in its sentence, or was last mentioned
    in the sentence before ("It measures 5 mm"). Findings that are denied have none.
    """
    stated = _by_sentence(bounds, (m for m in mentions if m.status != ABSENT))
    for same in stated.values():
        same.sort(key=lambda m: (m.span, m.finding))
    places = {here: np.array([m.span for m in same]) for here, same in stated.items()}
    for match in _MEASUREMENT.finditer(text):
        here = sentence_at(bounds, match.start())
        if here in stated:
            distances = _distances(places[here], match.span())
            nearest = np.flatnonzero(distances == distances.min())
            owner = min(stated[here][index].finding for index in nearest)
        elif here - 1 in stated:
            owner = stated[here - 1][-1].finding
        else:
            continue
        factor = 10 if match[2].lower().startswith("c") else 1
        for number in re.findall(_NUMBER, match[1]):
            yield owner, round(float(number) * factor, 3), f"{number} {match[2]}"


def _distances(spans_of: np.ndarray, place: Span) -> np.ndarray:
    """Return how many characters stand between each of the spans, [N, 2], and `place`."""
    return np.maximum(spans_of[:, 0] - place[1], place[0] - spans_of[:, 1])


def mentions(record: Record, text: str) -> list[Mention]:
    """Return every observation of `text` that names a finding; `record` is its annotation."""
    return _mentions(record, text, list(_named(record["entities"])))
