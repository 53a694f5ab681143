"""Which findings a text states, read from its annotation in RadGraph's schema.

Annotators mark words; a finding is what the words mean: "heart size is enlarged" and
"cardiomegaly" are one. Both annotators' labels are read, those of the first RadGraph too.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from radquant.scoring import lexicon_terms
from radquant.scoring.finding_terms import GENERAL, NOT_FINDINGS, SPECIFIC
from radquant.scoring.spans import Span, sentence_at, sentences, spans

Record = dict[str, Any]

PRESENT, UNCERTAIN, ABSENT = "present", "uncertain", "absent"
# A finding that is mentioned several times has the first of these that a mention has.
STATUSES = (PRESENT, UNCERTAIN, ABSENT)
LABELS = {
    "Observation::definitely present": PRESENT,
    "OBS-DP": PRESENT,
    "Observation::uncertain": UNCERTAIN,
    "OBS-U": UNCERTAIN,
    "Observation::definitely absent": ABSENT,
    "OBS-DA": ABSENT,
}

# Words that only qualify a finding. Where no list knows them together with what they stand at
# (large + heart), they are none by themselves.
_QUALIFIERS = frozenset(
    word
    for term in (*lexicon_terms.MODIFIERS, *lexicon_terms.NORMAL, *lexicon_terms.POSITIONS)
    for word in re.findall(r"\w+", term)
)

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
    rf"{{0,3}}(?:and|or|,){_APART})(?:the{_APART})?(?:left|right)\b"
    r"|\b(?:bilateral|bibasilar|bibasal|biapical)\b"
)
_SEVERITIES = {
    word: degree
    for degree, words in {
        "mild": "mild mildly small minimal minimally tiny trace slight slightly subtle minor faint",
        "moderate": "moderate moderately",
        "severe": "severe severely large extensive extensively marked markedly massive gross huge",
    }.items()
    for word in words.split()
}
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
    span: Span | None  # characters; None where the text has not the annotation's tokens


@dataclass
class Finding:
    """One finding of a text; its attributes are those of the mentions that have its status."""

    status: str
    sides: set[str] = field(default_factory=set)  # left, right
    unsided: bool = False  # one of the mentions names no side
    severities: set[str] = field(default_factory=set)  # mild, moderate, severe
    measurements: dict[float, str] = field(default_factory=dict)  # mm: as written
    quote: str = ""  # the first sentence that states it


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
    # What is only possible says nothing about the side and size of what is there.
    mentions = [m for m in _mentions(record, text, named) if m.status == found[m.finding].status]
    sided: dict[int, set[str]] = {}
    for here, same in _by_sentence(bounds, mentions).items():
        sided.update(zip(map(id, same), _sides(text, bounds[here], same), strict=True))
    for mention in mentions:
        finding = found[mention.finding]
        finding.quote = finding.quote or _quote(text, bounds, mention)
        if mention.status != ABSENT:
            sides = sided.get(id(mention), mention.sides)
            finding.sides |= sides
            finding.unsided |= not sides
            finding.severities |= mention.severities
    for name, value, written in _measurements(text, bounds, mentions):
        found[name].measurements.setdefault(value, written)
    return found


def _by_sentence(bounds: list[Span], mentions: Iterable[Mention]) -> dict[int, list[Mention]]:
    """Return {sentence: the mentions in it, in their order} of those that have a span.

    A text without letters and digits has no sentence, but a model may mark something in it.
    """
    found: dict[int, list[Mention]] = {}
    for mention in mentions:
        if mention.span is not None and bounds:
            found.setdefault(sentence_at(bounds, mention.span[0]), []).append(mention)
    return found


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
                {_SEVERITIES[word] for word in modifiers if word in _SEVERITIES},
                entities[key]["tokens"],
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
    for key, entity in entities.items():
        status = LABELS.get(entity["label"])
        if status is None or any(relation == "modify" for relation, _ in entity["relations"]):
            continue
        modifiers = _reached(modifiers_of, modifiers_of.get(key, []))
        places = _reached(
            modifiers_of,
            [target for relation, target in entity["relations"] if relation == "located_at"],
        )
        related = (
            [word for other in modifiers for word in _words(entities[other])],
            [word for other in places for word in _words(entities[other])],
        )
        finding = _finding(tuple(_words(entity)), *map(tuple, related))
        if finding is not None:
            yield key, finding, status, related


def _reached(modifiers_of: Mapping[str, list[str]], start: Iterable[str]) -> list[str]:
    """Return `start` and everything that modifies it, directly or not, each once."""
    found = list(dict.fromkeys(start))
    for key in found:  # grows while it is read
        found += [other for other in modifiers_of.get(key, []) if other not in found]
    return found


def _words(entity: Mapping[str, Any]) -> list[str]:
    return _split(entity["tokens"].lower())


def _split(text: str) -> list[str]:
    return _WORDS.findall(text)


@cache
def _terms() -> list[list[tuple[str, list[list[re.Pattern[str]]]]]]:
    return [
        [(finding, [_pattern(term) for term in terms.split()]) for finding, terms in group.items()]
        for group in (SPECIFIC, GENERAL)
    ]


def _pattern(term: str) -> list[re.Pattern[str]]:
    return [re.compile(re.escape(part).replace(r"\*", r"\w*")) for part in term.split("+")]


# Bounded, because a language model's output may hold any number of different words.
_KNOWN: dict[tuple[tuple[str, ...], ...], str | None] = {}


def _finding(
    head: tuple[str, ...], modifiers: tuple[str, ...], places: tuple[str, ...]
) -> str | None:
    """Return the finding that an observation names, None for a statement of normality."""
    key = (head, modifiers, places)
    if key not in _KNOWN:
        if len(_KNOWN) > 100_000:
            _KNOWN.clear()
        _KNOWN[key] = _look_up(*key)
    return _KNOWN[key]


def _look_up(
    head: tuple[str, ...], modifiers: tuple[str, ...], places: tuple[str, ...]
) -> str | None:
    everything = (*head, *modifiers, *places)
    # "nodular opacity" is a nodule, "consolidated mass" a mass: the observation's own words come
    # first, then those that modify it; but markings are normal unless something is said of them.
    looks = [head] if head and head[0].startswith("marking") else [head, (*head, *modifiers)]
    for group in _terms():
        for words in looks:
            for finding, terms in group:
                if any(_fits(term, words, everything) for term in terms):
                    return finding
    if all(word in NOT_FINDINGS or word in _QUALIFIERS for word in head):
        return None
    return " ".join(map(_singular, head))


def _fits(term: list[re.Pattern[str]], words: tuple[str, ...], everything: tuple[str, ...]) -> bool:
    first, *others = term
    return any(map(first.fullmatch, words)) and all(
        any(map(part.fullmatch, everything)) for part in others
    )


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return f"{word[:-3]}y"
    plural = len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is"))
    return word[:-1] if plural else word


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
    in the sentence before ("It measures 5 mm"); findings that are denied have none.
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
