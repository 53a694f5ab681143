"""What is written from the settings: config/schema.yaml, and the tables of keys and of corpus
formats in docs/."""

import re
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any

import yaml
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticUndefined

from radquant.errors import UserError
from radquant.settings import (
    calibration,
    cleaning,
    compute,
    corpus,
    corpus_sources,
    generation,
    given,
    llama_cpp,
    model,
    precision,
    recipe,
    run,
    scoring,
    sources,
    speed,
    study,
    subgroups,
    task,
)
from radquant.settings.section import OneOf, Section, kinds_of
from radquant.settings.sentences import number, section_in

SCHEMA = "config/schema.yaml"
HEAD = """\
# What a configuration may hold, for editors. Written by python -m radquant.settings from
# src/radquant/settings/; change it there.
"""
MODULES = (
    *(
        calibration,
        cleaning,
        compute,
        corpus,
        generation,
        given,
        llama_cpp,
        model,
        precision,
        recipe,
        run,
    ),
    *(scoring, sources, speed, study, subgroups, task),
)
# A table of keys in a page: <!-- keys: Recipe --> … <!-- end of keys -->
TABLE = re.compile(r"(<!-- keys: (\w+)((?: \w+)*) -->\n).*?(<!-- end of keys -->)", re.S)
FORMATS = re.compile(r"(<!-- corpus formats -->\n).*?(<!-- end of corpus formats -->)", re.S)
TYPES = {int: "a whole number", float: "a number", str: "a text", tuple: "a list of texts"}


def schema() -> str:
    """The JSON schema of a configuration, as YAML."""
    found = run.Run.model_json_schema(schema_generator=WithoutTitles)
    text = yaml.safe_dump(plain(found), sort_keys=False, allow_unicode=True, width=100)
    return HEAD + text


class WithoutTitles(GenerateJsonSchema):
    """Titles would only say the names again."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def plain(value: Any) -> Any:
    """A schema without the titles of its sections, on paper of one kind: dicts and lists."""
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if not is_title(key, item)}
        if "pattern" in kept:
            kept["pattern"] = to_the_end(kept["pattern"])
        if "patternProperties" in kept:
            named = kept["patternProperties"].items()
            kept["patternProperties"] = {to_the_end(key): item for key, item in named}
            kept["additionalProperties"] = False
        return {key: plain(item) for key, item in kept.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, str):
        return " ".join(value.split())
    return value


def to_the_end(pattern: Any) -> Any:
    """A pattern whose end is the text's very end for Python, too, to which a line break may come
    after it."""
    ends = isinstance(pattern, str) and pattern.endswith("$")
    return pattern[:-1] + r"(?!\n)$" if ends else pattern


def is_title(key: str, item: Any) -> bool:
    return key == "title" and isinstance(item, str)


def sections() -> dict[str, type[Section]]:
    """All sections by their names."""
    found = [each for module in MODULES for each in vars(module).values()]
    return {
        each.__name__: each
        for each in found
        if isinstance(each, type) and issubclass(each, Section)
    }


def table_of(kind: type[Section], names: tuple[str, ...] = ()) -> str:
    """The keys of a section as a Markdown table: values, default, meaning."""
    rows = ["| key | values | default | |", "|---|---|---|---|"]
    for name in names or tuple(kind.model_fields):
        field = kind.model_fields[name]
        meaning = (field.description or "").replace("|", "\\|")
        rows.append(f"| `{name}` | {values_of(field)} | {default_of(field)} | {meaning} |")
    return "\n".join(rows) + "\n"


def values_of(field: FieldInfo) -> str:
    choice = next((each for each in field.metadata if isinstance(each, OneOf)), None)
    if choice:
        own = ", or keys of its own" * (choice.section is not None)
        return ", ".join(f"`{shown(value)}`" for value in choice.choices()) + own
    kinds = kinds_of(field.annotation)
    if bool in kinds:
        return "`true`, `false`"
    if section_in(field.annotation):
        word = "keys of its own"
    else:
        word = next(TYPES[kind] for kind in TYPES if kind in kinds)
        if tuple in kinds and "float" in str(field.annotation):
            word = "a list of numbers"
    word += bounds_of(field)
    return f"{word}, or `null`" if NoneType in kinds else word


def bounds_of(field: FieldInfo) -> str:
    words = {"ge": "from", "gt": "above", "le": "to", "lt": "below"}
    found = [
        f"{word} {number(getattr(each, name))}"
        for each in field.metadata
        for name, word in words.items()
        if getattr(each, name, None) is not None
    ]
    return f", {' '.join(found)}" if found else ""


def default_of(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    if default is PydanticUndefined:
        return "needed"
    if isinstance(default, Section) or default == {}:
        return "its own"
    if default == ():
        return "none"
    if isinstance(default, tuple | dict):
        return ", ".join(f"`{value}`" for value in default)
    return f"`{shown(default)}`"


def shown(value: Any) -> str:
    """A value as YAML writes it."""
    return str(yaml.safe_dump(value)).splitlines()[0]


def with_tables(page: str, path: Path) -> str:
    """A page with its tables of keys, and that of corpus formats, as they are now."""
    known = sections()

    def table(found: re.Match[str]) -> str:
        if found[2] not in known:
            raise UserError(f"{path}: there are no settings {found[2]}; see src/radquant/settings/")
        return f"{found[1]}{table_of(known[found[2]], tuple(found[3].split()))}{found[4]}"

    page = FORMATS.sub(lambda found: f"{found[1]}{corpus_sources.table()}{found[2]}", page)
    return TABLE.sub(table, page)


def documents(root: Path) -> Iterator[tuple[Path, str]]:
    """Each file that is written from the settings, and what it has to say."""
    yield root / SCHEMA, schema()
    for path in sorted((root / "docs").glob("*.md")):
        page = path.read_text(encoding="utf-8")
        if TABLE.search(page) or FORMATS.search(page):
            yield path, with_tables(page, path)
