"""The options of the scripts, and what a rule hands to them, both from the fields of the settings.

An option has its field's name, help and default. Its value is checked as in a configuration.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from pydantic import create_model
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from radquant.settings.section import Off, OneOf, Option, Section, kinds_of
from radquant.settings.sentences import made, section_in


@dataclass(frozen=True)
class Part:
    """The fields of a section on which a stage depends; all of them if none is named."""

    name: str  # of the section in a run
    kind: type[Section]
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def fields(self) -> dict[str, FieldInfo]:
        names = self.only or tuple(self.kind.model_fields)
        return {name: self.kind.model_fields[name] for name in names if name not in self.without}

    def section(self) -> type[Section]:
        """The section itself or, of chosen fields, one of them alone: its rules are about all."""
        fields = self.fields()
        required = {name for name, each in self.kind.model_fields.items() if each.is_required()}
        if not self.only and required <= fields.keys():
            return self.kind
        chosen: dict[str, Any] = {name: (f.rebuild_annotation(), f) for name, f in fields.items()}
        return create_model(self.kind.__name__, __base__=Section, **chosen)


Parts = tuple[Part, ...]


def add_options(parser: argparse.ArgumentParser, parts: Parts) -> None:
    """Add an option for each field of `parts`; `read_options` makes settings of their values."""
    for part in parts:
        for name, field in part.fields().items():
            _add(parser, name, field)


def _add(parser: argparse.ArgumentParser, name: str, field: FieldInfo) -> None:
    option, help_text = option_of(name, field), _help(field)
    inner = flattened(field)
    if inner is not None:
        for each, of_inner in inner.model_fields.items():
            _add(parser, each, of_inner)
        return
    kinds = kinds_of(field.annotation)
    settings: dict[str, Any] = {"dest": _place(option), "default": None, "help": help_text}
    if bool in kinds:
        settings["action"] = argparse.BooleanOptionalAction
        for off in (each for each in field.metadata if isinstance(each, Off)):
            other = {"dest": settings["dest"], "default": None, "help": off.help}
            parser.add_argument(f"--{off.name}", action="store_false", **other)
    elif tuple in kinds:
        settings |= {"action": "extend", "nargs": "*", "metavar": "TEXT"}
    elif (choice := _choices(field)) and choice.section:
        settings["metavar"] = "|".join([*map(str, choice.choices()), "JSON"])
    elif choice:
        settings |= {"choices": [str(value) for value in choice.choices() if value is not None]}
    elif section_in(field.annotation):
        settings["metavar"] = "JSON"
    else:
        settings["metavar"] = "N" if int in kinds else "X" if float in kinds else "TEXT"
    parser.add_argument(f"--{option}", **settings)


def _help(field: FieldInfo) -> str:
    text = (field.description or "").replace("%", "%%")
    text = text[:1].lower() + text[1:] if text[1:2].islower() else text
    default = field.get_default(call_default_factory=True)
    if default in (None, PydanticUndefined, ()) or isinstance(default, Section):
        return text
    shown = json.dumps(default) if isinstance(default, bool) else default
    shown = " ".join(shown) if isinstance(shown, tuple) else shown
    return f"{text} (default: {shown})"


def option_of(name: str, field: FieldInfo) -> str:
    """The name of a field's option, without dashes in front."""
    own = [each.name for each in field.metadata if isinstance(each, Option)]
    return own[0] if own else name.replace("_", "-")


def flattened(field: FieldInfo) -> type[Section] | None:
    """The section in a field whose own fields are options, each with a name of its own."""
    inner = section_in(field.annotation)
    if inner is None or dict in kinds_of(field.annotation):
        return None
    named = [
        any(isinstance(each, Option) for each in f.metadata) for f in inner.model_fields.values()
    ]
    return inner if any(named) else None


def _place(option: str) -> str:
    return f"option_{option.replace('-', '_')}"


def _choices(field: FieldInfo) -> OneOf | None:
    found = [each for each in field.metadata if isinstance(each, OneOf)]
    return found[0] if found else None


def parse(
    parser: argparse.ArgumentParser, parts: Parts, line: list[str] | None = None
) -> tuple[argparse.Namespace, Any]:
    """The parsed command line: what the script declares itself, and the sections of `parts`.

    line: its words, those of this process unless given.
    """
    add_options(parser, parts)
    line = sys.argv[1:] if line is None else line
    arguments = parser.parse_args([_marked(word) for word in line])
    for name, value in vars(arguments).items():
        setattr(arguments, name, _unmarked(value))
    return arguments, read_options(arguments, parts)


# Stands for the value "--", which argparse drops even behind a "=", before Python 3.13.
DASHES = "\0--"


def _marked(word: str) -> str:
    option, is_value, value = word.partition("=")
    return f"{option}={DASHES}" if is_value and value == "--" else word


def _unmarked(value: Any) -> Any:
    if isinstance(value, list):
        return [_unmarked(each) for each in value]
    return "--" if value == DASHES else value


def read_options(arguments: argparse.Namespace, parts: Parts) -> Any:
    """The sections of `parts`, by name, as the options of a script say.

    Raises UserError with one sentence, in which an option stands under its name in `--help`.
    """
    found = {}
    for part in parts:
        given = dict(_given(arguments, part.fields()))
        found[part.name] = made(part.section(), given, names=dict(_named(part.fields())))
    return SimpleNamespace(**found)


def _named(fields: Mapping[str, FieldInfo]) -> Iterator[tuple[str, str]]:
    """(place of a field, its option)."""
    for name, field in fields.items():
        yield name, f"--{option_of(name, field)}"
        inner = flattened(field)
        for each, of_inner in inner.model_fields.items() if inner else ():
            yield f"{name}.{each}", f"--{option_of(each, of_inner)}"


def _given(
    arguments: argparse.Namespace, fields: Mapping[str, FieldInfo]
) -> Iterator[tuple[str, Any]]:
    for name, field in fields.items():
        inner = flattened(field)
        if inner is not None:
            values = dict(_given(arguments, inner.model_fields))
            if values:
                yield name, values
            continue
        value = getattr(arguments, _place(option_of(name, field)))
        if value is not None:
            yield name, value


def words(sections: Mapping[str, Section], parts: Parts) -> str:
    """The options that say what `sections` hold of `parts`, quoted for the shell.

    A single string is all that a rule's parameters need: Snakemake stores parameters as a set of
    values, without their names.
    """
    found: list[str] = []
    for part in parts:
        found += _words(sections[part.name], part.fields())
    return shlex.join(found)


def _words(section: Section, fields: Mapping[str, FieldInfo]) -> Iterable[str]:
    for name, field in fields.items():
        value, option = getattr(section, name), f"--{option_of(name, field)}"
        inner = flattened(field)
        if value is None:
            continue
        if inner is not None:
            yield from _words(value, inner.model_fields)
        elif isinstance(value, bool):
            yield option if value else f"--no-{option.removeprefix('--')}"
        elif isinstance(value, tuple):
            default = field.get_default()
            yield from [f"{option}={item}" for item in value] or ([option] if default else [])
        elif isinstance(value, Section):
            yield f"{option}={json.dumps(value.model_dump(mode='json'), sort_keys=True)}"
        else:
            yield f"{option}={value}"
