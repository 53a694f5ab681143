"""What the heading of a report's section stands for, by its name alone.

The usual names are taken from the MIMIC-CXR code repository's section parser (Johnson et al.,
2019); a user may declare more, in any language.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache

Declared = Mapping[str, Sequence[str]]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# A heading is of a kind. "both" is findings and impression in one, and "summary" the impression of
# a report that has no other. "views" ("CHEST, TWO VIEWS:") and "report" name the body where no
# heading of findings does. A "part" ("LUNGS:") stays in its section, and "other" ends it; "unknown"
# is a line in capitals that could be either.
_NAMES = {
    "findings": "FINDINGS | FINDING | RADIOGRAPHIC FINDINGS | RADIOLOGICAL FINDINGS"
    " | IMAGING FINDINGS | CHEST FINDINGS | REFERENCE FINDINGS",
    "impression": "IMPRESSION | IMPRESSIONS | CONCLUSION | CONCLUSIONS"
    " | FINAL IMPRESSION | OVERALL IMPRESSION | CLINICAL IMPRESSION | DIAGNOSTIC IMPRESSION"
    " | RADIOLOGICAL IMPRESSION | IMPRESSION AND PLAN | IMPRESSION AND RECOMMENDATION"
    " | IMPRESSION AND RECOMMENDATIONS | IMPRESSION WITH RECOMMENDATION"
    " | IMPRESSION WITH RECOMMENDATIONS",
    "both": "FINDINGS AND IMPRESSION | FINDING AND IMPRESSION | FINDINGS AND IMPRESSIONS"
    " | FINDINGS IMPRESSION | IMPRESSION AND FINDINGS | FINDINGS AND CONCLUSION"
    " | FINDINGS AND CONCLUSIONS",
    "summary": "SUMMARY | OPINION",
    "indication": "INDICATION | INDICATIONS | CLINICAL INDICATION | CLINICAL INDICATIONS | HISTORY"
    " | CLINICAL HISTORY | PATIENT HISTORY | MEDICAL HISTORY | PAST MEDICAL HISTORY"
    " | HISTORY AND INDICATION | INDICATION AND HISTORY | HISTORY OF PRESENT ILLNESS"
    " | CLINICAL INFORMATION | CLINICAL INFO | CLINICAL DATA | CLINICAL DETAILS | CLINICAL QUESTION"
    " | REASON FOR EXAM | REASON FOR EXAMINATION | REASON FOR THE EXAM | REASON FOR STUDY"
    " | REASON FOR THE EXAMINATION | REASON FOR THE STUDY | REASON FOR THIS EXAMINATION",
    "comparison": "COMPARISON | COMPARISONS | COMPARISON STUDY | COMPARISON STUDIES"
    " | COMPARISON EXAM | COMPARISON EXAMINATION | COMPARISON FILM | COMPARISON FILMS"
    " | REFERENCE EXAM | PRIOR STUDIES | PRIOR STUDY",
    "technique": "TECHNIQUE | EXAMINATION | EXAM | EXAM TYPE | STUDY | PROCEDURE | VIEWS"
    " | TYPE OF EXAMINATION | TYPE OF EXAM",
    "report": "REPORT | NARRATIVE | BODY OF REPORT | RESULT | RESULTS",
    "part": "ADDITIONAL FINDINGS | OTHER FINDINGS | INCIDENTAL FINDINGS | SIGNIFICANT FINDINGS"
    " | SUPPORTING FINDINGS | OTHER | OTHERS | MISCELLANEOUS",
    "other": "NOTIFICATION | NOTIFICATIONS | RECOMMENDATION | RECOMMENDATIONS | SIGNED BY"
    " | ELECTRONICALLY SIGNED BY | ELECTRONICALLY SIGNED | ELECTRONIC SIGNATURE | TRANSCRIBED BY"
    " | INTERPRETED BY | READ BY | REPORTED BY | APPROVED BY | REVIEWED BY"
    " | RADIATION DOSE | DOSE | DICTATED BY | ATTENDING | CRITICAL RESULT | CRITICAL RESULTS"
    " | CRITICAL FINDING | CRITICAL FINDINGS | ADDENDUM | ADDENDA | END OF IMPRESSION"
    " | END OF FINDINGS | END OF REPORT",
}
# These are headings only in capitals: "Note: the left base is hazy" does not end a section.
_IN_CAPITALS = {
    "impression": "IMP | IMPR",
    "other": "COMMENT | COMMENTS | NOTE | NOTES | DATE | PFI | CC | ATTESTATION | DISCLAIMER"
    " | COMMUNICATION | FOLLOW-UP | FOLLOWUP | PLAN",
}
# Names that are words of plain prose, too: within a line they follow the end of a sentence.
_PLAIN = _words(
    "OPINION SUMMARY EXAM STUDY PROCEDURE VIEWS DOSE ATTENDING COMMENT COMMENTS NOTE NOTES DATE "
    "PLAN REPORT NARRATIVE RESULT RESULTS OTHER OTHERS MISCELLANEOUS ADDENDUM ADDENDA"
)
# The names of which a misspelling is recognised where the word is long enough to be unmistakable.
_SPELT = _words(
    "FINDINGS IMPRESSION IMPRESSIONS CONCLUSION CONCLUSIONS INDICATION INDICATIONS COMPARISON "
    "COMPARISONS TECHNIQUE EXAMINATION RECOMMENDATION RECOMMENDATIONS NOTIFICATION"
)

_VIEWS = _words("VIEW VIEWS RADIOGRAPH RADIOGRAPHS FILM FILMS XRAY XRAYS RAY RAYS CXR")
# Words that with CHEST or one of those above make a heading of views.
_VIEW_LIKE = _VIEWS | _words(
    "CHEST PORTABLE PA AP AND LATERAL FRONTAL UPRIGHT SUPINE ERECT SEMI SEMIERECT SEMIUPRIGHT "
    "SINGLE ONE TWO THREE THE OF A X EXAM EXAMINATION STUDY LEFT RIGHT BEDSIDE DECUBITUS LAT CT "
    "PLAIN ON FROM AT DATED COMPARED TO WITH WITHOUT CONTRAST AM PM M P HOURS HRS"
)
# Words of organs, devices and signs, which head a part of the findings: "LUNGS AND PLEURA:".
_PARTS = _words(
    "LUNG LUNGS PULMONARY AIRSPACE AIRSPACES AIRWAY AIRWAYS TRACHEA BRONCHI PLEURA PLEURAL HEART "
    "CARDIAC CARDIOMEDIASTINAL CARDIOMEDIASTINUM MEDIASTINUM MEDIASTINAL HILA HILUM HILAR HILI "
    "AORTA AORTIC VESSELS VASCULAR VASCULATURE BONE BONES BONY OSSEOUS SKELETON SKELETAL "
    "MUSCULOSKELETAL RIB RIBS SPINE CLAVICLE CLAVICLES SHOULDER SHOULDERS SOFT TISSUE TISSUES WALL "
    "DIAPHRAGM DIAPHRAGMS HEMIDIAPHRAGM HEMIDIAPHRAGMS ABDOMEN ABDOMINAL PELVIS LIVER SPLEEN "
    "KIDNEY KIDNEYS BOWEL STOMACH GALLBLADDER PANCREAS ADRENALS NECK THYROID BREAST BREASTS LYMPH "
    "NODES ESOPHAGUS PERICARDIUM PERICARDIAL CORONARY LOBE LOBES APEX APICES BASE BASES FISSURE "
    "FISSURES HEMITHORAX THORAX SINUSES COSTOPHRENIC SILHOUETTE CONTOUR CONTOURS DEVICE DEVICES "
    "LINE LINES TUBE TUBES CATHETER CATHETERS HARDWARE PACEMAKER IMPLANTS ETT NGT OGT PICC CVC "
    "PORT SVC LEADS CABG STERNOTOMY PNEUMOTHORAX EFFUSION EFFUSIONS EDEMA CONSOLIDATION "
    "CONSOLIDATIONS ATELECTASIS NODULE NODULES MASS MASSES OPACITY OPACITIES INFILTRATE "
    "INFILTRATES FRACTURE FRACTURES EMPHYSEMA PNEUMONIA CARDIOMEGALY CONGESTION CALCIFICATION "
    "CALCIFICATIONS VOLUMES INTERSTITIUM PARENCHYMA PARENCHYMAL RUL RML RLL LUL LLL"
)
# With one of these a line in capitals is a sentence.
_VERBS = _words(
    "IS ARE WAS WERE BE BEEN HAS HAVE NOT NONE THERE THIS THESE THAT FOLLOWING SEEN SHOWS SHOW MAY "
    "WILL SHOULD DR"
)
_SENTENCE = _VERBS | _words("NO THE WITH COMPARED CONSISTENT LIKELY DUE SINCE UNCHANGED STABLE")
# The sections that a name in capitals may have among other words, and the words that say that it is
# none of this report's.
_MAIN = _words("FINDINGS FINDING IMPRESSION IMPRESSIONS CONCLUSION HISTORY COMPARISON")
_ANOTHER = _words("PRIOR PREVIOUS PROVISIONAL PRELIMINARY OUTSIDE END CRITICAL URGENT UNEXPECTED")

_CAPITALS = re.compile(r"[A-Z][A-Z0-9 ,/()&._:#+'\[\]-]*")
_LIKE = dict.fromkeys("\u2236\ua789\u02d0\ufe13", ":") | dict.fromkeys("\u2018\u2019\u02bc", "'")


def flat(text: str) -> str:
    """Return `text` in as many characters, with plain spaces and Latin letters without accents.

    Fullwidth letters and colons become ASCII ones. Headings are compared in this form.
    """
    if text.isascii():
        return text.translate(_CONTROLS)
    return text.translate(
        {ord(char): _plain(char) for char in set(text) if not char.isascii()} | _CONTROLS
    )


_CONTROLS = {code: " " for code in (*range(9), 11, 12, *range(14, 32), 127)}


def _plain(char: str) -> str:
    if char.isspace():
        return " "
    if char in _LIKE:
        return _LIKE[char]
    base = "".join(c for c in unicodedata.normalize("NFKD", char) if not unicodedata.combining(c))
    return base if len(base) == 1 else char


@lru_cache(maxsize=16)
def known_names(declared: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    """Return the kinds by the keys of names: the usual ones, and declared pairs (kind, name)."""
    return _USUAL | {key_of(flat(name)): kind for kind, name in declared}


def known_kind(phrase: str, known: Mapping[str, str]) -> str | None:
    """Return the kind of a phrase that is a name, or a misspelt one, whatever its parentheses say.

    "FINDINGS (CONTINUED)" is a part, and "PRIOR IMPRESSION" none of this report's.
    """
    phrase = read_capitals(phrase)
    if phrase in known:
        return known[phrase]
    in_capitals = phrase == phrase.upper()
    for written in dict.fromkeys((phrase, _QUALIFIER.sub("", phrase))):
        key = key_of(written)
        words = [_near_miss(word) or word for word in key.split()]
        for name in dict.fromkeys((key, " ".join(words))):
            kind = known.get(name) or (_USUAL_IN_CAPITALS.get(name) if in_capitals else None)
            if not kind and {known.get(each) for each in _JOINING.split(name)} == _BOTH:
                kind = "both"  # "Befund und Beurteilung"
            if kind:
                return "part" if _CONTINUED.search(phrase) else kind
        if in_capitals and words and words[-1] in _MAIN and _ANOTHER.intersection(words):
            return "other"
    return None


def read_capitals(phrase: str) -> str:
    """Return a phrase in capitals with "I" where it was read as "l": "lMPRESSlON"."""
    capitals = phrase.replace("l", "I")
    return capitals if capitals == capitals.upper() else phrase


def is_plain(phrase: str, known: Mapping[str, str]) -> bool:
    """Say whether a name is a word of prose, too, and not declared."""
    key = phrase if phrase in known else key_of(phrase)
    return key in _PLAIN and known.get(key) in (_USUAL.get(key), None)


def kind_in_capitals(phrase: str) -> str | None:
    """Return the kind of a phrase that begins a line and has a colon behind it; None: it is prose.

    Only capitals tell: any words in them may be a heading.
    """
    if not _CAPITALS.fullmatch(phrase):
        return None
    spelt = re.findall(r"[A-Z]+", phrase.replace("X-RAY", "XRAY"))
    words = [_near_miss(word) or word for word in spelt]
    letters = sum(map(len, words))
    held = set(words)
    in_words = not re.search(r"[0-9_.:#+]", phrase)  # "AT 5", "B.I.D."
    if in_words and not held & (_SENTENCE | _PARTS):
        main = _main_kind(words)
        if main:
            return main
    if held & _VIEWS or (held & {"CHEST", "PORTABLE", "LATERAL"} and held <= _VIEW_LIKE):
        return None if held & _VERBS or len(words) > 12 else "views"
    if not (in_words or held & {"CODE", "CODES"}) or held & _SENTENCE or letters < 2:
        return None
    if held & _PARTS and "RADS" not in held:
        return "part"
    return "unknown" if len(words) <= 6 and letters >= 4 else None


def _main_kind(words: Sequence[str]) -> str | None:
    """The section that words in capitals name among others: "IMPRESSION, CHEST"."""
    held = _MAIN.intersection(words)
    if _ANOTHER.intersection(words) and held:
        return "other"
    if words[:2] == ["REASON", "FOR"]:
        return "indication"
    if held & {"FINDINGS", "FINDING"} and held & {"IMPRESSION", "IMPRESSIONS", "CONCLUSION"}:
        return "both"
    kinds = {_USUAL[name] for name in held}
    if len(kinds) > 1:  # "COMPARISON/FINDINGS"
        kinds &= {"findings", "impression"}
    return kinds.pop() if len(kinds) == 1 else None


_JOINING = re.compile(" (?:AND|UND|ET|Y|E) ")  # key_of makes AND of a stroke
_BOTH = {"findings", "impression"}
_JOINED = re.compile(r"[ ]?[/&+,|\\-][ ]?(?:AND )?")
# "(CHEST)", "#2", "AT 5:39 A.M."
_QUALIFIER = re.compile(
    r"[ ]*(?:\([^()]*\)|\[[^\[\]]*\]|#?\d{1,2}|\b(?:(?:AT|ON|OF|FROM)[ ])?[\d_][\d_:./ ]{1,20}"
    r"(?:[AP]\.?M\.?|HOURS|HRS)?)[ ]*$"
)
_CONTINUED = re.compile(r"\(CONT(?:INUED|'D|D)?\.?\)$", re.IGNORECASE)


def pairs_of(declared: Declared) -> tuple[tuple[str, str], ...]:
    return tuple((kind, name) for kind, names in declared.items() for name in names)


def key_of(phrase: str) -> str:
    """Return a phrase as names are compared: capitals, single spaces, "AND" for "/" and "&"."""
    key = " ".join(phrase.upper().strip(" :.*_#").split())
    key = _JOINED.sub(" AND ", key)
    return f"{key[:-3]}S" if key.endswith("(S)") else key


@lru_cache(maxsize=4096)
def _near_miss(key: str) -> str | None:
    """The name of which `key` is a misspelling: one letter more, less or other, two swapped, or
    the same letters in disorder behind the first."""
    if not 7 <= len(key) <= 16 or " " in key or key in _SPELT:
        return None
    for name in sorted(_SPELT):
        if abs(len(name) - len(key)) <= 1 and _one_slip(key, name):
            return name
        if key[0] == name[0] and sorted(key) == sorted(name):
            return name
    return None


def _one_slip(first: str, second: str) -> bool:
    """Say whether an insertion, deletion, substitution or swap makes one the other."""
    start = 0
    while start < min(len(first), len(second)) and first[start] == second[start]:
        start += 1
    a, b = first[start:], second[start:]
    return a[1:] == b[1:] or a[1:] == b or a == b[1:] or (a[1::-1] + a[2:] == b and len(a) > 1)


def _by_key(names: Mapping[str, str]) -> dict[str, str]:
    return {key_of(name): kind for kind, row in names.items() for name in row.split(" | ")}


_USUAL, _USUAL_IN_CAPITALS = _by_key(_NAMES), _by_key(_IN_CAPITALS)
