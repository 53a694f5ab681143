"""Annotations kept by text and model: what several precisions wrote alike is annotated once.

    DIRECTORY/<key of the model, 16 digits>/<2 digits>/<sha256 of the text>.json

Each file holds one annotation, is written under another name and renamed, and says of which model
and text it is. Jobs may read and write at the same time: the worst is that two annotate the same
text, with the same result. What is not whole, or of another model or text, is made again.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from radquant.files import atomic_path, sha256_text
from radquant.scoring.annotators.kind import Annotation, Loaded
from radquant.scoring.records import ENTITY_KEYS


def annotate(
    annotator: Loaded, texts: list[str], directory: str | Path | None
) -> Iterator[tuple[str, Annotation]]:
    """Yield (text, annotation) of distinct `texts`, kept in `directory` if there is one.

    An annotator without a key is quicker than a cache.
    """
    if not (directory and annotator.key):
        return annotator.annotate(texts)
    return Cache(directory, annotator.key).annotate(texts, annotator.annotate)


class Cache:
    """`key` names all that decides an annotation: weights, vocabulary, package, code."""

    def __init__(self, directory: str | Path, key: str) -> None:
        self._key = key
        self._directory = Path(directory) / sha256_text(key)[:16]

    def annotate(
        self,
        texts: Iterable[str],
        annotate: Callable[[list[str]], Iterator[tuple[str, Annotation]]],
    ) -> Iterator[tuple[str, Annotation]]:
        """Yield (text, annotation) of distinct `texts`, from the files or by `annotate`."""
        missing = []
        for text in texts:
            found = self._read(text)
            if found is None:
                missing.append(text)
            else:
                yield text, found
        for text, annotation in annotate(missing) if missing else ():
            self._write(text, annotation)
            yield text, annotation

    def _path(self, text: str) -> Path:
        name = sha256_text(text)
        return self._directory / name[:2] / f"{name}.json"

    def _read(self, text: str) -> Annotation | None:
        path = self._path(text)
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):  # not there, cut off, or no text at all
            return None
        if not isinstance(entry, dict) or entry.get("key") != self._key:
            return None
        if entry.get("text_hash") != path.stem or not _whole(entry.get("annotation")):
            return None
        return dict(entry["annotation"])

    def _write(self, text: str, annotation: Annotation) -> None:
        path = self._path(text)
        entry = {"key": self._key, "text_hash": path.stem, "annotation": annotation}
        with atomic_path(path) as part:
            part.write_text(json.dumps(entry, ensure_ascii=False), encoding="utf-8")


def _whole(annotation: Any) -> bool:
    if not isinstance(annotation, dict) or annotation.keys() != {"text", "entities"}:
        return False
    entities = annotation["entities"]
    return isinstance(entities, dict) and all(
        isinstance(entity, dict) and entity.keys() == set(ENTITY_KEYS)
        for entity in entities.values()
    )
