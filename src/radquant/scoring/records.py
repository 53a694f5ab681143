"""Annotation records: how the annotators write them, how scoring reads and checks them.

One record per text, in RadGraph's schema: {"id", "annotator", "text_hash", "text", "entities":
{"1": {"tokens", "label", "start_ix", "end_ix", "relations": [["modify", "2"]]}}}. `text_hash` is
the sha256 of the text as it was given, and `text` is the annotator's tokenization joined by spaces.
`start_ix` and `end_ix` are token positions in it, both inclusive. A blank text has no entities.
"""

import json
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd
from pydantic import BaseModel, NonNegativeInt, ValidationError

from radquant.errors import UserError
from radquant.files import read_table, require_whole, sha256_text

Record = dict[str, Any]
TEXTS = ("id", "annotator", "text_hash", "text")
KEYS = (*TEXTS, "entities")
ENTITY_KEYS = ("tokens", "label", "start_ix", "end_ix", "relations")
NEEDED, ENTITY_NEEDED = frozenset(KEYS), frozenset(ENTITY_KEYS)


class _Entity(BaseModel):
    tokens: str
    label: str
    start_ix: NonNegativeInt
    end_ix: NonNegativeInt
    relations: list[tuple[str, str]]


class _Record(BaseModel):
    """What `_check` lets pass, as pydantic's compiled code reads and checks it."""

    id: str
    annotator: str
    text_hash: str
    text: str
    entities: dict[str, _Entity]


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


class Records(Mapping[str, Record]):
    """{id: record}, read from the files again when asked for.

    100,000 records take gigabytes as Python's objects, and are looked at one by one. Here stand
    their places in the files, and what is asked of all of them at once.
    """

    def __init__(self) -> None:
        self.annotators: set[str] = set()
        self._rows: dict[str, int] = {}
        self._files: list[str | Path] = []
        # By row: its file, where its line begins there, and the hash of its text.
        self._file, self._start = array("i"), array("q")
        self._hashes = bytearray()
        self._bare = bytearray()  # 1 of each row whose record has no entity
        self._open: tuple[int, BinaryIO] | None = None

    def add_file(self, path: str | Path) -> None:
        """Read and check the records of a file; raises UserError as `read` does."""
        require_whole(path)
        self._files.append(path)
        with open(path, "rb") as lines:
            start = 0
            for number, line in enumerate(lines, 1):
                self._add(line, start, f"{path}, line {number}")
                start += len(line)

    def _add(self, line: bytes, start: int, place: str) -> None:
        name, annotator, text_hash, bare = _asked_of_all(line, place)
        if name in self._rows:
            raise UserError(f"{place}: report {name!r} is annotated twice; give each shard once")
        # The reports of all systems share one string.
        self._rows[sys.intern(name)] = len(self._rows)
        self.annotators.add(annotator)
        self._file.append(len(self._files) - 1)
        self._start.append(start)
        self._hashes += _digest(text_hash)
        self._bare.append(bare)

    def __getitem__(self, name: str) -> Record:
        row = self._rows[name]
        lines = self._opened(self._file[row])
        lines.seek(self._start[row])
        record: Record = json.loads(lines.readline())
        return record

    def _opened(self, file: int) -> BinaryIO:
        """One file is kept open: of a thousand shards, not all can be."""
        if self._open is None or self._open[0] != file:
            if self._open is not None:
                self._open[1].close()
            self._open = (file, open(self._files[file], "rb"))  # noqa: SIM115
        return self._open[1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def without_entities(self, name: str) -> bool:
        """Say whether the annotator marked nothing in a text."""
        return bool(self._bare[self._rows[name]])

    def is_of(self, name: str, text: str) -> bool:
        """Say whether a record is the annotation of `text`."""
        row = self._rows[name]
        return self._hashes[row * 32 : row * 32 + 32] == _digest(sha256_text(text))


def _asked_of_all(line: bytes, place: str) -> tuple[str, str, str, bool]:
    """Return a record's id, annotator and text's hash, and whether it has no entity."""
    try:
        record = _Record.model_validate_json(line, strict=True)
    except ValidationError:  # three times as slow: it says what is wrong, or finds nothing
        slow = _parsed(line, place)
        return slow["id"], slow["annotator"], slow["text_hash"], not slow["entities"]
    for name, entity in record.entities.items():
        if entity.relations:
            _check_relations(name, entity.relations, record.entities, place)
    return record.id, record.annotator, record.text_hash, not record.entities


def read_rows(path: str | Path, rows: Iterable[int]) -> list[Record]:
    """Return the records of some lines of a file, counted from 0, in their order.

    Raises UserError as `read` does, and for a line that is not there.
    """
    require_whole(path)
    wanted = set(rows)
    with open(path, "rb") as lines:
        found = [
            _parsed(line, f"{path}, line {number + 1}")
            for number, line in enumerate(lines)
            if number in wanted
        ]
    if len(found) < len(wanted):
        raise UserError(f"{path} lacks reports; delete it and run again")
    return found


def _digest(text_hash: Any) -> bytes:
    """The 32 bytes of a hash; those of no text for what is none."""
    try:
        digest = bytes.fromhex(text_hash)
    except (TypeError, ValueError):
        return bytes(32)
    return digest if len(digest) == 32 else bytes(32)


def read(paths: Iterable[str | Path]) -> Records:
    """Return {id: record} of all `paths` together.

    Raises UserError for a record without one of the keys, an id that occurs twice, and a relation
    that points at no entity.
    """
    records = Records()
    for path in paths:
        records.add_file(path)
    return records


def _parsed(line: bytes, place: str) -> Record:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: not valid JSON") from error
    _check(record, place)
    return dict(record)


def _check(record: Record, place: str) -> None:
    if not isinstance(record, dict) or not record.keys() >= NEEDED:
        raise UserError(f"{place}: not an annotation; it needs the keys {', '.join(KEYS)}")
    entities = record["entities"]
    if not isinstance(entities, dict) or not all(isinstance(record[key], str) for key in TEXTS):
        raise UserError(
            f"{place}: not an annotation; {', '.join(TEXTS)} are texts and entities a mapping"
        )
    for name, entity in entities.items():
        if not isinstance(entity, dict) or not entity.keys() >= ENTITY_NEEDED:
            raise UserError(
                f"{place}: entity {name!r} is incomplete; it needs {', '.join(ENTITY_KEYS)}"
            )
        if not _is_entity(entity):
            raise UserError(
                f"{place}: entity {name!r} is not made of tokens, a label, two places in the text "
                "and a list of relations; annotate again"
            )
        _check_relations(name, entity["relations"], entities, place)


def _check_relations(
    name: str, relations: Iterable[Sequence[str]], entities: Mapping[str, Any], place: str
) -> None:
    for relation, target in relations:
        if target not in entities:
            raise UserError(
                f"{place}: the relation {relation!r} of entity {name!r} points at entity "
                f"{target!r}, which does not exist; annotate again"
            )


def _is_entity(entity: Mapping[str, Any]) -> bool:
    """Whether the values of an entity are of the kinds that scoring takes for granted."""
    first, last, pairs = entity["start_ix"], entity["end_ix"], entity["relations"]
    if not (isinstance(entity["tokens"], str) and isinstance(entity["label"], str)):
        return False
    if not (type(first) is int and first >= 0 and type(last) is int and last >= 0):
        return False
    return isinstance(pairs, list) and all(map(_is_relation, pairs))


def _is_relation(pair: Any) -> bool:
    if not (isinstance(pair, list) and len(pair) == 2):
        return False
    return isinstance(pair[0], str) and isinstance(pair[1], str)


def check_texts(records: Records, texts: pd.Series, what: str) -> None:
    """Raise UserError unless `records` annotate exactly `texts` (a series of texts by id)."""
    for name, text in zip(texts.index.tolist(), texts.tolist(), strict=True):
        if not records.is_of(str(name), text):
            raise UserError(
                f"the {what} of report {name!r} is of another text than the one to be scored "
                "(stale or swapped file); annotate again"
            )
