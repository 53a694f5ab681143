"""What an output says clinically otherwise than the original model's output of the same report.

Everything is read from two annotations in RadGraph's schema, the lexicon's or RadGraph's own, and
from the texts.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from radquant.scoring.courses import reversed_course
from radquant.scoring.findings import ABSENT, PRESENT, UNCERTAIN, Finding, describe
from radquant.scoring.places import elsewhere
from radquant.scoring.spans import sentences

Record = dict[str, Any]
Change = dict[str, str]

# Kinds of change, the most harmful first: the order in which reports and examples are listed.
KINDS = {
    "lost": "definitely present before, not mentioned now",
    "negated": "definitely present before, denied now",
    "invented": "denied or not mentioned before, definitely present now",
    "device": "a device in place became misplaced, or the reverse",
    "side": "left became right, or one side both",
    "place": "another lobe, zone or bone",
    "course": "worse became better, new became old, and the like",
    "measurement": "the number of a measurement changed",
    "asserted": "uncertain before, definitely present now",
    "hedged": "definitely present before, uncertain now",
    "severity": "mild became severe, and the like",
    "prior": "compares with an earlier examination that the input does not speak of",
}
# Changes of these kinds have in `before` and `after` what the two texts say of the finding, not
# their sentences.
ATTRIBUTES = ("device", "side", "place", "course", "measurement", "severity")
# What is wrong with an output by itself.
FLAGS = ("empty", "prompt echo", "repetition", "cut off")
# What each adds to the harm of an output, by which reports are ordered. An output that is cut off
# is noticed by its reader, and the findings that it lacks already count as lost.
HARM = {
    **{kind: len(KINDS) - place for place, kind in enumerate(KINDS)},
    **{flag: len(KINDS) for flag in FLAGS},
    "cut off": 1,
}

# By (status in the original's output, in this one); None where the finding is not mentioned.
_FLIPS = {
    (PRESENT, None): "lost",
    (PRESENT, ABSENT): "negated",
    (None, PRESENT): "invented",
    (ABSENT, PRESENT): "invented",
    (UNCERTAIN, PRESENT): "asserted",
    (PRESENT, UNCERTAIN): "hedged",
}
# What the change "prior" has in place of a finding.
PRIOR = "comparison with a prior"

# An output that has this many words of the prompt in a row repeats it. A sentence that the prompt
# asks for ("say that there is no acute abnormality") may hold half as many.
ECHO = 8
SAME_SENTENCE = 3
LONGEST_LOOP, LOOPS = 8, 4
SAME_CHARACTER = 10
# A text that repeats itself without end has few different words among its last 20 to 40. Real
# reports have more than half: docs/report.md.
LAST_WORDS, FEWEST_WORDS = (20, 40), 1 / 3
_WORDS = re.compile(r"\w+")
_PLACEHOLDER = re.compile("x+|_+")  # for what was taken out of a text to hide a person


def changes(
    original: Record,
    output: Record,
    original_text: str,
    output_text: str,
    inputs: Mapping[str, str] | None = None,
) -> list[Change]:
    """Return what `output_text` says otherwise than `original_text`, the most harmful first.

    The first two arguments are the texts' annotations. `inputs` holds the columns of the report
    that the model was shown; without it, no change of the kind "prior" is looked for.
    """
    before, after = describe(original, original_text), describe(output, output_text)
    found = [
        change
        for name in sorted(before.keys() | after.keys())
        for change in of_finding(name, before.get(name), after.get(name))
    ]
    if inputs is not None:
        known = {claim for claim, _ in _unsupported(original_text, inputs)}
        new = {
            sentence: claim
            for claim, sentence in _unsupported(output_text, inputs)
            if claim not in known
        }
        found += [_change("prior", PRIOR, "", sentence) for sentence in new]
    return sorted(found, key=lambda change: list(KINDS).index(change["kind"]))


def harm(found: Sequence[Change], flags: Collection[str]) -> int:
    """Return how bad an output is: the sum of the weights of its changes and of its flags."""
    return sum(HARM[change["kind"]] for change in found) + sum(HARM[flag] for flag in flags)


def of_finding(name: str, before: Finding | None, after: Finding | None) -> Iterator[Change]:
    """Yield the changes of one finding, each of another kind."""
    flip = _FLIPS.get((before.status if before else None, after.status if after else None))
    if flip:
        yield _change(flip, name, _quote(before), _quote(after))
    if not before or not after or ABSENT in (before.status, after.status):
        return
    # A value that one of the texts does not state is left out, and has not changed.
    if other_side(before, after) or other_side(after, before):
        yield _change("side", name, _side(before), _side(after))
    for one, other in _each_side(before, after):
        if other_place(one, other) or other_place(other, one):
            yield _change("place", name, *(", ".join(sorted(f.places)) for f in (one, other)))
            break
    for one, other in _each_side(before, after):
        if reversed_course(one.course, other.course):
            yield _change("course", name, *(", ".join(sorted(f.course)) for f in (one, other)))
            break
    # A wrong place counts even if the other text does not say that the place is right.
    if before.misplaced != after.misplaced:
        yield _change("device", name, *(_misplaced(f) for f in (before, after)))
    old = before.measurements.keys() - after.measurements.keys()
    new = after.measurements.keys() - before.measurements.keys()
    if old and new:
        written = (
            ", ".join(side.measurements[value] for value in sorted(values))
            for side, values in ((before, old), (after, new))
        )
        yield _change("measurement", name, *written)
    for one, other in _each_side(before, after):
        if other_severity(one.severities, other.severities):
            yield _change("severity", name, *map(_severity, (one, other)))
            break


def _each_side(before: Finding, after: Finding) -> Iterator[tuple[Finding, Finding]]:
    """Yield the two, and what they are on each side of which both speak by itself."""
    yield before, after
    for side in sorted(before.of_side.keys() & after.of_side.keys()):
        yield before.of_side[side], after.of_side[side]


def _change(kind: str, finding: str, before: str, after: str) -> Change:
    return {"kind": kind, "finding": finding, "before": before, "after": after}


def _quote(finding: Finding | None) -> str:
    return finding.quote if finding else ""


def _side(finding: Finding) -> str:
    return "both" if len(finding.sides) > 1 else next(iter(finding.sides))


def other_side(one: Finding, other: Finding) -> bool:
    """Say whether `one` is on a side on which `other` is not, as far as all of `other` is known."""
    more = bool(one.sides and other.sides and one.sides - other.sides)
    return more and (not other.unsided or one.sides.isdisjoint(other.sides))


def other_place(one: Finding, other: Finding) -> bool:
    """Say whether `one` is at a place at which `other` is not, as `_other_side` does."""
    if not one.places or not other.places:
        return False
    more = elsewhere(one.places, other.places)
    return bool(more) and (not other.unplaced or more == one.places)


def _misplaced(finding: Finding) -> str:
    return "misplaced" if finding.misplaced else "not misplaced"


def other_severity(one: set[str], other: set[str]) -> bool:
    """Say whether two sets of degrees differ. Tension is an emergency, also beside no degree."""
    if "tension" in one ^ other:
        return True
    return bool(one and other) and one.isdisjoint(other)


def _severity(finding: Finding) -> str:
    degrees = ("mild", "moderate", "severe", "tension")
    said = [word for word in degrees if word in finding.severities]
    return " to ".join(said) or "no degree"


# ------------------------------------------------------------------- comparisons with a prior

_EXAMINATION = (
    r"(?:exam\w*|stud(?:y|ies)|films?|radiograph\w*|x-?rays?|imaging|images?|ct|scans?|reports?)\b"
)
_PRIOR = r"(?:prior|previous|earlier|last)"
# What compares a finding with an earlier examination. "Increased markings" and "prior surgery" do
# not: only words of change that need two points in time count, and priors that are examinations.
_CLAIMS = {
    "unchanged": r"\bunchanged\b|\b(?:no|without)\s(?:(?!acute)\w+\s){0,3}change\b",
    "stable": r"\bstabl[ey]\b",
    "interval": r"\binterval\b(?!\s+follow)",
    "again": r"\bagain\b",
    "improved": r"\bimprov(?:ed|ing|es|ement)\b",
    "worsened": r"\bworse(?:n(?:ed|ing|s)?)?\b(?!\s+(?:on|in|than)\b)",
    "increased": r"\bincreasing\b|\bincreased?\s+(?:in\s+size|since|from|compared)\b"
    r"|\b(?:has|have)\s+(?:\w+\s+)?(?:increased|enlarged|progressed|developed)\b",
    "decreased": r"\bdecreasing\b|\bdecreased?\s+(?:in\s+size|since|from|compared)\b"
    r"|\b(?:has|have)\s+(?:\w+\s+)?(?:decreased|cleared)\b",
    "progressed": r"\bprogress(?:ed|ion|ing)\b",
    "resolved": r"\bresol(?:ved|ving|ution)\b",
    "new": r"\bnew(?:ly)?\b",
    "persistent": r"\bpersist(?:s|ed|ent|ently|ing)?\b",
    "remains": r"\bremain(?:s|ed)?\b",
    "no longer": r"\bno\slonger\b",
    "previously": r"\bpreviously\b(?!\s+(?:healthy|well))",
    "compared": rf"(?<!no )(?<!without )\b{_PRIOR}\s+(?:\w+\s+){{0,3}}?{_EXAMINATION}"
    rf"|\b(?:compared|comparison)\s+(?:to|with)\b|\b(?:from|than|since)\s+(?:the\s+)?{_PRIOR}"
    r"\s*(?:[.,;]|$)",
}
# Most sentences claim nothing, and one search instead of many shows that.
_ANY_CLAIM = re.compile("|".join(f"(?:{pattern})" for pattern in _CLAIMS.values()), re.IGNORECASE)
_CLAIM = {name: re.compile(pattern, re.IGNORECASE) for name, pattern in _CLAIMS.items()}
# "Follow-up until resolution is recommended" says what to do, not what has changed.
_ADVICE = re.compile(
    r"\b(?:recommend\w*|advis\w+|if\s+available|helpful|follow(?:ed)?\W?up\s+(?:to|until))\b", re.I
)
_NOT_IN_ADVICE = {"resolved", "compared", "interval", "stable"}
# Any of these in the input shows that it knows of an earlier examination or state.
_KNOWS_PRIOR = re.compile(
    r"\b(?:previous\w*|prior|earlier|compar\w+|follow\W?up|f/u|(?:in|de)creas(?:ed|ing)"
    r"\s+(?:in|since|from)|since)\b",
    re.IGNORECASE,
)
# The quantifiers are possessive (*+). A text of nothing but dashes is then not tried again at each
# of them.
_NO_PRIOR = re.compile(r"\W*+(?:none|no|n/?a|not\s+available|unavailable)?[\W\d]*+", re.IGNORECASE)


def unsupported(output: str, inputs: Mapping[str, str]) -> list[str]:
    """Return the sentences of `output` that compare with a prior which the input does not know.

    `inputs` holds the columns of the report that the model was shown. They know of a prior if one
    of them compares with one as well or names one. They also do if `comparison` is among them and
    names any.
    """
    return list(dict.fromkeys(sentence for _, sentence in _unsupported(output, inputs)))


def _unsupported(output: str, inputs: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return (kind of claim, sentence) of each claim."""
    if any(_knows_prior(name, text) for name, text in inputs.items()):
        return []
    return _claims(output)


@lru_cache(maxsize=16)
def _knows_prior(column: str, text: str) -> bool:
    if column == "comparison" and not _NO_PRIOR.fullmatch(text):
        return True
    return bool(_claims(text)) or bool(_KNOWS_PRIOR.search(text))


@lru_cache(maxsize=16)  # of one report, whose texts are asked about several times
def _claims(text: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for start, end in sentences(text):
        sentence = text[start:end]
        if not _ANY_CLAIM.search(sentence):
            continue
        advice = bool(_ADVICE.search(sentence))
        for name, pattern in _CLAIM.items():
            if not (advice and name in _NOT_IN_ADVICE) and pattern.search(sentence):
                found.append((name, sentence))
    return found


# ------------------------------------------------------------------------- degenerate outputs


def flags(output: str, prompt_texts: Sequence[str], finish_reason: str | None = None) -> list[str]:
    """Return what is wrong with an output by itself, from FLAGS.

    `prompt_texts` are the pieces of the prompt that are the same for every report.
    """
    words = _words(output)
    wrong = {
        "empty": not words,
        "prompt echo": any(
            not _windows_of(text).isdisjoint(_windows(words)) for text in prompt_texts
        ),
        "repetition": _repeats(output),
        "cut off": finish_reason == "length",
    }
    return [flag for flag in FLAGS if wrong[flag]]


def _words(text: str) -> list[str]:
    return _WORDS.findall(text.lower())


@lru_cache(maxsize=16)
def _windows_of(prompt_text: str) -> set[tuple[str, ...]]:
    return _windows(_words(prompt_text))


def _windows(words: list[str]) -> set[tuple[str, ...]]:
    return {tuple(words[start : start + ECHO]) for start in range(len(words) - ECHO + 1)}


def _repeats(text: str) -> bool:
    """Say whether a sentence is there three times, or a few words or a character run in a loop.

    It also counts if the text ends with many words of which few differ.

    "No effusion. No edema. No mass." repeats a word, and no sentence and no words in a row.
    """
    if re.search(rf"(\S)\1{{{SAME_CHARACTER - 1}}}", text):
        return True
    said: dict[tuple[str, ...], int] = {}
    for start, end in sentences(text):
        sentence = tuple(_words(text[start:end]))
        said[sentence] = said.get(sentence, 0) + (len(sentence) > 1)
        if said[sentence] >= SAME_SENTENCE:
            return True
    words = [word for word in _words(text) if not _PLACEHOLDER.fullmatch(word)]
    last = words[-LAST_WORDS[1] :]
    few = len(last) >= LAST_WORDS[0] and len(set(last)) < FEWEST_WORDS * len(last)
    return few or _loops(words)


def _loops(words: list[str]) -> bool:
    """Say whether up to LONGEST_LOOP words stand LOOPS times in a row."""
    for length in range(1, LONGEST_LOOP + 1):
        run = 0  # words that equal the one a loop earlier
        for earlier, word in zip(words, words[length:], strict=False):
            run = run + 1 if word == earlier else 0
            if run >= length * (LOOPS - 1):
                return True
    return False
