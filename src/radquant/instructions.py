"""Instructions with {column} fields, and the solved examples that stand before a report.

Only the standard library is imported, because the workflow checks its prompts at every start.
"""

import hashlib
import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radquant.errors import UserError

Row = Mapping[str, Any]

# `text` is the whole report: who sees it has seen its findings and its impression.
WHOLE_REPORT = "text"
REPORTED = ("findings", "impression")


@dataclass(frozen=True)
class Part:
    """A piece of what a model reads."""

    text: str
    of_report: bool  # a report's own text, in which nothing has a second meaning


# ---------------------------------------------------------------------------------- templates


def read_template(path: str | Path | None, text: str | None) -> str:
    """Return the template in `text` if given, else that in the UTF-8 file `path`.

    Newlines at the end, which editors add, are not part of it.
    """
    if text is None:
        if path is None:
            raise UserError("no prompt was given; name a file or write the text")
        text = _read_utf8(Path(path))
    if not text.strip():
        raise UserError(f"the prompt {path if path else 'text'} is empty; write an instruction")
    return text.rstrip("\r\n")


def _read_utf8(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"the prompt file {path} does not exist; check the path")
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not UTF-8; save the file as UTF-8") from error


def _parts(template: str) -> list[tuple[str, str | None]]:
    """Split a template into (literal text, column or None) pairs; {{ and }} stand for braces."""
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise UserError(
            f"the prompt has an unpaired brace ({error}); write {{{{ and }}}} for braces as text"
        ) from error
    for _, field, spec, conversion in parsed:
        if field is not None and (not field.strip() or spec or conversion):
            raise UserError(
                f"the prompt has a field {{{field}}} that is not just the name of a column; "
                "write {{ and }} for braces as text"
            )
    return [(literal, field) for literal, field, _, _ in parsed]


def columns_of(template: str) -> list[str]:
    """Return the columns that a template uses, each once, in the order of first use."""
    return list(dict.fromkeys(field for _, field in _parts(template) if field is not None))


def fixed_texts(template: str) -> list[str]:
    """Return the pieces of a template that are the same for every report."""
    return [literal for literal, _ in _parts(template) if literal.strip()]


def check_template(
    template: str, columns: Sequence[str], target: str, images: bool = False
) -> None:
    """Raise UserError unless `template` uses `columns` only, at least one, and not the reference.

    `columns` are those of the data, `target` the column that holds the reference. `images`: whether
    the report's images are shown with the prompt, which then need not use a column.
    """
    listing = f"the columns are {', '.join(columns)}"
    used = columns_of(template)
    missing = [name for name in used if name not in columns]
    if missing:
        raise UserError(f"the prompt uses {{{missing[0]}}}, which is no column; {listing}")
    if target not in columns:
        raise UserError(f"the reference column {target!r} is no column; {listing}")
    if not used and not images:
        raise UserError(
            f"the prompt uses no column, so every report would get the same one; {listing}, and a "
            "field is written {findings}"
        )
    for name in used:
        if _holds_reference(name, target):
            raise UserError(
                f"the prompt uses {{{name}}}, which holds the reference (column {target!r}); "
                f"take it out of the prompt; {listing}"
            )


def _holds_reference(column: str, target: str) -> bool:
    if WHOLE_REPORT in (column, target):
        return column == target or column in REPORTED or target in REPORTED
    return column == target


def render(template: str, row: Row) -> str:
    """Return `template` with its fields replaced by the row's values, which are taken as they are.

    A brace in a value is text: nothing is substituted twice.
    """
    return joined(rendered_parts(template, row))


def rendered_parts(template: str, row: Row) -> list[Part]:
    """As `render`, in pieces: the instruction's own, and the report's."""
    pieces: list[Part] = []
    for literal, field in _parts(template):
        pieces.append(Part(literal, False))
        if field is not None:
            pieces.append(Part(str(row[field]), True))
    return pieces


def joined(parts: Sequence[Part]) -> str:
    return "".join(part.text for part in parts)


# ----------------------------------------------------------------------------------- examples


def seeded_order(rows: Sequence[Row], seed: int, purpose: str) -> list[Row]:
    """Return `rows` shuffled by a hash of seed, purpose and id.

    A row's place depends on no other row, so adding rows changes little.
    """

    def place(row: Row) -> str:
        return hashlib.sha256(f"{seed}\0{purpose}\0{row['id']}".encode()).hexdigest()

    return sorted(rows, key=place)


def draw_examples(
    train: Sequence[Row],
    template_columns: Sequence[str],
    target: str,
    count: int,
    max_words: int,
    seed: int,
) -> list[Row]:
    """Draw `count` few-shot examples from the training rows.

    An example has text in all the prompt's columns and a reference, of at most `max_words` words
    together, and their references differ from each other. The last one is routine: its reference is
    the most frequent of the training split, which in radiology says that nothing is wrong. The
    others come first and say something else. Their references occur least often and, among these,
    share the fewest words with the routine one. The seed decides among equals. (Small models
    imitate the last example, so the usual answer stands there.)
    """
    if count == 0:
        return []
    rows = seeded_order(train, seed, "examples")
    frequency = Counter(words_of(row[target]) for row in rows)
    frequency.pop("", None)
    if not frequency:
        raise UserError(f"no training report has text in the reference column {target!r}")
    routine = frequency.most_common(1)[0][0]  # the first in seeded order among equals

    distinct: dict[str, Row] = {}
    for row in rows:
        if can_be_example(row, (*template_columns, target), max_words):
            distinct.setdefault(words_of(row[target]), row)
    usual = [distinct.pop(routine)] if routine in distinct else []

    def likeness(key: str) -> tuple[int, int]:
        return frequency[key], len(set(key.split()) & set(routine.split()))

    others = [distinct[key] for key in sorted(distinct, key=likeness)]
    drawn = [*others[: count - len(usual)], *usual]
    if len(drawn) < count:
        raise UserError(
            f"{count} few-shot examples were asked for but only {len(drawn)} training reports with "
            f"distinct references have at most {max_words} words; ask for fewer or longer ones"
        )
    return drawn


def can_be_example(row: Row, columns: Sequence[str], max_words: int) -> bool:
    """Whether all `columns` have text, of at most `max_words` words together."""
    texts = [str(row[name]) for name in columns]
    return all(text.strip() for text in texts) and sum(len(t.split()) for t in texts) <= max_words


def words_of(text: Any) -> str:
    """Return the text's letters and digits in lower case: what makes two references the same."""
    return " ".join(re.findall(r"\w+", str(text).lower()))
