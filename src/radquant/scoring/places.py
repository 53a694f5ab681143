"""Where in the lung, or on which bone, words say that a finding is."""

import re
from collections.abc import Iterable, Set

# Words between a height and its noun: "upper and lower lobes".
_BETWEEN = r"(?:(?:and|or|to|the|left|right|upper|middle|mid|lower|predominant\w*)\W+){0,5}"
_LUNG = r"(?:lobes?|lobar|lungs?|zones?|fields?|hemithorax|hemithoraces)\b"
_ORDINALS = "first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth"
_NUMBERS = {word: number for number, word in enumerate(_ORDINALS.split("|"), 1)}

# {label: what names it}. In the lung:
_ZONES = {
    "upper": rf"\b[rl]ul\b|\bsuprahilar\b|\bupper\W+{_BETWEEN}{_LUNG}",
    "middle": rf"\brml\b|\bmiddle\W+{_BETWEEN}{_LUNG}",
    "mid": rf"\bmid\W?(?:lungs?|zones?)\b|\bmid\W+{_BETWEEN}{_LUNG}",
    "lower": rf"\b[rl]ll\b|\binfrahilar\b|\blower\W+{_BETWEEN}{_LUNG}",
    "lingula": r"\blingula\w*",
    "apex": r"\b(?:bi)?ap(?:ex|ices|ical|ically)\b",
    "base": r"\b(?:bi)?bas(?:e|es|al|ally|ilar)\b(?!\W+of\b)",
    "perihilar": r"\b(?:peri|para)hilar\b",
    "retrocardiac": r"\bretro\W?cardiac\b",
}
# On the skeleton:
_BONES = {
    "rib": r"\b(?:ribs?|costal)\b",
    "clavicle": r"\bclavic\w+",
    "humerus": r"\bhumer(?:us|al|i)\b",
    "scapula": r"\bscapul\w+",
    "sternum": r"\bstern(?:um|al)\b",
    "shoulder": r"\b(?:shoulders?|acromioclavicular|glenohumeral)\b",
    "spine": r"\b(?:spin(?:e|al)|vertebra\w*)\b",
    "cervical": r"\bcervical\b",
    "thoracic": r"\b(?:mid)?(?:thoracic|thoracolumbar)\W+(?:spine|vertebra\w*)",
    "lumbar": r"\b(?:lumbar|thoracolumbar)\b",
}
_ZONE = {label: re.compile(pattern) for label, pattern in _ZONES.items()}
_BONE = {label: re.compile(pattern) for label, pattern in _BONES.items()}
_VERTEBRA = re.compile(r"\b([tlc])-?(\d{1,2})\b")
_RIB = re.compile(rf"\b(?:(\d{{1,2}})(?:st|nd|rd|th)?|({_ORDINALS}))\b(?!\W?[cm]m)")

_SAME_LIST = re.compile(
    r"[\s,;/&-]{0,4}(?:(?:and|or|to|the|left|right|in|of|lungs?|lobes?|zones?|regions?|sided|"
    r"greater|than|more|as|well)[\s,/&-]{1,4}){0,5}"
)
_CLAUSE = re.compile(r"[;.]|,\s|\b(?:with|but|while|whereas)\b|\band\b(?=\s(?:the\s)?clear)")
_SPARED = re.compile(
    r"\b(?:clear|unremarkable|normal|spared|sparing|well[\s-]{1,3}(?:aerated|expanded|inflated))\b"
)

# Labels that may be of one place: the left base is the lower lobe, or the lingula.
_PAIRS = """
    upper~apex lower~base middle~mid middle~base lingula~upper lingula~mid lingula~base
    lingula~middle retrocardiac~lower retrocardiac~base perihilar~mid perihilar~middle
    spine~cervical spine~thoracic spine~lumbar cervical~C thoracic~T lumbar~L spine~C spine~T
    spine~L rib~rib# clavicle~shoulder humerus~shoulder scapula~shoulder
"""
_ALIKE = {frozenset(pair.split("~")) for pair in _PAIRS.split()}

ON_BONES = frozenset({"fracture", "compression deformity", "degenerative change", "osteopenia"})
NOT_IN_LUNG = ON_BONES | {
    *("pneumomediastinum", "free air", "pericardial effusion", "heart failure", "cardiomegaly"),
    *("widened mediastinum", "pulmonary hypertension", "aneurysm", "low lung volumes", "hernia"),
    *("aortic tortuosity or calcification", "raised diaphragm", "mediastinal shift"),
    *("scoliosis or kyphosis", "postoperative change", "tube", "endotracheal tube"),
    *(
        "tracheostomy",
        "enteric tube",
        "chest tube",
        "pacemaker",
        "central line",
        "aortic balloon pump",
    ),
}


def zones(text: str) -> set[str]:
    """Return the labels of the parts of the lung that `text`, in lower case, names."""
    return set().union(*zone_lists(text))


def zone_lists(text: str) -> list[set[str]]:
    """Return the labels of `text`, in lower case, in the lists in which it names them.

    "Upper and lower lobe opacities with basal effusions" has two: upper and lower, and base. What
    is called clear or spared is no place of a finding.
    """
    text = ";".join(clause for clause in _CLAUSE.split(text) if not _SPARED.search(clause))
    named = sorted(
        (match.start(), match.end(), label)
        for label, pattern in _ZONE.items()
        for match in pattern.finditer(text)
    )
    lists: list[set[str]] = []
    last = 0
    for start, end, label in named:
        if lists and (start <= last or _SAME_LIST.fullmatch(text, last, start)):
            lists[-1].add(label)
        else:
            lists.append({label})
        last = max(last, end)
    return lists


def bones(text: str) -> set[str]:
    """Return the labels of the bones that `text`, in lower case, names: "rib 5", "T12"."""
    found = {label for label, pattern in _BONE.items() if pattern.search(text)}
    found |= {f"{letter.upper()}{number}" for letter, number in _VERTEBRA.findall(text)}
    if "rib" in found:
        numbers = {int(digits or _NUMBERS[word]) for digits, word in _RIB.findall(text)}
        numbers = {number for number in numbers if 1 <= number <= 12}
        if numbers:
            found = found - {"rib"} | {f"rib {number}" for number in numbers}
    return found


def elsewhere(places: Iterable[str], others: Set[str]) -> set[str]:
    """Return those of `places` that none of `others` may be."""
    return {place for place in places if not any(_alike(place, other) for other in others)}


def _alike(one: str, other: str) -> bool:
    return one == other or frozenset((_general(one), _general(other))) in _ALIKE


def _general(label: str) -> str:
    """The label without its number: "T12" is a T, "rib 5" a rib#."""
    if label.startswith("rib "):
        return "rib#"
    return label[0] if label[1:].isdigit() else label
