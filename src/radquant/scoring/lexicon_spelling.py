"""Words that are one slip of the keyboard away from the name of a finding.

A slip is a letter too few, too many or wrong, or two letters in the wrong order. The source is
Damerau, A technique for computer detection and correction of spelling errors, Communications of the
ACM 7, 1964. Only long names count: a short word is too often another word.
"""

from functools import cache, lru_cache

from radquant.scoring import lexicon_terms as terms


@lru_cache(maxsize=50_000)  # bounded, because outputs may hold any number of different words
def correct(word: str) -> str:
    """Return the name that `word` is one slip away from, or `word` itself."""
    if len(word) < terms.SHORTEST_NAME - 1 or word in terms.NO_SLIPS or not word.isalpha():
        return word
    names = _names()
    if word in names:
        return word
    fewer = _shortened(word)
    slips = [
        *names.get("-" + word, ()),  # a letter too few
        *(short for short in fewer if short in names),  # a letter too many
        *(name for short in fewer for name in names.get("-" + short, ()) if _one_slip(word, name)),
    ]
    return min(slips, default=word)


def _shortened(word: str) -> list[str]:
    return [word[:index] + word[index + 1 :] for index in range(len(word))]


def _one_slip(word: str, name: str) -> bool:
    """Say whether one letter differs, or two neighbours have changed places."""
    wrong = [index for index in range(len(word)) if word[index] != name[index]]
    if len(wrong) == 2:
        first, second = wrong
        swapped = word[first] == name[second] and word[second] == name[first]
        return swapped and second == first + 1
    return len(wrong) == 1 and len(name.removesuffix("s")) >= terms.LONG_NAME


@cache
def _names() -> dict[str, tuple[str, ...]]:
    """Return every name, and under "-" and its rest, the names that lack a letter to it."""
    table: dict[str, tuple[str, ...]] = {}
    for name in sorted(terms.NAMES):
        table[name] = ()
        for short in set(_shortened(name)):
            table["-" + short] = (*table.get("-" + short, ()), name)
    return table
