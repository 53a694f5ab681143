"""The configuration of a comparison of models that are there already, from a few words.

`scripts/evaluate.py` writes it and runs the workflow with it. What is not said has the defaults of
the configuration.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from radquant import registry
from radquant.errors import UserError
from radquant.instructions import columns_of
from radquant.model_files import CONFIG, INDEX, SHARD, SINGLE, weight_files
from radquant.settings.given import GGUF_SUFFIX, Given, is_gguf_name
from radquant.settings.precision import LLAMA_CPP
from radquant.settings.run import ORIGINAL, RESERVED_PRECISIONS
from radquant.settings.sentences import made, nearest
from radquant.settings.task import FIELDS

HUB = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?(?::(?P<file>[\w./+-]+))?")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
OPENI = "openi"
IMPRESSION = "impression"
# The tables that a corpus of one file may be.
TABLES = (".csv", ".csv.gz", ".tsv", ".jsonl", ".parquet", ".xlsx")
# A repository's commit, and the names of its files.
Listing = Callable[[str, str], tuple[str, list[str]]]


def model_source(text: str, listing: Listing) -> dict[str, Any]:
    """The keys of `model` or of a given checkpoint that say where it comes from.

    text: a directory, a .gguf file, or owner/name[@revision][:file.gguf] on the Hugging Face hub.
    listing: asks the hub. Raises UserError if it is neither, or not one model.
    """
    path = Path(text).expanduser()
    if path.exists():
        found: dict[str, Any] = {"path": str(path.resolve())}
        if path.is_dir():
            require_model(path)
        elif path.suffix != GGUF_SUFFIX:
            raise UserError(f"{text} is a file; a model is a directory or a {GGUF_SUFFIX} file")
        return found
    match = HUB.fullmatch(text)
    if match is None or (is_gguf_name(text) and not match["file"]):
        raise UserError(
            f"{text} does not exist; give a directory, a .gguf file, or owner/name of a model on "
            "the Hugging Face hub"
        )
    commit, files = listing(match["id"], match["revision"] or "main")
    hub = {"id": match["id"], "revision": commit}
    if match["file"]:
        if match["file"] not in files:
            known = [name for name in files if is_gguf_name(name)]
            raise UserError(
                f"{match['id']} has no file {match['file']}; {nearest(match['file'], known)}"
            )
        return {"hub": hub | {"file": match["file"]}}
    weights = [name for name in files if name in (INDEX, SINGLE) or SHARD.fullmatch(name)]
    if not weights:
        known = [name for name in files if is_gguf_name(name)]
        hint = f"; name one of its files, as in {match['id']}:{known[0]}" if known else ""
        raise UserError(f"{match['id']} has no {SINGLE}{hint}")
    return {"hub": hub, "weights": weights}


def require_model(directory: Path) -> None:
    """Raise UserError for a directory that is no model, as one of GGUF files is none."""
    if (directory / CONFIG).is_file():
        weight_files(directory)  # says what is amiss with them
        return
    files = sorted(each.name for each in directory.glob(f"*{GGUF_SUFFIX}"))
    hint = f"name one of its files, as {directory / files[0]}" if files else "correct the path"
    raise UserError(f"{directory} holds no {CONFIG}, so it is no model; {hint}")


def require_different(original: Mapping[str, Any], given: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise UserError if a checkpoint is the original, or given twice, which is one row twice."""
    seen: dict[str, str] = {}
    for name, source in given.items():
        place = repr({key: source[key] for key in ("path", "hub") if key in source})
        if place == repr({key: original[key] for key in ("path", "hub") if key in original}):
            raise UserError(f"--quantized {name} is the original itself; give a quantized model")
        if place in seen:
            raise UserError(f"--quantized {seen[place]} and {name} are the same; give it once")
        seen[place] = name


def corpus_source(text: str, kind: str | None) -> dict[str, Any]:
    """The keys of `corpus`. text: a table, archive or folder. kind: its format, None to recognise.

    Raises UserError if there is nothing, or the format has to be said.
    """
    path = Path(text).expanduser()
    if not path.exists():
        raise UserError(f"--data {text} does not exist; correct the path")
    if kind is None:
        if path.is_dir() or not path.name.lower().endswith(TABLES):
            kinds = ", ".join(registry.CORPUS_FORMATS)
            raise UserError(
                f"the format of --data {text} is not known by its name; give --data-format, "
                f"one of {kinds}"
            )
        kind = "table"
    return {"name": path.name, "format": kind, "path": str(path.resolve())}


def reference(column: str, columns: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """The part of a report that is to be written, and the columns, whose reference is `column`.

    columns: names of the source's columns, by our own. Raises UserError if they name another.
    """
    if column in FIELDS:
        return column, dict(columns)
    if columns.get(IMPRESSION, column) != column:
        raise UserError(
            f"--text-column {column} and --impression-column {columns[IMPRESSION]} are two columns "
            "for the impression; give one of them"
        )
    return IMPRESSION, {**columns, IMPRESSION: column}


def inputs(template: str, target: str) -> list[str]:
    """The parts of a report that a prompt asks for.

    One that asks for none has the first: its check says what is wrong with it.
    """
    parts = [name for name in FIELDS if name != target]
    return [name for name in columns_of(template) if name in parts] or parts[:1]


def split_name(word: str) -> tuple[str | None, str]:
    """(name, source) of NAME=SOURCE; no name of SOURCE alone."""
    name, equals, source = word.partition("=")
    return (name, source) if equals and NAME.fullmatch(name) else (None, word)


def last_part(source: str) -> str:
    """What a source is called by itself: the last part of its path, or the name of a hub model."""
    hub = None if Path(source).exists() else HUB.fullmatch(source)
    if hub is not None:
        source = hub["file"] or hub["id"]
    last = source.rstrip("/").rpartition("/")[2]
    last = last[: -len(GGUF_SUFFIX)] if is_gguf_name(last) else last
    return re.sub(r"[^A-Za-z0-9._-]", "-", last).lstrip("._-")[:80] or "checkpoint"


def named(words: Sequence[str]) -> dict[str, str]:
    """{name: source} of NAME=SOURCE, or of sources that are named after their last part."""
    found: dict[str, str] = {}
    for word in words:
        given, source = split_name(word)
        name = given or last_part(source)
        if given and name.lower() in taken(found):
            raise UserError(f"--quantized names {name} twice, or it is reserved; choose another")
        number, plain = 1, name
        while name.lower() in taken(found):
            number += 1
            name = f"{plain}-{number}"
        found[name] = source
    return found


def taken(found: Mapping[str, str]) -> set[str]:
    return {each.lower() for each in (*found, ORIGINAL, *RESERVED_PRECISIONS)}


def configuration(
    original: str,
    quantized: Sequence[str],
    corpus: Mapping[str, Any],
    sections: Mapping[str, Any],
    listing: Listing,
    in_llama_cpp: bool = False,
) -> dict[str, Any]:
    """The configuration: one precision for each given checkpoint, beside the original.

    sections: the rest of it, by its keys. in_llama_cpp: GGUF files get a second one, which
    llama.cpp itself runs.
    """
    name, place = split_name(original)
    source = model_source(place, listing)
    if "path" in source and is_gguf_name(source["path"]):
        raise UserError(
            f"the original {original} is a GGUF file, and the comparison is with a Hugging Face "
            "directory; give the original model"
        )
    checkpoints = {name: model_source(each, listing) for name, each in named(quantized).items()}
    require_different(source, checkpoints)
    precisions = {name: {"checkpoint": name} for name in (ORIGINAL, *checkpoints)}
    for name, given in checkpoints.items() if in_llama_cpp else ():
        if made(Given, given).is_gguf:
            other = f"{name[:80]}-{LLAMA_CPP}"
            precisions[other] = {"checkpoint": name, "engine": LLAMA_CPP}
    if in_llama_cpp and len(precisions) == len(checkpoints) + 1:
        raise UserError("--llama-cpp is for .gguf files, and none is given; leave it out")
    own = {key: value for key, value in sections.items() if value != {}}
    code = own.pop("model", {})
    return {
        "model": {"name": name or last_part(place), **source, **code},
        "corpus": {**corpus, **own.pop("corpus", {})},
        "checkpoints": checkpoints,
        "precisions": precisions,
        **own,
    }
