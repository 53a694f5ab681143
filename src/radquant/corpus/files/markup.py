"""Telling what is no plain text though it is made of letters: RTF, HL7, HTML, encoded files."""

import re

from radquant.errors import UserError

_KINDS = (
    (re.compile(r"\{\\rtf"), "RTF", "save it as plain text"),
    (
        re.compile(
            r"[\v\x1c]?(?:MSH|FHS|BHS)[|^~\\&#]"
            r"|(?:EVN|PID|PV1|ORC|OBR|OBX|NTE)\|\d*\|"
            r"|(?:(?:EVN|PID|PV1|ORC|OBR|OBX|NTE)\|[^\r\n]*[\r\n]+){2}"
        ),
        "an HL7 message",
        "export the text of its OBX segments",
    ),
    (
        re.compile(r"<(?:!doctype|html|head|body|table|div|span|\?xml|clinicaldocument)\b", re.I),
        "HTML or XML",
        "save it as plain text",
    ),
    (re.compile(r"%PDF-"), "a PDF", "save its text"),
    (re.compile(r"\{\s*(['\"])[^'\"\r\n]{1,80}\1\s*:"), "JSON", "take the text out of it"),
)
_HTML = re.compile(r"</(?:div|span|table|td|font|body|html)\s*>", re.IGNORECASE)
_LIST = re.compile(r"\s*\[\s*['\"]")  # as Python and JSON write one
_ENCODED = re.compile(r"[A-Za-z0-9+/=\r\n]{200,}")


def check_plain(text: str, place: str, column: str = "") -> None:
    """Raise UserError for a text that begins as no plain text does.

    place: its file and row; column: which column of that, if it is a cell.
    """
    start = text[:400].lstrip("\ufeff \t\r\n")
    for pattern, kind, remedy in _KINDS:
        if pattern.match(start):
            raise UserError(f"{_subject(place, column)} is {kind}; {remedy}")


def check_text(text: str, place: str, column: str = "") -> None:
    """As `check_plain`, of a whole report, which may also hold HTML or be an encoded file."""
    check_plain(text, place, column)
    subject = _subject(place, column)
    if "</" in text and _HTML.search(text):
        raise UserError(f"{subject} is HTML; save it as plain text")
    if _LIST.match(text) and text.rstrip().endswith(("']", '"]')):
        raise UserError(f"{subject} is a list; make one text of it")
    if len(text) >= 200 and " " not in text and _ENCODED.fullmatch(text.strip()):
        raise UserError(
            f"{subject} is one word of {len(text)} characters, as an encoded file is; decode it "
            "and save its text"
        )


def _subject(place: str, column: str) -> str:
    return f"{place}: column {column!r}" if column else place
