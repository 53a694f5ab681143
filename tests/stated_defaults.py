"""The defaults that a page states, beside those that the program has."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import yaml
from plain_english import MARKDOWN, sentences
from pydantic_core import PydanticUndefined

from radquant.settings.run import Run
from radquant.settings.section import Section

# So a default is stated: `section.key` (default `8`), `key` is by default 8, by default `key` is 8.
VALUE = r"`[^`]+`|[-−]?\d[\d,.]*\d|\d"
FILLER = r"(?:[\s:=,(]|is\b|are\b|to\b|of\b|value\b|values\b)*"
KEY = r"(?P<key>`[^`]+`) (?:is|are) "
STATED = re.compile(rf"\bdefaults?\b{FILLER}(?:{KEY})?(?P<value>{VALUE})", re.I)
SHOWN = re.compile(
    r"`config\.yaml` (?:has|sets|says|gives) (?P<lines>`[^`]+`(?:(?:, | and )`[^`]+`)*)"
)
# Its tables come from the settings themselves, and another test holds them to that.
GENERATED = re.compile(r"<!-- keys: .*?<!-- end of keys -->", re.S)

Problems = Iterator[str]


def walk(kind: type[Section], place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each key of a configuration by its sections' names, with its default.

    A name that the user gives, as of a precision, is not part of the place.
    """
    for name, field in kind.model_fields.items():
        yield (*place, name), field.get_default(call_default_factory=True)
        for inner in sections_in(field.annotation):
            yield from walk(inner, (*place, name))


def sections_in(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [each for inner in get_args(annotation) for each in sections_in(inner)]


def options(folder: Path) -> dict[str, list[Any]]:
    """The defaults of the options that the programs in `folder` declare themselves.

    Each stands under `--port` and, as other programs may have it too, under `serve.py --port`.
    """
    found: dict[str, list[Any]] = {}
    for path in sorted(folder.glob("*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call) or not call.args:
                continue
            name = call.args[0]
            if not isinstance(name, ast.Constant) or not str(name.value).startswith("--"):
                continue
            value = next((word.value for word in call.keywords if word.arg == "default"), None)
            if isinstance(value, ast.Constant):
                for key in (str(name.value), f"{path.name} {name.value}"):
                    found.setdefault(key, []).append(value.value)
    return found


class Defaults:
    """What the program does where nothing is said."""

    def __init__(self, root: Path) -> None:
        self.keys = list(walk(Run))
        self.options = options(root / "scripts")
        self.shown = yaml.safe_load((root / "config.yaml").read_text(encoding="utf-8"))

    def of(self, key: str) -> list[Any]:
        """All that `key` can mean: `batch_size`, `generation.batch_size`, `--batch-size`."""
        words = tuple(re.split(r"[.:]\s*", key.removeprefix("--").replace("-", "_")))
        found = [value for place, value in self.keys if place[-len(words) :] == words]
        return found + self.options.get(key, [])


def problems(page: str, defaults: Defaults) -> Problems:
    """What a page says of defaults that is not so, one sentence each."""
    for sentence in sentences(page):
        for found in STATED.finditer(sentence.text):
            before = re.findall(r"`([^`]+)`", sentence.text[: found.start()])
            key = found["key"] or (before[-1] if before else "")
            yield from against(key.strip("`"), found["value"], defaults, f"line {sentence.line}")
        for found in SHOWN.finditer(sentence.text):
            for line in re.findall(r"`([^`]+)`", found["lines"]):
                yield from against_file(line, defaults.shown, f"line {sentence.line}")
    for line, key, value in cells(GENERATED.sub("", page)):
        yield from against(key, value, defaults, f"the table below line {line}")


def against(key: str, value: str, defaults: Defaults, place: str) -> Problems:
    known = [each for each in defaults.of(key) if each is not PydanticUndefined] if key else []
    if not known:
        yield f"{place}: the default {value} is of no key; write `section.key` (default {value})"
        return
    different = {repr(plain(each)) for each in known}
    if len(different) > 1:
        yield f"{place}: {key} means several; write `section.key` or `script.py --option`"
    elif repr(read(value)) not in different:
        yield f"{place}: the default of {key} is {different.pop()}, not {value}"


def against_file(line: str, shown: dict[str, Any], place: str) -> Problems:
    """A line such as generation.batch_size: 20, said to be in config.yaml."""
    key, _, value = line.partition(": ")
    found: Any = shown
    for word in key.split("."):
        found = found.get(word, PydanticUndefined) if isinstance(found, dict) else PydanticUndefined
    if found is PydanticUndefined or repr(found) != repr(read(value)):
        yield f"{place}: config.yaml does not have {line}"


def read(value: str) -> Any:
    """A value as it stands in a page: in YAML, or a number with its thousands set apart."""
    value = value.strip("`").replace("−", "-")
    return yaml.safe_load(re.sub(r"(?<=\d),(?=\d{3})", "", value).rstrip(".,"))


def plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def cells(page: str) -> Iterator[tuple[int, str, str]]:
    """Line, key and default of each row of a table that has a column of defaults."""
    tokens, heads, row, line = MARKDOWN.parse(page), list[str](), list[str](), 0
    for token in tokens:
        if token.type == "table_open" and token.map:
            line, heads = token.map[0] + 1, []
        elif token.type == "tr_open":
            row = []
        elif token.type == "inline" and token.level >= 4:
            row.append(token.content)
        elif token.type == "tr_close" and not heads:
            heads = [cell.lower() for cell in row]
        elif token.type == "tr_close" and "default" in heads:
            key, value = row[0], row[heads.index("default")]
            name = re.match(r"`((?:\w+\.py )?[\w.-]+)", key)
            if name and re.fullmatch(VALUE, value):
                yield line, name[1], value
