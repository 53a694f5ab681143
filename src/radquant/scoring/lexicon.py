"""Rule-based annotator of radiology reports, in the schema of RadGraph-XL.

Entities are found by the longest match against word lists (`lexicon_terms`). Whether one is
present, absent or uncertain follows from triggers before it ("no", "possible") and after it ("is
not seen", "cannot be excluded"), whose scope ends with the clause. Relations follow from word
order. The rules were tuned on one half of a corpus and measured on the other half
(docs/benchmarks.md). It needs no model and no network; it is not RadGraph, and its scores are not
RadGraph F1.
"""

import re
from functools import cache
from itertools import pairwise
from typing import Any

from radquant.code import digest
from radquant.scoring import lexicon_terms as terms
from radquant.scoring.lexicon_relations import HEADS, Entity, relate, suggest

VERSION = "2"

PRESENT, ABSENT, UNCERTAIN = "definitely present", "definitely absent", "uncertain"

# Kinds of a match. Entities:
FINDING, DEVICE, NORMAL, MODIFIER, ANATOMY, POSITION = "FDNMAP"
# Triggers:
NEGATION, POST_NEGATION, UNCERTAINTY, POST_UNCERTAINTY = "-<?~"
SUGGESTION, STATEMENT, STOP, NEUTRAL = ">=|."

ENTITIES = FINDING + DEVICE + NORMAL + MODIFIER + ANATOMY + POSITION
STATUS = {NEGATION: ABSENT, UNCERTAINTY: UNCERTAIN, SUGGESTION: UNCERTAIN}

# Where a term is in two lists, the later kind holds.
KINDS = (
    (MODIFIER, terms.MODIFIERS),
    (POSITION, terms.POSITIONS),
    (ANATOMY, terms.ANATOMY),
    (NORMAL, terms.NORMAL),
    (DEVICE, terms.DEVICES),
    (FINDING, terms.FINDINGS),
    (STATEMENT, terms.STATEMENTS),
    (UNCERTAINTY, terms.UNCERTAINTIES),
    (NEGATION, terms.NEGATIONS),
    (SUGGESTION, terms.SUGGESTIONS),
    (POST_NEGATION, terms.POST_NEGATIONS),
    (POST_UNCERTAINTY, terms.POST_UNCERTAINTIES),
    (NEUTRAL, terms.NEUTRAL),
    (STOP, terms.STOPS),
)

Match = tuple[int, int, str]  # first token, token after the last, kind


def identity() -> str:
    """Return the name that annotations carry: two with equal names come from equal rules."""
    return f"lexicon {VERSION} (sha256 {digest(__name__, within='radquant.scoring')[:12]})"


def annotate(text: str) -> dict[str, Any]:
    """Return {"text", "entities"} of one report; the time grows linearly with its length."""
    tokens, starts, paragraphs = tokenize(text)
    lowered = [token.lower() for token in tokens]
    entities: list[Entity] = []
    heading: tuple[str, ...] = ()
    earlier = 0  # first entity of the sentence before
    bounds = [*starts, len(tokens)]
    headings = {last for last in bounds if last and tokens[last - 1] == ":"}
    final = max(paragraphs | headings, default=0)
    for first, last in pairwise(bounds):
        if first in paragraphs:
            heading = ()
        if not _is_request(lowered[first : first + 2], heading):
            begin = len(entities)
            found, links = _sentence(lowered, first, last, begin)
            entities += found
            earliest = earlier if lowered[first] in terms.ANAPHORA else begin
            for link in links:
                suggest(entities, earliest, begin + link)
            if found:
                earlier = begin
        if last in headings:
            heading = tuple(lowered[max(first, last - 4) : last])
        elif last > final or terms.HISTORY_HEADINGS.isdisjoint(heading):
            heading = ()
    return {
        "text": " ".join(tokens),
        "entities": {
            str(number): {
                "tokens": " ".join(tokens[entity.start : entity.end]),
                "label": _label(entity),
                "start_ix": entity.start,
                "end_ix": entity.end - 1,
                "relations": [[name, str(target + 1)] for name, target in entity.relations],
            }
            for number, entity in enumerate(entities, 1)
        },
    }


def _is_request(words: list[str], heading: tuple[str, ...]) -> bool:
    """Say whether the sentence that starts with `words` tells why or how, not what was found."""
    first = words[0] if words[0][0].isalnum() else words[-1]  # "// evaluate"
    return first in terms.REQUESTS or not terms.REQUEST_HEADINGS.isdisjoint(heading)


def _label(entity: Entity) -> str:
    if entity.kind in (ANATOMY, POSITION):
        return "Anatomy::definitely present"
    return f"Observation::{entity.status}"


_WORD = re.compile(r"\w+|[^\w\s]+")
_SPLITS = ((").", ") ."), ("%.", "% ."), (".'", ". '"), ("%,", "% ,"), ("%)", "% )"))
# A blank line or a list marker starts a new statement even without a full stop.
_PARAGRAPH = re.compile(r"\n\s*\n|\n(?=\s*(?:\d+\s?[.)]|[-*•])\s)")


def tokenize(text: str) -> tuple[list[str], list[int], set[int]]:
    """Return RadGraph-XL's tokens and the positions at which sentences and paragraphs start."""
    text = text.replace("\\n", "  ").replace("\\f", "  ").replace("\\u2122", "      ")
    text = text.replace('\\"', "``")
    tokens: list[str] = []
    starts: list[int] = []
    paragraphs: set[int] = set()
    for paragraph in _PARAGRAPH.split(text):
        joined = " ".join(_WORD.findall(paragraph))
        for pair, apart in _SPLITS:
            joined = joined.replace(pair, apart)
        begin = len(tokens)
        tokens += joined.split()
        if begin < len(tokens):
            paragraphs.add(begin)
        fresh = True
        for index in range(begin, len(tokens)):
            if fresh:
                starts.append(index)
            fresh = _ends_sentence(tokens, index)
    return tokens, starts, paragraphs


def _ends_sentence(tokens: list[str], index: int) -> bool:
    token = tokens[index]
    if token[0].isalnum() or not any(mark in token for mark in ".;?!"):
        # A heading such as FINDINGS: also ends what went before.
        return token == ":" and index > 0 and tokens[index - 1].isupper()
    before = tokens[index - 1] if index else ""
    after = tokens[index + 1] if index + 1 < len(tokens) else ""
    return not (token == "." and before.isdigit() and after.isdigit())  # 2.5 cm


@cache
def _lexicon() -> dict[str, list[tuple[tuple[str, ...], str]]]:
    """Return {first word: [(words, kind), …]}, longest terms first."""
    kinds: dict[tuple[str, ...], str] = {}
    for kind, names in KINDS:
        for name in names:
            kinds[tuple(_WORD.findall(name))] = kind
    table: dict[str, list[tuple[tuple[str, ...], str]]] = {}
    for words, kind in kinds.items():
        table.setdefault(words[0], []).append((words, kind))
    for options in table.values():
        options.sort(key=lambda option: -len(option[0]))
    return table


@cache
def _vocabulary() -> frozenset[str]:
    return frozenset(
        word for options in _lexicon().values() for words, _ in options for word in words
    )


# Bounded, because a language model's output may hold any number of different words.
_SINGULARS: dict[str, str] = {}


def _singular(word: str) -> str:
    """Return the form of `word` that the lists hold, or `word`."""
    found = _SINGULARS.get(word)
    if found is None:
        vocabulary = _vocabulary()
        forms = [word]
        if word.endswith("s"):
            forms.append(word[:-1])
        if word.endswith("es"):
            forms += [word[:-2], word[:-2] + "is"]
        if word.endswith("ies"):
            forms.append(word[:-3] + "y")
        found = next((form for form in forms if form in vocabulary), word)
        if len(_SINGULARS) < 50_000:
            _SINGULARS[word] = found
    return found


def _matches(words: list[str]) -> list[Match]:
    """Return the longest matches in `words`, left to right, without overlap."""
    table = _lexicon()
    singular = [_singular(word) for word in words]
    matches: list[Match] = []
    index = 0
    while index < len(words):
        for term, kind in table.get(singular[index], ()):
            end = index + len(term)
            if len(term) == 1 or tuple(singular[index:end]) == term:
                matches.append((index, end, kind))
                index = end
                break
        else:
            if _looks_like_finding(singular[index]):
                matches.append((index, index + 1, FINDING))
            index += 1
    return matches


def _looks_like_finding(word: str) -> bool:
    return len(word) > 5 and word.endswith(terms.FINDING_ENDINGS) and word not in terms.NOT_FINDINGS


def _sentence(
    tokens: list[str], first: int, last: int, offset: int
) -> tuple[list[Entity], list[int]]:
    """Return the entities of the sentence `tokens[first:last]`, the first with number `offset`.

    With them come its links: after how many of them a suggestion stands.
    """
    words = tokens[first:last]
    matches = _matches(words)
    entities, links = _statuses(words, matches)
    relate(words, entities, links, offset)
    for entity in entities:
        entity.sign = _is_sign(words, entity)
        entity.start += first
        entity.end += first
    return entities, links


def _is_sign(words: list[str], entity: Entity) -> bool:
    """Say whether `entity` describes what is seen, so that it may stand for a disease."""
    if entity.kind == MODIFIER:  # "the vessels are ill-defined", but not "mild edema"
        return all(name != "modify" for name, _ in entity.relations)
    return entity.kind == FINDING and not any(
        _singular(word) in terms.DISEASES for word in words[entity.start : entity.end]
    )


def _statuses(words: list[str], matches: list[Match]) -> tuple[list[Entity], list[int]]:
    """Return the entities with their status, and after how many of them a suggestion stands."""
    breaks = _clause_breaks(words)
    entities: list[Entity] = []
    links: list[int] = []
    status = PRESENT
    backward = False
    clause = 0  # first entity of the clause, as far as triggers look back
    triggered = 0  # number of entities when `status` was set
    position = 0
    for start, end, kind in [*matches, (len(words), len(words), STOP)]:
        if kind == STOP or any(index in breaks for index in range(position, start)):
            if backward and triggered == len(entities):  # "atelectasis is possible"
                _apply(entities[clause:], status)
            status, clause = PRESENT, len(entities)
        position = start
        if kind in ENTITIES:
            entities.append(Entity(start, end, kind, status))
            if status == ABSENT and _presupposes(words, end):
                status = PRESENT
        elif kind in (POST_NEGATION, POST_UNCERTAINTY):
            if kind == POST_UNCERTAINTY and links:
                clause = max(clause, _after_comma(words, entities, links[-1]))
            _apply(entities[clause:], ABSENT if kind == POST_NEGATION else UNCERTAIN)
            if kind == POST_UNCERTAINTY and clause:  # "opacity, but edema is not excluded"
                links.append(clause)
            stated = any(entity.kind in HEADS for entity in entities[clause:])
            status, clause = PRESENT, len(entities)
            if words[start:end] == ["if", "any"] and not stated:  # "if any, a small effusion"
                status, triggered, backward = UNCERTAIN, len(entities), False
        elif kind in STATUS:
            status, triggered = STATUS[kind], len(entities)
            backward = kind == UNCERTAINTY and words[end - 1] in terms.BACKWARD
        if kind in (STATEMENT, SUGGESTION) or (kind == UNCERTAINTY and _continues(words, start)):
            links.append(len(entities))
    return entities, links


def _after_comma(words: list[str], entities: list[Entity], link: int) -> int:
    """Return the first entity after the last comma, or after the suggestion where none is.

    "Opacity, likely edema, pneumonia not excluded" doubts neither the opacity nor, again, edema.
    """
    for index in range(len(entities) - 1, link, -1):
        if "," in words[entities[index - 1].end : entities[index].start]:
            return index
    return link


def _presupposes(words: list[str], end: int) -> bool:
    """Say whether what follows is there although the entity is not: "no change in effusion"."""
    return words[end - 1] in terms.CHANGES and words[end : end + 1] in (["in"], ["of"])


def _continues(words: list[str], start: int) -> bool:
    """Say whether the adverb at `start` goes on from what stands before it.

    "Opacity, likely edema" does; "opacity and a possible nodule" does not.
    """
    while start and words[start - 1] in ("a", "an", "the", "also", "new"):
        start -= 1
    return start > 0 and words[start - 1] not in ("and", "with", "or")


def _apply(entities: list[Entity], status: str) -> None:
    """Give `status` to entities that were stated; doubt also covers what was denied."""
    for entity in entities:
        if entity.status == PRESENT or status == UNCERTAIN:
            entity.status = status


# After a comma or "and" these begin a statement of their own.
_OPENERS = {"the", "there", "this", "these", "a", "an", "it", "its", "their"}
_ASSERTIVE = {
    ",": {"mild", "moderate", "severe", "stable", "unchanged", "persistent"},
    "with": {"associated", "adjacent"},
}
_GOES_ON = {"or", "and", *terms.VERBS}


def _clause_breaks(words: list[str]) -> set[int]:
    """Return the positions of commas and conjunctions at which a new clause begins.

    "No effusion, and the heart is large": what follows has a verb of its own. "No effusion and no
    pneumothorax is seen": it has not, since the verb only says that nothing is seen.
    """
    breaks: set[int] = set()
    verb = False  # a finite verb follows before the next joint
    length = len(words)
    for index in range(length - 1, -1, -1):
        word = words[index]
        if word in terms.VERBS:
            verb = terms.PERCEPTION.isdisjoint(words[index + 1 : index + 3])
        elif word in (",", "and", "with", "or"):
            after = words[index + 1] if index + 1 < length else ""
            opens = after in _OPENERS or after in _ASSERTIVE.get(word, ())
            # "Effusions, if any, are small": the comma parts no clauses.
            goes_on = after in _GOES_ON or words[max(index - 2, 0) : index] == ["if", "any"]
            if word != "or" and not goes_on and (verb or opens):
                breaks.add(index)
            verb = False if after not in ("and", "or") else verb
        elif word in (";", ":"):
            breaks.add(index)
            verb = False
    return breaks
