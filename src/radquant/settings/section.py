"""What all settings are made of: a section is a frozen pydantic model, its fields declared once.

A field has its type, default, bounds and one sentence. From these come the check of a configuration
(`check`), config/schema.yaml and the tables of keys in docs/ (`documents`). So do the options of
the scripts and what a rule hands to them (`options`).
"""

import json
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from types import NoneType
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError, core_schema


class Section(BaseModel):
    """Keys that belong together. Numbers and truth values may arrive as text."""

    # The type is strict, because 1 is no truth value.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def from_text(cls, value: Any, info: ValidationInfo) -> Any:
        """Text from the command line, and 1e-3 in YAML, as what the field wants.

        Snakemake hands over what stands inside `--config generation='{"shards": 3}'` as text.
        """
        assert info.field_name is not None
        kinds = kinds_of(cls.model_fields[info.field_name].annotation)
        if isinstance(value, list) and tuple in kinds:
            return tuple(value)
        if isinstance(value, float) and int in kinds and value.is_integer():
            return int(value)  # to JSON, 4.0 is the whole number 4
        if not isinstance(value, str) or (str in kinds and value != "null"):
            return value
        if NoneType in kinds and value.lower() == "null":
            return None
        return read(value, kinds)


def read(text: str, kinds: set[Any]) -> Any:
    """What a text stands for where one of `kinds` is wanted; the text itself if for nothing."""
    number = next((kind for kind in (int, float) if kind in kinds), None)
    sections = any(issubclass(kind, Section) for kind in kinds if isinstance(kind, type))
    try:
        if bool in kinds:
            return {"true": True, "false": False}.get(text.lower(), text)
        # Numbers are written as Python writes them, because .5 is no JSON.
        if number and not (sections and text.lstrip().startswith("{")):
            return number(text) if text.isascii() else text
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return found if isinstance(found, dict) else text  # of sections alone


def kinds_of(annotation: Any) -> set[Any]:
    """The plain types that an annotation admits: {int, NoneType} of `int | None`."""
    parts = get_args(annotation)
    if annotation in (tuple, list, dict) or not parts:
        return {annotation}
    origin = getattr(annotation, "__origin__", None)
    if origin in (tuple, list, dict):
        return {origin}
    inner = parts[:1] if hasattr(annotation, "__metadata__") else parts
    return set().union(*map(kinds_of, inner))


@dataclass(frozen=True)
class OneOf:
    """The values that a field may have; those of a table of the registry, if it is one.

    Stands in `Annotated` behind the type of the values.
    """

    values: Iterable[Any]
    before: tuple[Any, ...] = ()  # values in front of a table's
    after: tuple[Any, ...] = ()
    section: type[Section] | None = None  # keys that may stand there instead

    def choices(self) -> list[Any]:
        return [*self.before, *self.values, *self.after]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        if self.section is None:
            return core_schema.no_info_plain_validator_function(self.check)

        def check(value: Any, keys: Any) -> Any:
            return keys(value) if isinstance(value, dict | Section) else self.check(value)

        def plain(value: Any) -> Any:
            return value.model_dump(mode="json") if isinstance(value, Section) else value

        return core_schema.no_info_wrap_validator_function(
            check,
            handler.generate_schema(self.section),
            serialization=core_schema.plain_serializer_function_ser_schema(plain),
        )

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        if self.section is None:
            return {"enum": self.choices()}
        return {"anyOf": [{"enum": self.choices()}, handler(schema["schema"])]}

    def check(self, value: Any) -> Any:
        choices = self.choices()
        # The types are compared, too, as True equals 1 in Python.
        if (type(value), value) not in [(type(choice), choice) for choice in choices]:
            raise PydanticCustomError("choice", "{found} is not allowed", {"choices": choices})
        return value


@dataclass(frozen=True)
class Option:
    """The name of a script's option where it is not the field's own."""

    name: str


@dataclass(frozen=True)
class Off:
    """Another name of the option that makes a truth value false."""

    name: str
    help: str


# Begins the tag of a section that is one of several at its place. No key of a configuration can be
# one: YAML knows no NUL.
TAGGED = "\0"

# Patterns, and what a text of that form is called in an error.
FORMS: dict[str, str] = {}


def of_form(pattern: str, form: str) -> Any:
    """What makes a text one that matches `pattern`; `form` says so in words.

    To pydantic's own engine, unlike Python's, a line break before the end is no end; it knows no
    looking ahead.
    """
    FORMS[pattern] = form
    return Field(pattern=pattern)


def each_once(values: tuple[str, ...]) -> tuple[str, ...]:
    double = sorted({value for value in values if values.count(value) > 1})
    if double:
        raise wrong(f"names {double[0]} twice; remove one")
    return values


# Linux's, in bytes.
LONGEST_NAME, LONGEST_PATH = 255, 4095


def no_nul(text: str) -> str:
    """No program can be handed a text with the character NUL in it."""
    if "\0" in text:
        raise wrong("holds the character NUL; take it out")
    return text


def on_one_line(text: str) -> str:
    """Names and paths stand in sentences, logs and commands: nothing in them breaks a line."""
    odd = [sign for sign in text if unicodedata.category(sign) in ("Cc", "Zl", "Zp")]
    if odd:
        raise wrong(f"holds a line break or control character ({odd[0]!r}); take it out")
    if not text.strip():
        raise wrong("is blank; give it a value")
    return text


def can_be_a_path(text: str) -> str:
    if text.startswith("~"):
        raise wrong("begins with ~, which only a shell replaces; write the whole path")
    longest = max(len(part.encode()) for part in text.split("/"))
    if longest > LONGEST_NAME or len(text.encode()) > LONGEST_PATH:
        raise wrong(
            f"has a name of {longest} bytes in a path of {len(text.encode())}, and a file system "
            f"takes {LONGEST_NAME} and {LONGEST_PATH}; give the right path"
        )
    return text


Once = AfterValidator(each_once)
Text = Annotated[str, Field(min_length=1), AfterValidator(no_nul)]
Line = Annotated[str, Field(min_length=1), AfterValidator(on_one_line)]
FilePath = Annotated[Line, AfterValidator(can_be_a_path)]
# Files are named after these, with a prefix and an ending of this or other programs. A file
# system's limit is 255.
Name = Annotated[
    str,
    of_form(
        r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
        "a file name of at most 100 letters, digits, dots, dashes and underscores",
    ),
]
# The largest whole number that every program reads from JSON as it is written.
LARGEST = 2**53 - 1
Sha256 = Annotated[str, of_form(r"^[0-9a-f]{64}$", "64 lowercase hexadecimal digits")]


def wrong(words: str, field: str = "") -> PydanticCustomError:
    """The error of a validator: the sentence begins with the place of the section, or of `field`.

    words: what follows the place. They begin with ": " where the place is no part of the sentence.
    """
    return PydanticCustomError("rule", "{words}", {"words": words, "field": field})
