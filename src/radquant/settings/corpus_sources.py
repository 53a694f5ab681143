"""Whether a corpus format takes the source that it is given: one check, for all who ask.

A configuration and the command line of scripts/fetch_corpus.py name the parts of a source each in
their own way, so each brings its sentences. The formats are asked by the names of
`corpus.formats.kind.CorpusFormat`; nothing is opened or read.
"""

from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

from radquant import registry
from radquant.image_roots import is_archive

TABLES = "train and eval"
# By what is wrong. They may name the {format}, the places that it is read from ({allowed}) and the
# places that are {given}. {able} are the formats that use what is refused, and {all_able} has "and"
# before the last.
CONFIGURATION = {
    "half": "corpus.train and corpus.eval are given together or not at all",
    "places": "a corpus of format {format} needs exactly one of {allowed}, not {given}",
    "columns": "corpus.columns is for format {able} and not for {format}, whose columns are known; "
    "remove it",
    "split_file": "corpus.split_file is not used by format {format}; remove it",
    "headings": "corpus.headings is for {able}, not for format {format}, whose sections are "
    "known; remove it",
    "image_column": "task.image_column is not for a corpus of format {format}, but for {able}; "
    "remove it",
    "views": "corpus.views and views_file choose among images that format {able} looks up, not "
    "format {format}; remove them",
    "image archive": "corpus.image_root is an archive, which format {able} reads, not format "
    "{format}; unpack it and give the folder",
    "no split_file": "with format {format}, task.image_column is a column of corpus.split_file; "
    "give one that has it",
}


def problem(name: str, given: Set[str], sentences: Mapping[str, str]) -> str | None:
    """What is wrong with a source for the format `name`, as one of `sentences`; None if nothing is.

    given: those of "wheel", "path", "train", "eval", "columns", "split_file", "headings",
    "image_column", "views" and "image archive" that the source has. A sentence "only …", such as
    "only wheel", is for one given place from which the format is not read. It is taken before
    "places". "none or several" is for no place, or several.
    """
    kind = registry.load_kind(registry.CORPUS_FORMATS, name)
    places = [place for place in ("wheel", "path") if place in given]
    if len(given & {"train", "eval"}) == 1:
        return sentences["half"]
    if "train" in given:
        places.append(TABLES)

    def sentence(*keys: str, able: Sequence[str] = ()) -> str:
        form = next(sentences[key] for key in keys if key in sentences)
        return form.format(
            format=name,
            allowed=", ".join(kind.SOURCES),
            given=" with ".join(places) or "none",
            able=", ".join(able),
            all_able=" and ".join(filter(None, [", ".join(able[:-1]), *able[-1:]])),
        )

    if len(places) != 1:
        return sentence("none or several", "places")
    if places[0] not in kind.SOURCES:
        able = _formats(lambda each: places[0] in each.SOURCES)
        return sentence(f"only {places[0]}", "places", able=able)
    if "columns" in given and not kind.COLUMNS:
        return sentence("columns", able=_formats(lambda each: each.COLUMNS))
    if "split_file" in given and not kind.SPLIT_FILE:
        return sentence("split_file", able=_formats(lambda each: each.SPLIT_FILE))
    if "headings" in given and not kind.HEADINGS:
        return sentence("headings", able=_formats(lambda each: each.HEADINGS))
    if "image_column" in given and not kind.IMAGES:
        return sentence("image_column", able=_formats(lambda each: each.IMAGES))
    if "image_column" in given and kind.IMAGES == "split_file" and "split_file" not in given:
        return sentence("no split_file")
    for part in ("views", "image archive"):
        if part in given and not _looks_up(kind):
            return sentence(part, able=_formats(_looks_up))
    return None


def _looks_up(kind: Any) -> bool:
    """Whether a format looks the files of images up itself."""
    return getattr(kind, "VIEWS", False)


def problem_of(corpus: Mapping[str, Any], image_column: str | None) -> str | None:
    """What is wrong with `corpus` of a configuration, and its task.image_column; None if nothing
    is."""
    keys = ("wheel", "path", "train", "eval", "split_file")
    given = {key for key in keys if corpus.get(key)}
    given |= {key for key in ("columns", "headings") if any((corpus.get(key) or {}).values())}
    if image_column:
        given.add("image_column")
    wheel = corpus.get("wheel") or {}
    if corpus["views"] != "all" or corpus.get("views_file") or wheel.get("views_file"):
        given.add("views")
    if is_archive(corpus.get("image_root") or ""):
        given.add("image archive")
    return problem(corpus["format"], given, CONFIGURATION)


def _formats(holds: Callable[[Any], Any]) -> list[str]:
    """The formats of which something holds."""
    return [
        name
        for name in registry.CORPUS_FORMATS
        if holds(registry.load_kind(registry.CORPUS_FORMATS, name))
    ]


def table() -> str:
    """The formats as a Markdown table, for docs/inputs.md."""
    rows = ["| `format` | what it reads | from | images named in |", "|---|---|---|---|"]
    named = {"reports": "a column", "split_file": "a column of `split_file`", None: "–"}
    for name in registry.CORPUS_FORMATS:
        kind = registry.load_kind(registry.CORPUS_FORMATS, name)
        sources = ", ".join(f"`{source}`".replace(" and ", "` and `") for source in kind.SOURCES)
        where = "its XML" if _looks_up(kind) else named[kind.IMAGES]
        rows.append(f"| `{name}` | {kind.DESCRIPTION} | {sources} | {where} |")
    return "\n".join(rows) + "\n"
