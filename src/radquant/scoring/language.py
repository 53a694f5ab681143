"""How English texts are: the share of their words that an English word list knows.

Both annotators read English only. Of another language they find nothing, or worse: a negation is
missed and the finding is called present. Real reports hold 96 to 100 % known words, those of
other languages below 45 % (docs/benchmarks.md).
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from radquant.errors import UserError
from radquant.scoring.english_words import ENGLISH_WORDS

# Below this share a text is not English. It lies in the middle of a wide gap: docs/benchmarks.md.
ENGLISH = 0.6
# A text with fewer counted words is not judged by itself, but counts in the whole; a whole with
# fewer is not judged at all.
FEWEST_IN_TEXT, FEWEST = 4, 20
# The share of judged texts that may be of another language before the whole is refused.
FEW = 0.05

# Scripts that put no space between words: each character counts as one.
_UNSPACED = r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]"
# With digits and marks inside, so that "T12", "2nd" and "5cm" are seen whole, and left out.
_WORD = re.compile(rf"{_UNSPACED}|(?:(?!{_UNSPACED})\w)+")
_PLACEHOLDER = re.compile(r"x{2,}|_+|(?:deid|redacted|phi)\w*")
_ABBREVIATION = re.compile(r"[A-Z]{2,5}")
_ENDINGS = ("s", "es", "d", "ed", "ing", "ly", "al")


@dataclass(frozen=True)
class Language:
    """What share of a set of texts' words is known, and of the texts which are not English."""

    words: int  # counted: no numbers, placeholders, single letters
    known: int
    judged: int  # texts with enough words to be judged by themselves
    foreign: tuple[int, ...]  # positions of those of them that are not English

    @property
    def share(self) -> float:
        """Known among all counted words; 1 where no word was counted."""
        return self.known / self.words if self.words else 1.0

    @property
    def english(self) -> bool:
        """Whether the set can be read as English; True where too little is written to say."""
        if self.words < FEWEST:
            return True
        return self.share >= ENGLISH and len(self.foreign) <= FEW * self.judged


def known_share(texts: Iterable[str]) -> float:
    """Return which share of the words of all `texts` together is known English, from 0 to 1."""
    return language_of(texts).share


def language_of(texts: Iterable[str]) -> Language:
    """Return how English `texts` are, all together and each by itself."""
    words = known = judged = 0
    foreign = []
    for index, text in enumerate(texts):
        of_text, all_of_text = counts(text)
        known, words = known + of_text, words + all_of_text
        if all_of_text >= FEWEST_IN_TEXT:
            judged += 1
            if of_text < ENGLISH * all_of_text:
                foreign.append(index)
    return Language(words, known, judged, tuple(foreign))


def check_language(ids: Sequence[str], texts: Iterable[str], where: str, each: bool = True) -> None:
    """Raise UserError where `texts` are not English.

    `where` names the file and column. Without `each` they are judged all together alone: reasons
    for an examination hold drugs, diseases and typing errors. The message holds the first id whose
    text is not English, and no text.
    """
    found = language_of(texts)
    if found.english or not (each or found.share < ENGLISH):
        return
    said = f"{where}: {found.share:.0%} of the words are known English words"
    if found.foreign:
        said += (
            f", and {len(found.foreign)} of {found.judged} texts are not English, first that of "
            f"report {str(ids[found.foreign[0]])!r}"
        )
    raise UserError(
        f"{said}; the annotators read English only, so take English reports, or go on with "
        "`scoring: {language: any}` and a report that calls the run unfit"
    )


def counts(text: str) -> tuple[int, int]:
    """Return (known, counted) words of a text."""
    capitals = not any(map(str.islower, text))
    judged = [_judged(word, capitals) for word in _WORD.findall(text)]
    return judged.count(True), len(judged) - judged.count(None)


@lru_cache(maxsize=100_000)
def _judged(word: str, capitals: bool) -> bool | None:
    """Say whether a word is known; None where it says nothing of the language.

    Abbreviations in capitals ("RIJ") do not, unless the whole text is written in `capitals`.
    """
    lowered = word.lower()
    if not capitals and _ABBREVIATION.fullmatch(word):
        return None
    if re.fullmatch(_UNSPACED, word) or (
        len(word) > 1 and word.isalpha() and not _PLACEHOLDER.fullmatch(lowered)
    ):
        return _is_known(lowered)
    return None


def _is_known(word: str) -> bool:
    """Say whether a list holds `word` or the word that it is a form of."""
    if word in ENGLISH_WORDS or (word.endswith("ies") and f"{word[:-3]}y" in ENGLISH_WORDS):
        return True
    return any(
        word.endswith(ending)
        and len(word) - len(ending) > 2
        and (word[: -len(ending)] in ENGLISH_WORDS or f"{word[: -len(ending)]}e" in ENGLISH_WORDS)
        for ending in _ENDINGS
    )
