"""Rule-based annotator of radiology reports, in the schema of RadGraph-XL.

Entities are found by the longest match against word lists (`lexicon_terms`). Triggers decide
whether one is present, absent or uncertain. They stand before it ("no", "possible") or after it
("is not seen", "cannot be excluded"), and their scope ends with the clause. Relations follow from
word order. The rules were tuned on one half of a corpus and measured on the other half
(docs/benchmarks.md). It needs no model and no network; it is not RadGraph, and its scores are not
RadGraph F1.
"""

from functools import cache
from itertools import pairwise
from typing import Any

from radquant.code import digest
from radquant.scoring import lexicon_terms as terms
from radquant.scoring import lexicon_triggers as triggers
from radquant.scoring.lexicon_relations import (
    ANATOMY,
    DENIAL,
    DEVICE,
    FINDING,
    MODIFIER,
    NEGATION,
    NEUTRAL,
    NORMAL,
    POSITION,
    POST_NEGATION,
    POST_UNCERTAINTY,
    SEEN,
    STATEMENT,
    STOP,
    SUGGESTION,
    UNCERTAINTY,
    Entity,
    Match,
    relate,
    suggest,
)
from radquant.scoring.lexicon_spelling import correct
from radquant.scoring.lexicon_statuses import find_statuses
from radquant.scoring.lexicon_tokens import WORD, read

VERSION = "3"

# Where a term is in two lists, the later kind holds.
KINDS = (
    (MODIFIER, terms.MODIFIERS),
    (POSITION, terms.POSITIONS),
    (ANATOMY, terms.ANATOMY),
    (NORMAL, terms.NORMAL),
    (DEVICE, terms.DEVICES),
    (FINDING, terms.FINDINGS),
    (STATEMENT, triggers.STATEMENTS),
    (UNCERTAINTY, triggers.UNCERTAINTIES),
    (SEEN, triggers.SEEN),
    (NEGATION, triggers.NEGATIONS),
    (DENIAL, triggers.DENIALS),
    (SUGGESTION, triggers.SUGGESTIONS),
    (POST_NEGATION, triggers.POST_NEGATIONS),
    (POST_UNCERTAINTY, triggers.POST_UNCERTAINTIES),
    (NEUTRAL, triggers.NEUTRAL),
    (STOP, triggers.STOPS),
)


def identity() -> str:
    """Return the name that annotations carry: two with equal names come from equal rules."""
    return f"lexicon {VERSION} (sha256 {digest(__name__, within='radquant.scoring')[:12]})"


def annotate(text: str) -> dict[str, Any]:
    """Return {"text", "entities"} of one report; the time grows linearly with its length."""
    tokens, starts, paragraphs, lowered = read(text)
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
            earliest = earlier if lowered[first] in triggers.ANAPHORA else begin
            for link in links:
                suggest(entities, earliest, begin + link)
            if found:
                earlier = begin
        if last in headings:
            heading = tuple(lowered[max(first, last - 4) : last])
        elif last > final or triggers.HISTORY_HEADINGS.isdisjoint(heading):
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
    return first in triggers.REQUESTS or not triggers.REQUEST_HEADINGS.isdisjoint(heading)


def _label(entity: Entity) -> str:
    if entity.kind in (ANATOMY, POSITION):
        return "Anatomy::definitely present"
    return f"Observation::{entity.status}"


@cache
def _lexicon() -> dict[str, list[tuple[tuple[str, ...], str]]]:
    """Return {first word: [(words, kind), …]}, longest terms first."""
    kinds: dict[tuple[str, ...], str] = {}
    for kind, names in KINDS:
        for name in names:
            kinds[tuple(WORD.findall(name))] = kind
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
    """Return the form of `word` that the lists hold, also of a misspelt one, or `word`."""
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
        found = next((form for form in forms if form in vocabulary), "") or _corrected(word)
        if len(_SINGULARS) < 50_000:
            _SINGULARS[word] = found
    return found


def _corrected(word: str) -> str:
    name = correct(word)
    return name if name == word else _singular(name)


def _matches(words: list[str]) -> list[Match]:
    """Return the longest matches in `words`, left to right, without overlap."""
    table = _lexicon()
    singular = [_SINGULARS.get(word) or _singular(word) for word in words]
    singular.append("")  # so that the last word has a next one
    matches: list[Match] = []
    index = 0
    while index < len(words):
        for term, kind in table.get(singular[index], ()):
            if len(term) == 1 or (
                # The second word alone nearly always decides, which is quicker.
                term[1] == singular[index + 1]
                and term == tuple(singular[index : index + len(term)])
            ):
                matches.append((index, index + len(term), kind))
                index += len(term)
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
    entities, links = find_statuses(words, matches)
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
