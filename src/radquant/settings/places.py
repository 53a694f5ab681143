"""Where the files lie that a configuration names by relative paths.

A relative path is looked for from the configuration's folder and from the run's, which is where
Snakemake works. What is in neither may come with this program, as prompts/impression.txt does.
"""

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args

from pydantic import AfterValidator
from pydantic.fields import FieldInfo

from radquant.errors import UserError
from radquant.settings.section import Section, can_be_a_path
from radquant.settings.sentences import join

S = TypeVar("S", bound=Section)
PATH = AfterValidator(can_be_a_path)  # every setting that names a file has it
Change = Callable[[str, str], str]


class Places(NamedTuple):
    """Folders in which relative paths are looked for.

    near: those of the configuration and of the run. program: the last one.
    """

    near: tuple[Path, ...]
    program: Path


def places_of(configurations: Iterable[str | Path], program: str | Path) -> Places:
    """Return the folders for a run in the current folder, each once."""
    folders = [*(Path(path).absolute().parent for path in configurations), Path.cwd()]
    return Places(tuple({os.path.realpath(each): each for each in folders}.values()), Path(program))


def found(key: str, text: str, places: Places) -> str:
    """Return the path from the current folder of the file that a setting names.

    It is as written where that is right, or nothing is found. Raises UserError if it names two
    files.
    """
    if os.path.isabs(text):
        return text
    there = {os.path.realpath(path): path for path in _candidates(text, places.near)}
    if len(there) > 1:
        raise UserError(
            f"{key} is {text}, and {' and '.join(map(str, there.values()))} are not the same; "
            "write the whole path of the one that is meant"
        )
    if os.path.exists(text):
        return text
    path = next(iter([*there.values(), *_candidates(text, [places.program])]), None)
    if path is None:
        return text
    short = min(os.path.relpath(path), str(path), key=len)
    if any(brace in short for brace in "{}"):
        raise UserError(
            f"{key} is {text}, which lies in {path.parent}; rename that folder, because a path "
            "may hold no braces"
        )
    return short


def _candidates(text: str, folders: Iterable[Path]) -> list[Path]:
    return [folder / text for folder in folders if os.path.exists(folder / text)]


def where(text: str, places: Places | None) -> str:
    """Return the words for a path that leads to nothing: "does not exist in A, B or C"."""
    if places is None or os.path.isabs(text):
        return "does not exist"
    *folders, last = dict.fromkeys(map(str, [*places.near, places.program]))
    return (
        f"does not exist in {', '.join(folders)} or {last}"
        if folders
        else (f"does not exist in {last}")
    )


def with_paths(section: S, change: Change, place: str = "") -> S:
    """Return a section in which each path is what `change` makes of its key and itself."""
    changed = {
        name: _changed(getattr(section, name), _names_a_file(field), change, join(place, name))
        for name, field in type(section).model_fields.items()
    }
    different = {name: new for name, new in changed.items() if new != getattr(section, name)}
    return section.model_copy(update=different) if different else section


def _changed(value: Any, is_path: bool, change: Change, key: str) -> Any:
    if isinstance(value, Section):
        return with_paths(value, change, key)
    if isinstance(value, dict):
        return {
            name: _changed(each, is_path, change, join(key, name)) for name, each in value.items()
        }
    if isinstance(value, tuple):
        return tuple(_changed(each, is_path, change, f"{key}.{n}") for n, each in enumerate(value))
    return change(key, value) if is_path and isinstance(value, str) else value


def _names_a_file(field: FieldInfo) -> bool:
    return PATH in field.metadata or _within(field.annotation)


def _within(annotation: Any) -> bool:
    parts = get_args(annotation)
    return PATH in parts or any(map(_within, parts))


def paths_of(section: Section) -> dict[str, str]:
    """{key: path} of all files and folders that a section names."""
    named: dict[str, str] = {}

    def note(key: str, path: str) -> str:
        named[key] = path
        return path

    with_paths(section, note)
    return named


# The rules that read what a setting names on this machine. If another path is missing, the rule
# that reads it says so.
READ_BY = {
    r"model\.path": ("fetch_model",),
    r"corpus\.(path|train|eval|split_file|views_file)": ("fetch_corpus",),
    r"corpus\.image_root": ("fetch_corpus", "clean", "encode_images"),
    r"calibration\.table\.path": ("calibration_set",),
    r"checkpoints\.(.*)\.path": (r"take_\1",),
    r"statistics\.subgroups\..*\.table": ("subgroups",),
}


def read_by(key: str) -> tuple[str, ...]:
    """Return the names of the rules that read the file that a setting names."""
    for pattern, rules in READ_BY.items():
        if match := re.fullmatch(pattern, key):
            return tuple(match.expand(rule) for rule in rules)
    return ()


def missing(settings: Section, places: Places) -> dict[str, str]:
    """Return {key: sentence} of the files that rules read and that are not on this machine."""
    return {
        key: f"{key} is {path}, which {where(path, places)}"
        for key, path in paths_of(settings).items()
        if read_by(key) and not os.path.exists(path)
    }
