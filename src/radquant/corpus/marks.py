"""What exporting programs write for a missing value and for a line break, and what an id is.

Taken back once, when a file is read, and counted by `Notes`, which end in data/cleaning.json.
"""

import html
import re
import unicodedata
from collections import Counter
from html.entities import html5

from radquant.corpus.cleaning import INVISIBLE

# (what, column or file, which) -> how many cells or files.
Notes = Counter[tuple[str, str, str]]

# What pandas, R, SAS, databases, JavaScript and spreadsheets write where there is no value. Whole
# cells are compared, without regard to case: "NA" is none, "NA was low." is a text.
_MISSING = frozenset(
    (
        *("nan", "-nan", "+nan", "nat", "na", "<na>", "n/a", "<n/a>", "#n/a", "#na", "#n/a n/a"),
        *("null", "<null>", "(null)", "[null]", "(missing)", "undefined"),
        *("#null!", "#value!", "#ref!", "#div/0!", "#name?", "#num!", "#nv", "#n/d"),
        *("1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan", "1.#nan"),
    )
)
# By their exact case: "none" is what a person writes, and \n is a line break.
_MISSING_AS_WRITTEN = frozenset({"None", "<None>", "\\N"})
# Put together from several, or ended as a sentence is.
_SEVERAL = re.compile(
    r"(?P<mark>nan|null|<na>|n/a)(?:[.,;]|(?:[\s.,;:|/]+(?P=mark))+[.,;]?|(?P=mark)*)",
    re.IGNORECASE,
)
_LONGEST = 24


def missing_mark(value: str, says_none: bool = False) -> str | None:
    """Return the mark for a missing value that a cell holds and nothing else, else None.

    says_none: "None" is an answer in this column, as it is in a comparison.
    """
    mark = value.strip()
    if not mark or len(mark) > _LONGEST:
        return None
    if mark in _MISSING_AS_WRITTEN:
        return None if says_none and mark == "None" else mark
    if mark.casefold() in _MISSING:
        return mark
    several = _SEVERAL.fullmatch(mark)
    if several is None:
        return None
    return "NaN" if several["mark"].lower() == "nan" else several["mark"]


# What may be a mark in a text; most texts have none, and are looked at no further.
_ANY = re.compile(r"[\\&~\v\f\x1e\x85\u2028\u2029]|<(?:br|/?p\b|cr|lf)|_x00", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_BREAK_ENTITY = re.compile(
    r"&#(?:x0*d|0*13);(?:&#(?:x0*a|0*10);)?|&(?:#(?:x0*a|0*10)|newline);", re.IGNORECASE
)
_TAG = re.compile(
    r"<(?:br\s*/?|/?p(?:\s+[a-z-]+\s*=[^<>]{0,200})?|cr>?<?lf|cr|lf)\s*>[ \t]*(?:\r\n|\n|\r)?",
    re.IGNORECASE,
)
_SPREADSHEET = re.compile(r"_x000d_(?:_x000a_|\r?\n)?|_x000[9abc]_(?:\r?\n)?", re.IGNORECASE)
_HL7_NAME = r"(?:\.(?:br|sp\+?\d*|ce)|X(?:0D0A|0A0D|0A|0D))"
_HL7_BREAK = re.compile(rf"(?:\\\\{_HL7_NAME}\\\\|\\{_HL7_NAME}\\)(?:\r\n|\n|\r)?", re.IGNORECASE)
_HL7_LAYOUT = re.compile(r"\\(?:\.(?:fi|nf|in[+-]?\d*|ti[+-]?\d*|sk\+?\d*)|[HN])\\", re.IGNORECASE)
# Between letters it may be a slash: L\R\B.
_HL7_CHARACTER = re.compile(r"(?<![A-Za-z\d])\\[FSTRE]\\|\\[FSTRE]\\(?![A-Za-z\d])")
_HL7_CHARACTERS = {"F": "|", "S": "^", "T": "&", "R": "~", "E": "\\"}
_OTHER_BREAK = re.compile("[\v\f\x1e\x85\u2028\u2029]")
_REAL_BREAK = re.compile(r"[\r\n]")
# A path's backslashes are its own: C:\new, \\server\new.
_PATH = r"(?<![A-Za-z])[A-Za-z]:\\(?!\\)\S*|(?<!\S)\\\\[\w.$-]+\\(?!\\)\w\S*"
_ESCAPE = re.compile(
    rf"(?P<path>{_PATH})"
    r"|\\{1,2}(?P<break>r\\{1,2}n|n|r(?=\s|$|\\|[A-Z])|u000[aAdD]|x0[aAdD])"
)
_ESCAPED = re.compile(rf"(?P<path>{_PATH})|\\{{1,2}}(?P<which>[t\"'/])")
_ESCAPED_AS = {"t": "\t", '"': '"', "'": "'", "/": "/"}
_AMOUNT = re.compile(r"(?:^|[\s(])~\s?(?:\d|[a-z])|\d\s?~\s?\d")  # "~ 5 mm", "~half", "5~6 mm"


def meant(text: str, notes: Notes | None = None, column: str = "") -> str:
    """Return `text` with line breaks where an exporting program wrote a mark for one.

    Marks are those of spreadsheets (_x000D_), of HTML (<br>, <p>, &#10;) and of HL7 (\\.br\\,
    \\X0A\\, and ~ where it can be nothing else). So are the rarer ones of Unicode, and a
    written-out \\n. The last is no mark in a path. Nor is it one where it may be a slash within a
    word ("y\\n") or stands among real line breaks, unless there are several. Entities of HTML
    (&lt;) and HL7 (\\T\\) are characters.
    """
    text = text.replace("\ufeff", "")  # the mark of a file's beginning is never a text's own
    if not _ANY.search(text):
        return text
    found: list[str] = []

    def change(pattern: re.Pattern[str], new: str, kind: str) -> None:
        nonlocal text
        text, count = pattern.subn(new, text)
        if count:
            found.append(kind)

    change(_SPREADSHEET, "\n", "spreadsheet")
    if "&" in text:
        change(_BREAK_ENTITY, "\n", "HTML")
        unescaped = _ENTITY.sub(_character, text)
        found += ["entity"] * (unescaped != text)
        text = unescaped
    change(_TAG, "\n", "HTML")
    if "\\" in text:
        change(_HL7_BREAK, "\n", "HL7")
        if "HL7" in found:
            change(_HL7_LAYOUT, "", "HL7 layout")
        text, count = _HL7_CHARACTER.subn(lambda match: _HL7_CHARACTERS[match[0][1]], text)
        found += ["entity"] * bool(count)
        text, escaped = _without_escapes(text)
        found += ["backslash"] * escaped
    if text.count("~") > 1 and not _REAL_BREAK.search(text) and not _AMOUNT.search(text):
        change(re.compile("~"), "\n", "HL7")
    change(_OTHER_BREAK, "\n", "Unicode")
    if notes is not None:
        for kind in dict.fromkeys(found):
            notes["entities" if kind == "entity" else "line breaks", column, kind] += 1
    return text


def _character(entity: re.Match[str]) -> str:
    """The character that an entity of HTML stands for, itself if for none."""
    name = entity[0][1:]
    return html.unescape(entity[0]) if name.startswith("#") else html5.get(name, entity[0])


def _without_escapes(text: str) -> tuple[str, bool]:
    """(the text with the breaks that \\n stands for, whether there was one); see `meant`."""
    marks = [match for match in _ESCAPE.finditer(text) if match["break"]]
    clear = {match.start() for match in marks if not _between_letters(match)}
    # A backslash that is no escape says that this program does not escape.
    rest = _ESCAPED.sub("", _ESCAPE.sub("", text)).replace("\\\\", "")
    escapes = "\\" not in rest
    if _REAL_BREAK.search(text.strip()):
        if not escapes or len(clear) < 2 or len(clear) < len(marks):
            return text, False
    elif not clear and not (escapes and len(marks) > 1):
        return text, False

    def new(match: re.Match[str]) -> str:
        return "\n" if match["break"] and (escapes or match.start() in clear) else match[0]

    text = _ESCAPE.sub(new, text)
    if escapes:
        text = _ESCAPED.sub(lambda match: match["path"] or _ESCAPED_AS[match["which"]], text)
    return text, True


def _between_letters(mark: re.Match[str]) -> bool:
    """Say whether a mark may be a slash within a word or behind a short one, as in "y\\n"."""
    before = mark.string[max(0, mark.start() - 3) : mark.start()]
    behind = mark.string[mark.end() : mark.end() + 1]
    short = not (len(before) == 3 and before.isalpha())
    return before[-1:].isalpha() and (behind.islower() or (not behind and short))


_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_WHOLE_FLOAT = re.compile(r"(-?\d+)(?:\.0+|,0)")
_FORCED = re.compile(r"=\"(.*)\"|'(?=[\d=+@-])(.*)")  # what makes a spreadsheet keep it as text


def tidy(name: str) -> str:
    """Return the name of a column in one Unicode form and without the space around it."""
    if name.isascii() and name.isidentifier():
        return name
    return unicodedata.normalize("NFC", " ".join(INVISIBLE.sub("", name).split()))


def same_id(value: str) -> str:
    """Return an id as it is compared and stored: in one Unicode form (NFC, no full-width digits),
    stripped, without invisible characters, and 7.0 as 7.

    A column of numbers of which one is missing is written with ".0" by many programs. Leading zeros
    and case tell two ids apart.
    """
    if value.isalnum() and value.isascii():
        return value
    plain = tidy(value.translate(_FULL_WIDTH))
    forced = _FORCED.fullmatch(plain)
    plain = (forced[1] or forced[2] or "") if forced else plain
    number = _WHOLE_FLOAT.fullmatch(plain)
    return number[1] if number else plain
