"""Annotation records: how the annotators write them, how scoring reads and checks them.

One record per text, in RadGraph's schema:
{"id", "annotator", "text_hash", "text", "entities": {"1": {"tokens", "label", "start_ix",
"end_ix", "relations": [["modify", "2"]]}}}. `text_hash` is the sha256 of the text as it was
given, `text` is the annotator's tokenization joined by spaces, and `start_ix` and `end_ix` are
token positions in it, both inclusive. A blank text has no entities.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from radquant.errors import UserError
from radquant.files import read_jsonl, read_table, sha256_text

Record = dict[str, Any]
KEYS = ("id", "annotator", "text_hash", "text", "entities")
ENTITY_KEYS = ("tokens", "label", "start_ix", "end_ix", "relations")


def read_texts(path: str | Path, column: str) -> tuple[list[str], list[str]]:
    """Return (ids, texts) of a table with the columns `id` and `column`."""
    table = read_table(path, require=("id", column))
    for row, text in enumerate(table[column]):
        if not isinstance(text, str):
            raise UserError(
                f"{path}, column {column!r}, row {row}: not a text; an absent text is written as ''"
            )
    return [str(name) for name in table["id"]], list(table[column])


def distinct(texts: Iterable[str]) -> list[str]:
    """Return the different texts that are not blank, in the order of their first places."""
    return [text for text in dict.fromkeys(texts) if text.strip()]


def build(
    ids: Sequence[str],
    texts: Sequence[str],
    annotator: str,
    annotate: Callable[[str], dict[str, Any]],
) -> list[Record]:
    """Return one record per text, in order; equal texts are annotated once.

    `annotate` returns {"text", "entities"} for a text that is not blank.
    """
    annotations = {text: annotate(text) for text in distinct(texts)}
    blank = {"text": "", "entities": {}}
    return [
        {
            "id": name,
            "annotator": annotator,
            "text_hash": sha256_text(text),
            **annotations.get(text, blank),
        }
        for name, text in zip(ids, texts, strict=True)
    ]


def read(paths: Iterable[str | Path]) -> dict[str, Record]:
    """Return {id: record} of all `paths` together.

    Raises UserError for a record without one of the keys, an id that occurs twice, and a relation
    that points at no entity.
    """
    records: dict[str, Record] = {}
    for path in paths:
        for number, record in enumerate(read_jsonl(path), 1):
            _check(record, f"{path}, line {number}")
            if record["id"] in records:
                raise UserError(
                    f"{path}, line {number}: report {record['id']!r} is annotated twice; "
                    "give each shard once"
                )
            records[record["id"]] = record
    return records


def _check(record: Record, place: str) -> None:
    if not isinstance(record, dict) or any(key not in record for key in KEYS):
        raise UserError(f"{place}: not an annotation; it needs the keys {', '.join(KEYS)}")
    entities = record["entities"]
    for name, entity in entities.items():
        if any(key not in entity for key in ENTITY_KEYS):
            raise UserError(
                f"{place}: entity {name!r} is incomplete; it needs {', '.join(ENTITY_KEYS)}"
            )
        for relation, target in entity["relations"]:
            if target not in entities:
                raise UserError(
                    f"{place}: the relation {relation!r} of entity {name!r} points at entity "
                    f"{target!r}, which does not exist; annotate again"
                )


def check_texts(records: dict[str, Record], texts: pd.Series, what: str) -> None:
    """Raise UserError unless `records` annotate exactly `texts` (a series of texts by id)."""
    for name, text in texts.items():
        if records[str(name)]["text_hash"] != sha256_text(text):
            raise UserError(
                f"the {what} of report {name!r} is of another text than the one to be scored "
                "(stale or swapped file); annotate again"
            )
