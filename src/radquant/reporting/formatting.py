"""How numbers, tables and prose are written: Markdown that reads well in a terminal too."""

import html
import math
import re
import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from radquant import cli

MINUS = "\u2212"
DASH = "–"
WIDTH = 100
UNIT = " F1 points"
MORE = "More columns"
LABELLED = "text"  # the language of a code block that holds texts with labels
MOST = 7  # columns of a table that a reader sees at once


def coverage(quality: Mapping[str, Any]) -> str:
    """Return what an interval is called: '95 % interval'."""
    return f"{100 * quality['settings']['confidence']:g} % interval"


def number(value: float | None, digits: int = 3) -> str:
    if value is None:
        return DASH
    text = f"{value:,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.removeprefix("-")
    return text.replace("-", MINUS)


def change(value: float | None, digits: int = 3) -> str:
    """Write a difference with its sign."""
    text = number(value, digits)
    return text if value is None or value <= 0 or not text.strip("0.,") else f"+{text}"


def interval(record: Mapping[str, Any], digits: int = 3, signed: bool = True) -> str:
    """Write an interval; a method other than BCa is named."""
    write = change if signed else number
    text = f"{write(record['low'], digits)} to {write(record['high'], digits)}"
    notes = {"BCa": "", "constant": " (all equal)"}
    return text + notes.get(record["method"], f" ({record['method']})")


def points(value: float, up: bool = False) -> str:
    """Write an F1, or a part of one, with its unit; `up`: rounded up, for what is "up to"."""
    digits = next((few for few in range(3, 7) if abs(value) >= 0.5 * 10**-few), 3)
    if up:
        value = math.ceil(value * 10**digits - 1e-9) / 10**digits
    return f"{number(value, digits)}{UNIT}"


def counted(count: int, what: str) -> str:
    """Write a number of things: 'one patient', '2 patients'."""
    return f"one {what}" if count == 1 else f"{count:,} {what}s"


def listed(names: Sequence[str]) -> str:
    """Write names in a row: 'a, b and c'."""
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)


def probability(value: float | None) -> str:
    if value is None:
        return DASH
    return "<0.0001" if value < 0.0001 else f"{value:.4f}" if value < 0.01 else f"{value:.3f}"


def perplexity(value: float | None) -> str:
    if value is None:
        return DASH
    return f"{value:,.1f}" if value < 100_000 else f"{value:.2e}"


def ratio(value: float | None) -> str:
    return DASH if value is None else f"{value:.2f}×"


def share(value: float, digits: int = 0) -> str:
    return f"{100 * value:.{digits}f} %"


def size(count: float | None) -> str:
    return DASH if count is None else cli.size(count)


def without_absent(
    header: Sequence[str], rows: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    """Return header and rows without the columns in which nothing stands."""
    kept = [place for place in range(len(header)) if any(row[place] != DASH for row in rows)]
    return [header[place] for place in kept], [[row[place] for place in kept] for row in rows]


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Return a Markdown table; the first `left` columns are aligned left, the others right."""
    cells = [list(header), *map(list, rows)]
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    lines = [_row(cells[0], widths, left)]
    rule = ["-" * width if i < left else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    lines.append("| " + " | ".join(rule) + " |")
    lines += [_row(row, widths, left) for row in cells[1:]]
    return "\n".join(lines)


def wide_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    left: int = 1,
    keys: int = 1,
    shown: int = MOST,
) -> str:
    """Return a table of the first `shown` columns; the others are folded away below it.

    What is folded away has the first `keys` columns again.
    """
    first = table(header[:shown], [row[:shown] for row in rows], min(left, shown))
    if len(header) <= shown:
        return first
    chosen = [*range(keys), *range(shown, len(header))]
    cells = [[row[place] for place in chosen] for row in rows]
    more = table([header[place] for place in chosen], cells, min(left, keys))
    names = listed([as_shown(name) for name in header[shown:]])
    return "\n\n".join([first, *fold(f"{MORE}: {names}", more)])


def fold(title: str, *parts: str, unfolded: bool = False) -> list[str]:
    """Return the blocks of a part that is folded away under its title; `title` is plain text."""
    start = "<details open>" if unfolded else "<details>"
    return [f"{start}<summary>{html.escape(title, quote=False)}</summary>", *parts, "</details>"]


def as_shown(text: str) -> str:
    """Return what a reader sees of what `escape` wrote."""
    return re.sub(r"\\([^\w\s])", r"\1", text)


def _row(cells: Sequence[str], widths: Sequence[int], left: int) -> str:
    padded = []
    for i, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        blank = " " * (width - _width(cell))
        padded.append(cell + blank if i < left else blank + cell)
    return "| " + " | ".join(padded) + " |"


def _width(text: str) -> int:
    """Return how many columns of a terminal `text` takes."""
    return sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def escape(text: str) -> str:
    """Return `text` on one line, so that Markdown, HTML and terminals show it as it stands."""
    line = plain(text)
    return "".join(f"\\{c}" if c in "\\`*_[]<>|~$&#" else c for c in line)


def plain(text: str) -> str:
    """Return `text` on one line, with what is not printable (escape codes, bidi marks) as �."""
    return "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))


def prose(*sentences: str) -> str:
    return textwrap.fill(" ".join(sentences), WIDTH, break_long_words=False, break_on_hyphens=False)


def bullets(*items: str, mark: str = "-") -> str:
    """A list. In Markdown two lists that follow each other are one, unless their marks differ."""
    return "\n".join(
        textwrap.fill(
            item,
            WIDTH,
            initial_indent=f"{mark} ",
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for item in items
    )
