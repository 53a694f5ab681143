"""Which encoding a file of text is in: recognised where that is safe, else asked for."""

import codecs
import gzip
import io
import os
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from radquant.errors import UserError
from radquant.files import BOMB, most_unpacked, require_file

Chunks = Callable[[], Iterator[bytes]]
CHUNK = 1 << 20
HEAD = 1 << 16  # what a look at a file takes
UTF8, WINDOWS = "utf-8", "windows-1252"
_MARKS = (
    (codecs.BOM_UTF8, UTF8),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NO_TEXT = (
    (
        b"PK\x03\x04",
        "is a zip archive, as .xlsx and .docx are; give it its ending, or save it as text",
    ),
    (
        b"\xd0\xcf\x11\xe0",
        "is an old Office file or has a password; save it unlocked as .xlsx or .txt",
    ),
    (b"%PDF-", "is a PDF; save its text"),
    (b"{\\rtf", "is RTF; save it as plain text"),
    (b"\x1f\x8b", "is packed by gzip; end its name in .gz, or unpack it"),
    (b"\xfd7zXZ", "is packed by xz; unpack it"),
    (b"\x28\xb5\x2f\xfd", "is packed by zstd; unpack it"),
    (b"PAR1", "is a Parquet file; end its name in .parquet"),
    (b"SQLite format 3", "is an SQLite database; export its table as .csv"),
    (b"\x89PNG", "is an image, which holds no text; give the text of its report"),
    (b"\xff\xd8\xff", "is an image, which holds no text; give the text of its report"),
)
# In Windows-1252 these bytes are signs that never stand between two letters, or hardly ever at all.
# In other encodings they are letters (Mac, DOS, Central European, Cyrillic).
_ODD = "ƒ„†‡ˆ‰Š‹ŽŸ‘“”•˜›žš¡¢£¤¥¦§¨©«¬®¯°±²³¶¸¹»¼½¾¿×÷‚"
_ODD_IN_WORD = re.compile(
    rf"(?<=[A-Za-z])[{_ODD}](?=[a-z{_ODD}])|(?<=[a-z])[ƒ†‡ˆ‰Š‹ŽŸ˜‚]|[€†‡ˆ‰Žš½¼¾](?=[a-z])|[ÿþðÐÞ]|[À-ÖØ-öø-ÿ]{{3}}"
)
_CUT = re.compile(rb"(?:[\xc2\xc3]|\xe2[\x80-\x86]?)\Z")  # what UTF-8 may be cut off behind
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")


def open_bytes(path: Path) -> Any:
    """Open a file, unpacked where its name ends in .gz; raises UserError if it may not be read."""
    require_file(path)
    try:
        file = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise UserError(f"{path} cannot be read ({os.strerror(error.errno or 0)})") from None
    return gzip.open(file) if path.suffix.lower() == ".gz" else file


def open_text(path: Path, encoding: str, newline: str = "") -> io.TextIOWrapper:
    """Open a text that was found to be in `encoding`; line breaks stay as they are.

    Where only its beginning was looked at, there may be other bytes behind it.
    """
    name = "utf-8-sig" if encoding == UTF8 else encoding
    return io.TextIOWrapper(open_bytes(path), name, errors="replace", newline=newline)


def chunks_of(path: Path, most: int | None = None) -> Chunks:
    """Return what yields a file's bytes, unpacked, from the first on and at most about `most`.

    Raises UserError, while it yields, for a gzip file that is broken or out of proportion.
    """

    def read() -> Iterator[bytes]:
        bound, done = most_unpacked(path.stat().st_size), 0
        with open_bytes(path) as file:
            try:
                while chunk := file.read(min(CHUNK, most or CHUNK)):
                    done += len(chunk)
                    if done > bound:
                        raise UserError(f"{path}: {BOMB}")
                    yield chunk
                    if most and done >= most:
                        return
            except (EOFError, gzip.BadGzipFile, zlib.error):
                raise UserError(f"{path} is not a whole gzip file; fetch it again") from None

    return read


def decode(data: bytes, place: str, encoding: str | None = None) -> tuple[str, str]:
    """Return (the text, its encoding), a byte order mark dropped; see `encoding_of`."""
    found = encoding_of(lambda: iter([data]), place, encoding)
    return data.decode(found).removeprefix("\ufeff"), found


def encoding_of(read: Chunks, place: str, given: str | None = None, whole: bool = True) -> str:
    """Return the encoding of a text. It is `given`, or what a byte order mark says, or UTF-8.
    Otherwise it is UTF-16 without a mark, or Windows-1252, where that is plausible.

    read: yields its bytes from the first on; `whole`: all of them. Raises UserError, with the line,
    for bytes that the encoding does not have, and for two encodings in one text. It also does for
    what is no text at all.
    """
    start = next(read(), b"")
    _check_text(start, place)
    if given:
        _check(read, given, place, whole, f"not {given}, which corpus.encoding names")
        return given
    marked = next((name for mark, name in _MARKS if start.startswith(mark)), None)
    marked = marked or _unmarked_utf16(start[:HEAD])
    if marked:
        wrong = "not UTF-8" if marked == UTF8 else f"not {marked}, as the file begins"
        _check(read, marked, place, whole, wrong)
        return marked
    if _bad_line(read, UTF8, whole) is None:
        return UTF8
    _check_windows(read, place, whole)
    return WINDOWS


def _check_text(start: bytes, place: str) -> None:
    for mark, what in _NO_TEXT:
        if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(mark):
            raise UserError(f"{place} {what}")
    if start[128:132] == b"DICM":
        raise UserError(f"{place} is a DICOM file; export the text of its report")


def _unmarked_utf16(start: bytes) -> str | None:
    """The encoding of text of which nearly every other byte is zero."""
    even, odd = start[::2].count(0), start[1::2].count(0)
    half = len(start) / 2
    if half >= 2 and odd > 0.6 * half and even < 0.1 * half:
        return "utf-16-le"
    if half >= 2 and even > 0.6 * half and odd < 0.1 * half:
        return "utf-16-be"
    return None


def _check(read: Chunks, encoding: str, place: str, whole: bool, wrong: str) -> None:
    line = _bad_line(read, encoding, whole)
    if line is not None:
        raise UserError(f"{place}, line {line}: {wrong}; save the file as UTF-8")


def _bad_line(read: Chunks, encoding: str, whole: bool) -> int | None:
    """The line of the first bytes that are not in `encoding`, None if there are none."""
    decoder, lines = codecs.getincrementaldecoder(encoding)(), 1
    try:
        for chunk in read():
            lines += decoder.decode(chunk).count("\n")
        decoder.decode(b"", final=whole)
    except UnicodeDecodeError as error:
        good = error.object[: error.start]
        return lines + good.decode(encoding, "ignore").count("\n")
    except UnicodeError:
        return lines
    return None


def _check_windows(read: Chunks, place: str, whole: bool) -> None:
    """Raise UserError, with the line, for a text that is not UTF-8 and hardly Windows-1252."""
    other = "; save the file as UTF-8, or name its encoding as corpus.encoding"
    in_utf8: int | None = None
    in_windows: int | None = None
    number, line = 0, b""
    for number, line in enumerate(_byte_lines(read, whole), 1):
        if line.isascii() and not _CONTROL.search(line):
            continue
        try:
            line.decode(UTF8)
        except UnicodeDecodeError:
            in_windows = in_windows or number
        else:
            in_utf8 = in_utf8 or (None if line.isascii() else number)
            continue
        try:
            text = line.decode(WINDOWS)
        except UnicodeDecodeError:
            text = None
        if text is None or _CONTROL.search(line) or _is_odd(text):
            raise UserError(f"{place}, line {number}: not UTF-8, nor {WINDOWS} it seems{other}")
    if whole and in_windows == number and _CUT.search(line):
        raise UserError(f"{place}, line {number}: ends within a character; fetch the file again")
    if in_utf8 and in_windows:
        raise UserError(
            f"{place} is in two encodings: line {in_windows} is not UTF-8 and line {in_utf8} is; "
            "save all of it as UTF-8"
        )


def _is_odd(text: str) -> bool:
    """Say whether a line is hardly what was written: of two bytes a letter, most are no ASCII."""
    plain = sum(character.isascii() and character.isalpha() for character in text)
    other = sum(character.isalpha() for character in text) - plain
    return bool(_ODD_IN_WORD.search(text)) or (other >= 4 and other > 0.4 * plain)


def _byte_lines(read: Chunks, whole: bool) -> Iterator[bytes]:
    held: list[bytes] = []
    for chunk in read():
        first, *others = chunk.split(b"\n")
        held.append(first)
        for line in others:
            yield b"".join(held)
            held = [line]
    if whole:
        yield b"".join(held)  # empty where the last line is ended
