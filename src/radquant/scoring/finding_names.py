"""Which finding the words of an observation name."""

import re
from functools import cache

from radquant.scoring import lexicon_terms
from radquant.scoring.finding_terms import GENERAL, NOT_FINDINGS, SPECIFIC

# Words that only qualify a finding. Some lists know them together with their place (large + heart).
# Otherwise they are no finding by themselves.
_QUALIFIERS = frozenset(
    word
    for term in (*lexicon_terms.MODIFIERS, *lexicon_terms.NORMAL, *lexicon_terms.POSITIONS)
    for word in re.findall(r"\w+", term)
)


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


def finding_of(
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
    if "side" in (*head, *modifiers) and {"port", "ports"} & {*head}:
        return None  # the hole of a tube, no device of its own
    # "nodular opacity" is a nodule, "consolidated mass" a mass. The observation's own words come
    # first, then those that modify it. But markings are normal unless something is said of them.
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
