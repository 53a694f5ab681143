"""Where in a sentence a clause ends, and with it what a word denies or doubts."""

from radquant.scoring import lexicon_triggers as triggers

# After a comma or "and" these begin a statement of their own.
_OPENERS = {"the", "there", "this", "these", "a", "an", "it", "its", "their"}
_KNOWN = {
    *("mild", "moderate", "severe", "stable", "unchanged", "persistent", "persisting", "residual"),
    *("known", "remaining", "improved", "improving", "worsening", "increased", "decreased"),
}
_ASSERTIVE = {
    ",": {"mild", "moderate", "severe", "stable", "unchanged", "persistent"},
    "with": {"associated", "adjacent"},
}
_SIZES = {"small", "tiny", "trace", "minimal", "large"}
# After a negation and a comma, in a list without "or": "no edema, small left effusion".
_SIZED = _KNOWN | _SIZES | {"left", "right", "bilateral", "bibasilar", "healed", "old", "chronic"}
# After a negation and "with": "no edema with stable effusion".
_WITH = _SIZED | {"the", "this", "these", "its", "their", "there"}
_IF_ANY = (["if", "any"], ["if", "present"])
_PLURAL = {"are", "were", "have"}
_GOES_ON = {"or", "and", *triggers.VERBS}


_PARTING = triggers.VERBS | triggers.AFTERWARDS | {*",/;:(", "and", "with", "or"}


def clause_breaks(words: list[str]) -> tuple[set[int], set[int], set[int]]:
    """Return the positions of commas and conjunctions at which a new clause begins.

    The first set begins one anyway, the second after a negation, and the third after "not".

    "No effusion, and the heart is large": what follows has a verb of its own. "No effusion and no
    pneumothorax is seen": it has not, since the verb only says that nothing is seen.
    """
    breaks: set[int] = set()
    denied: set[int] = set()
    commas: set[int] = set()
    verb = False  # a finite verb follows before the next joint
    plural = False  # and is in the plural
    together = -1  # an "and" between two subjects of a verb
    listed = False  # "or" follows in the clause
    length = len(words)
    for index in range(length - 1, -1, -1):
        word = words[index]
        if word not in _PARTING:
            continue
        if word in triggers.VERBS:
            if together >= 0:
                breaks.add(together)
                together = -1
            verb = not _is_participle(words, index) and triggers.PERCEPTION.isdisjoint(
                words[index + 1 : index + 3]
            )
            plural = word in _PLURAL
        elif word in (",", "and", "with", "or"):
            after = words[index + 1] if index + 1 < length else ""
            opens = after in _OPENERS or after in _ASSERTIVE.get(word, ())
            # "Effusions, if any, are small": the comma parts no clauses.
            goes_on = after in _GOES_ON or words[max(index - 2, 0) : index] in _IF_ANY
            parts = word != "or" and not goes_on and (verb or opens)
            # "Infiltrates and congestion have resolved": both have.
            if parts and word == "and" and plural and not opens:
                together = index  # unless another verb stands before it
            elif parts:
                breaks.add(index)
            if word == "with":
                grade = words[index + 2] if after in ("a", "an") and index + 2 < length else after
                parts = not goes_on and (verb or grade in _WITH or words[index - 1] == ",")
            elif word == ",":
                parts = parts or (after in _SIZED and not listed)
                if not listed and not goes_on:
                    commas.add(index)
            elif word == "and":
                parts = parts or (after in _KNOWN | _SIZES and not listed)
            if parts:
                denied.add(index)
            listed = (listed or word == "or") and not parts
            verb = False if after not in ("and", "or") else verb
        elif word == "/":
            listed = True
        elif word in (";", ":"):
            if not _goes_through(words, index):
                breaks.add(index)
                denied.add(index)
            verb = listed = False
            together = -1
        elif word in triggers.AFTERWARDS or (word == "(" and _opens(words, index)):
            denied.add(index)
    return breaks, denied, commas | denied


def _is_participle(words: list[str], index: int) -> bool:
    """Say whether "demonstrated" ends what is said: "no displaced fractures demonstrated"."""
    if words[index] != "demonstrated":
        return False
    after = "".join(words[index + 1 : index + 2])
    return not after[:1].isalnum() or after in triggers.PREPOSITIONS


def _opens(words: list[str], index: int) -> bool:
    """Say whether a statement begins in the parenthesis: "no effusion (a scar is seen)"."""
    return index + 1 < len(words) and words[index + 1] in _OPENERS | _SIZES


def _goes_through(words: list[str], index: int) -> bool:
    """Say whether no clause ends at the colon: "effusion: none", "no: effusion, edema"."""
    before, after = words[max(index - 1, 0)], "".join(words[index + 1 : index + 2])
    return words[index] == ":" and (
        after in triggers.ANSWERS or before in ("no", "of", "for", "without", "absent", "out")
    )
