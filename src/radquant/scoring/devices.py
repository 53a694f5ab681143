"""Whether words say that a tube or line is where it should not be."""

import re

_MOVE = r"(?:advanc|retract|withdraw|re\W?position|pull|push)\w*"
_ADVICE = (
    r"(?:recommend|advis|suggest|consider|need|requir|should|must|could|would|please|indicated)\w*"
)
_WORDS = r"(?:\W+\w+){0,8}?\W+"
_MISPLACED = (
    r"\b(?:mal|mis)\W?position\w*|\bmisplaced\b|\b(?:suboptimal|improper|incorrect|poor)\w*\W+"
    r"(?:position|place)\w*|\bnot\W+(?:\w+\W+){0,2}?(?:position|location|place|reach)\w*"
    r"|\bkink\w*|\bdislodg\w*|\bdisplaced\b|\bmigrat\w+|\bfractured\b|\bdisconnect\w*"
    r"|\b(?:coil|curl|loop)(?:s|ed|ing)?\b"
    r"(?!\W+(?:with)?in\W+(?:the\W+|an?\W+)?(?:\w+\W+)?(?:stomach|fundus|gastric|hiatal|hernia))"
    r"|\b(?:too|slightly|somewhat|rather|relatively)\W+(?:high|low|deep|far|distal|proximal|shallow)\b|\b(?:low|high)\W+(?:lying|position\w*)"
    r"|\bextra\W?(?:luminal|pleural)\b|\boutside\W+(?:of\W+)?(?:the\W+)?(?:left\W+|right\W+)?(?:pleura\w*|chest|thora\w+|rib|lung|hemithorax|stomach|body)|\bintra\W?arterial\b"
    rf"|\b{_ADVICE}{_WORDS}{_MOVE}|\b{_MOVE}{_WORDS}{_ADVICE}"
)
# What is right for one device is wrong for another.
_ESOPHAGUS = r"\b(?:esophag|oesophag)\w*"
_BRONCHUS = r"\b(?:bronch(?:us|i|ial\W+tree)|main\W?stem)\b"
_ENDS = (
    r"\b(?:tip|end(?:s|ing)|terminat\w+|project\w*|extend\w*|cours\w+|cross\w*|direct\w+|"
    r"in|into|within|at|over)\b"
)
_BY_DEVICE = {
    "endotracheal tube": rf"{_BRONCHUS}|\b(?:right|left)\W+main\b|{_ESOPHAGUS}|\bhypopharyn\w+"
    r"|\b(?:at|below|beyond|past|near|abut\w*|within)\W+(?:the\W+)?(?:level\W+of\W+)?(?:the\W+)?carina"
    r"|\babove\W+(?:the\W+)?(?:thoracic\W+inlet|vocal\W+cords)",
    "tracheostomy": rf"{_BRONCHUS}|{_ESOPHAGUS}",
    "enteric tube": rf"{_BRONCHUS}|{_ESOPHAGUS}|\b(?:oro|hypo)?pharyn\w+|\btrachea\b|\bairway\b"
    r"|\bpleural?\b|\b(?:above|at)\W+(?:the\W+)?(?:level\W+of\W+)?(?:the\W+)?"
    r"(?:ge\b|g-e\b|gastro\W?(?:o?esophageal)|diaphragm|hemidiaphragm)|\blobe\b|\blung\b",
    "central line": rf"{_ENDS}\W+(?:\w+\W+){{0,6}}?(?:jugular|ij|azyg\w+|axilla\w*|brachioceph\w+|"
    r"innominate|subclavian|atrium|ventric\w+|contralateral|hepatic|carotid|aorta)\b",
    "chest tube": r"\bchest\W+wall\b|\bsoft\W+tissues?\b|\bsubcutaneous\b|\bfissure\b|\babdom\w+",
    "pacemaker": r"\bperforat\w+",
    "aortic balloon pump": "",
    "tube": rf"{_BRONCHUS}|{_ESOPHAGUS}|\b(?:right|left)\W+(?:\w+\W+)?(?:lung|lobe|pleura\w*)\b",
}
DEVICES = frozenset(_BY_DEVICE)
_BAD = {
    device: re.compile("|".join(filter(None, (_MISPLACED, own))))
    for device, own in _BY_DEVICE.items()
}
# A device at one of these is in the right place, as it is with a word of praise.
_RIGHT = re.compile(
    r"\bcavo\W?atrial\b|\b(?:svc|superior\W+vena\W+cava)\b|\batri\w+\W+junction\b|\bpulmonary\W+arter"
    r"|\b(?:hemo)?dialysis\b|\bhd\b|\b(?:upper|proximal|superior|high)\W+(?:aspect\W+of\W+the\W+|portion\W+of\W+the\W+)?right\W+atri\w+|\btunnel\w+"
)
_PRAISE = re.compile(
    r"(?<!not in )(?<!not )\b(?:good|standard|satisfactory|appropriate|adequate|proper|expected|"
    r"acceptable|optimal|normal|correct|usual)\W+(?:and\W+\w+\W+)?(?:anatomic\W+)?"
    r"(?:position|location|placement)|(?<!not )\b(?:appropriate|satisfactori|adequate|well|correct|"
    r"proper|optimal)(?:ly)?\W+(?:re)?(?:position|place|locat|seat)ed"
)
_BUT = re.compile(r"\b(?:but|however|although|though)\b")
_NOT_NOW = re.compile(
    r"\b(?:through|past|down|along|travers\w+|pass(?:es|ing)|below|beyond)\W+(?:the\W+)?(?:\w+\W+)?"
    r"(?:o?esophag\w+|ge|gastro\W?esophageal|diaphragm|hemidiaphragm)\b|"
    r"\b(?:no|without|not|never)\W+(?:\w+\W+){0,3}?(?:kink|malposition|misplace|displace|migrat|"
    r"dislodge|coil|fracture|disconnect)\w*|\bno\W+longer\b[^,.;]*|\b(?:should|need)\W+not\b[^,.;]*|\b(?:previously|formerly)\b[^,.;]*"
    r"|\binterval\W+(?:advanc|retract|withdraw|re\W?position)\w*"
)
# A sentence that goes on with the device of the one before it.
CONTINUES = re.compile(
    rf"\W*(?:(?:it|its|this|the\W+tip|tip|the\W+side\W?\W?(?:port|hole)|side\W?(?:port|hole))\b|"
    rf"{_MOVE}|(?:recommend|consider|suggest|advise)\w*)"
)


def misplaced(text: str, device: str) -> bool:
    """Say whether `text`, in lower case and about `device`, has it in a wrong place."""
    text = _NOT_NOW.sub(" ", text)
    bad = _BAD[device].search(text)
    if not bad:
        return False
    if device == "central line" and _RIGHT.search(text):
        bad = re.search(_MISPLACED, text)
    if bad and _PRAISE.search(text):
        but = _BUT.search(text)
        return bool(but and _BAD[device].search(text, but.end()))
    return bool(bad)
