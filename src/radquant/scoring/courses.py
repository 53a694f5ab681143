"""How words say that a finding has changed since an earlier examination."""

import re

WORSE, BETTER, STABLE, NEW = "worse", "better", "stable", "new"
# Said of what is seen as well as of what has changed: "increased markings", "persistent opacity".
MORE, LESS, STILL = "more", "less", "still there"

_FEW = r"(?:\w+\W+){0,3}"
_WORD_OF_CHANGE = (
    r"(?:change[sd]?|changing|increas\w+|decreas\w+|worsen\w+|improve\w*|improving|progress\w*|"
    r"enlarge\w*|grown?|growth|difference|resol\w+|cleared)"
)
# "No worsening" is said first, and taken out before the others are looked for.
_NO_CHANGE = re.compile(
    rf"\b(?:no|not|without|little|nor|neither)\W+(?:(?!no\b|new\b|acute\b|but\b)\w+\W+){{0,3}}?"
    rf"{_WORD_OF_CHANGE}\b|\bunchanged\b|\bstab(?:le|ly|ility)\b|\bstatic\b|\bconstant\b"
    r"|\bsimilar(?:ly)?\b|\bas before\b|\bcomparable\b"
)
# "Improved aeration with more atelectasis": how well the lungs are filled is another matter.
_FILLED = (
    r"(?:aerat\w+|inspirat\w+|inflat\w+|expansion|effort|ventilation|lung\W+volumes?|penetration)"
)
_FILLING = re.compile(
    r"\b(?:increas\w+|decreas\w+|improv\w+|worse\w*|better|reduced|diminished|larger|smaller)\W+"
    rf"(?:in\W+|of\W+)?(?:the\W+)?(?:\w+\W+)?{_FILLED}|\b{_FILLED}\W+(?:\w+\W+){{0,3}}?"
    r"(?:increas\w+|decreas\w+|improv\w+|worse\w*|better|reduced|diminished)\b"
)
_DENIED = re.compile(r"\b(?:no|without)\W+(?:\w+\W+)?new\b|\bnot\W+new\b|\bno\W+longer\b")
# "Larger on the right" compares sides, "better seen" views.
_SIDES = (
    r"(?!\W+(?:on|in|at)\W+(?:the\W+)?(?:left|right)|\W+than\W+(?:on\W+)?(?:the\W+)?(?:left|right))"
)
_SEEN = (
    r"(?!\W+(?:seen|visuali\w+|evaluat\w+|appreciat\w+|assess\w+|defin\w+|demonstrat\w+|"
    r"characteri\w+|depict\w+|delineat\w+|inflat\w+|expan\w+|aerat\w+|inspir\w+))"
)
_LOOKS = r"(?:prominent|extensive|conspicuous|confluent|dense|severe|pronounced|apparent|evident)"
_IN_TIME = (
    r"(?:(?:has|have|had|is|are)\W+(?:\w+\W+){{0,2}}?{0}ed\b|\b{0}ing\b|"
    r"\b{0}ed\W+(?:in\W+(?:size|extent|number|volume|amount)|since|from|compared|over)\b|"
    r"\binterval\W+(?:\w+\W+){{0,2}}?{0}e?d?\b|\b{0}e\W+(?:in|of)\b)"
)
_PATTERNS = {
    NEW: r"\bnew(?:ly)?\b|\binterval\W+(?:development|appearance|occurrence)\b"
    rf"|\b(?:has|have)\W+{_FEW}?(?:developed|appeared)\b",
    WORSE: rf"\bworse\b{_SIDES}|\bworsen\w*|\bdeteriorat\w+|\bprogress(?:ed|ing|ion|ive\w*)\b"
    rf"|\b(?:larger|bigger)\b{_SIDES}|\bmore\W+{_LOOKS}\b{_SIDES}|\bgrow(?:n|ing|th)\b|\bgrew\b|\b(?:doubl|tripl)\w+"
    r"|\benlarging\b|\binterval\W+enlargement\b|\b(?:has|have)\W+(?:\w+\W+){0,2}?enlarged\b|"
    + _IN_TIME.format("increas"),
    BETTER: rf"\bimprov\w+|\bbetter\b{_SEEN}|\bsmaller\b{_SIDES}|\bless\W+{_LOOKS}\b{_SIDES}"
    r"|\bresolving\b|\b(?:partial\w*|near\w*|almost|interval|mostly|largely)\W+(?:\w+\W+)?resol\w+"
    r"|\bclear(?:ing|ed)\b|\bregress\w+|\blessen\w*|\bshr[iua]nk\w*|\bsubsid\w+|\breced\w+|"
    + "|".join(_IN_TIME.format(stem) for stem in ("decreas", "diminish", "reduc")),
    MORE: r"\bincreased?\b",
    LESS: r"\b(?:decreased?|diminished|reduced|reduction)\b",
    STILL: r"\bpersist\w*|\bagain\b|\bredemonstrat\w+|\bremain\w*|\bcontinue[sd]?\b",
}
_PATTERN = {label: re.compile(pattern) for label, pattern in _PATTERNS.items()}
_ANY = re.compile("|".join(f"(?:{pattern})" for pattern in _PATTERNS.values()))

# Courses that cannot both be said of one finding.
_AGAINST = {
    frozenset(pair)
    for pair in (
        *((WORSE, BETTER), (WORSE, STABLE), (BETTER, STABLE), (NEW, BETTER), (NEW, STABLE)),
        *((NEW, STILL), (MORE, LESS), (MORE, BETTER), (LESS, WORSE), (LESS, NEW)),
    )
}
# An "increased effusion" is one that has grown; "increased markings" are a finding's own name.
_GROWS = frozenset({
    *("pleural effusion", "pericardial effusion", "pneumothorax", "pneumomediastinum"),
    *("subcutaneous emphysema", "pulmonary edema", "atelectasis", "consolidation", "pneumonia"),
    *("nodule", "mass", "heart failure", "adenopathy or hilar enlargement"),
})  # fmt: skip
_NAMED_BY_SIZE = "low lung volumes"


def courses(text: str, finding: str) -> set[str]:
    """Return what `text`, in lower case, says of the course of `finding`.

    "Stable" beside a weak word ("remains stable", "increased markings, unchanged") is all it says.
    """
    found = {STABLE} if _NO_CHANGE.search(text) else set()
    text = _DENIED.sub(" ", _FILLING.sub(" ", _NO_CHANGE.sub(" ", text)))
    if _ANY.search(text):
        found |= {label for label, pattern in _PATTERN.items() if pattern.search(text)}
    if finding == _NAMED_BY_SIZE:
        found -= {MORE, LESS}
    if finding in _GROWS:
        found |= {{MORE: WORSE, LESS: BETTER}[label] for label in found & {MORE, LESS}}
    strong = found & {WORSE, BETTER, STABLE, NEW}
    return strong or found


def reversed_course(one: set[str], other: set[str]) -> bool:
    """Say whether each of two sets of courses, neither empty, contradicts all of the other."""
    return bool(one and other) and all(
        frozenset((first, second)) in _AGAINST for first in one for second in other
    )
