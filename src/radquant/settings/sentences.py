"""One sentence for what is wrong with a setting: where it is, and the nearest valid name."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from radquant.errors import UserError
from radquant.settings.section import FORMS, TAGGED, Section

S = TypeVar("S", bound=Section)
# What pydantic calls a value of another type, and what JSON calls the type that is wanted.
TYPES = {
    "int_type": "integer",
    "int_from_float": "integer",
    "float_type": "number",
    "bool_type": "boolean",
    "string_type": "string",
    "tuple_type": "array",
    "list_type": "array",
    "dict_type": "object",
    "model_type": "object",
}
# Signs of a wrong value that are quoted in its sentence.
MOST_SHOWN = 120
BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "less_than_equal": ("le", "at most"),
    "greater_than": ("gt", "greater than"),
    "less_than": ("lt", "less than"),
}


def made(kind: type[S], values: Any, place: str = "", names: Mapping[str, str] | None = None) -> S:
    """A section from plain values; raises UserError with one sentence, beginning with `place`.

    names: what the section's fields are called there, where it is not by their own names.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UserError(sentence(error, kind, place, names or {})) from None


def sentence(
    error: ValidationError, kind: type[Section], place: str, names: Mapping[str, str]
) -> str:
    """Say in one sentence what is wrong; misspelt keys first, then in the order of places."""
    first = min(error.errors(include_url=False), key=_order)
    return one_line(_sentence(first, kind, place, names))


def one_line(text: str) -> str:
    """A sentence may name what the user wrote, line breaks and all."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def _order(error: ErrorDetails) -> tuple[bool, bool, list[str]]:
    """Unknown keys first: a misspelt required key is then told as a misspelling. Rules about
    several values come last."""
    kind = error["type"]
    # Where every item of a list is wrong, pydantic also calls the list too short.
    last = kind in ("rule", "too_short")
    return kind != "extra_forbidden", last, [str(part) for part in error["loc"]]


def cut(found: Any) -> str:
    """A value as Python writes it; of a long one, its beginning."""
    try:
        text = repr(found[:MOST_SHOWN] if isinstance(found, str) else found)
    except (ValueError, RecursionError):  # thousands of digits, or of brackets
        return "longer than can be shown"
    long = len(text) > MOST_SHOWN or (isinstance(found, str) and len(found) > MOST_SHOWN)
    return f"{text[:MOST_SHOWN]}… (cut)" if long else text


def number(value: Any) -> str:
    """A bound: whole numbers with all their digits."""
    return str(int(value)) if value == int(value) else f"{value:g}"


def _sentence(error: ErrorDetails, kind: type[Section], at: str, names: Mapping[str, str]) -> str:
    parts, found, about = list(error["loc"]), error["input"], error.get("ctx", {})
    what = error["type"]
    if what == "string_pattern_mismatch" and parts[-1] == "[key]":  # of a mapping from names
        *parts, found, _ = parts
    shown = called(parts, names)
    place = join(at, *shown)
    named = place or "the configuration"
    if what == "extra_forbidden":
        *_, unknown = parts
        known = keys_at(kind, parts[:-1], str(unknown))
        return f"{place} is not a known key; {nearest(unknown, known)}"
    if what == "missing":
        return f"{place} is missing; add it"
    if what == "rule":
        field, words = about["field"], about["words"]
        start = join(at, *called([*parts, *filter(None, [field])], names))
        if words.startswith(": "):
            return f"{start}{words}" if start else words.removeprefix(": ")
        return f"{start} {words}" if start else words
    if what == "choice":
        return f"{named} is {cut(found)}, which is not allowed; {nearest(found, about['choices'])}"
    if what == "string_pattern_mismatch":
        return f"{named} has {cut(found)}, which is not of the form: {FORMS[about['pattern']]}"
    if what == "string_unicode":
        return f"{named} holds half a character, or a byte that is not UTF-8; rename or correct it"
    if what in ("finite_number", "int_parsing_size"):
        return f"{named} is {cut(found)} and must be a number that is finite and not that large"
    if what in TYPES:
        # YAML makes numbers, dates and truth values of what looks like one.
        quotes = "; put it in quotes" * (what == "string_type" and not hasattr(found, "__len__"))
        if found is None:
            return f"{named} has no value; write one of type {TYPES[what]}, or take its line out"
        return f"{named} must be of type {TYPES[what]}, not {cut(found)}{quotes}"
    if what in BOUNDS:
        name, words = BOUNDS[what]
        return f"{named} is {cut(found)} and must be {words} {number(about[name])}"
    if what in ("too_short", "string_too_short"):
        return f"{named} is empty; give it a value"
    if what == "multiple_of":
        return f"{named}: {cut(found)} is not a multiple of {about['multiple_of']}"
    return f"{named}: {error['msg']}"


def called(parts: list[Any], names: Mapping[str, str]) -> list[Any]:
    """A place whose beginning has a name of its own, under that name; without tags of sections."""
    parts = [part for part in parts if not str(part).startswith(TAGGED)]
    for length in (2, 1):
        name = names.get(".".join(map(str, parts[:length])))
        if name is not None:
            return [name, *parts[length:]]
    return parts


def section_at(kind: type[Section], parts: Iterable[Any]) -> type[Section]:
    """The section at a place in another: that of a field, or of a mapping's values."""
    inside: Any = None
    for part in parts:
        field = kind.model_fields.get(str(part))
        if field is not None:
            inside = field.annotation
            kind = section_in(inside) or kind
        elif str(part).startswith(TAGGED):
            kind = section_in(tagged(inside, part)) or kind
    return kind


def keys_at(kind: type[Section], parts: list[Any], meant: str) -> list[str]:
    """The keys at a place; where none is like the one meant, those of all sections of the place."""
    own = list(section_at(kind, parts).model_fields)
    if not parts or not str(parts[-1]).startswith(TAGGED) or difflib.get_close_matches(meant, own):
        return own
    others = _sections_in(kind.model_fields[parts[0]].annotation)
    return [*own, *(key for other in others for key in other.model_fields if key not in own)]


def _sections_in(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [s for each in getattr(annotation, "__args__", ()) for s in _sections_in(each)]


def tagged(annotation: Any, tag: Any) -> Any:
    """Of the types inside an annotation, the one with this tag; None without it."""
    inner = getattr(annotation, "__args__", ())
    if any(getattr(each, "tag", None) == tag for each in getattr(annotation, "__metadata__", ())):
        return annotation
    return next((found for each in inner if (found := tagged(each, tag)) is not None), None)


def section_in(annotation: Any) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    inner = [section_in(each) for each in getattr(annotation, "__args__", ())]
    return next((each for each in inner if each is not None), None)


def join(at: str, *parts: Any) -> str:
    """The place of what is under `at`, which is empty for the whole."""
    return ".".join([*filter(None, [at]), *(str(part) or repr(part) for part in parts)])


def nearest(wrong: Any, valid: Iterable[Any]) -> str:
    """Return the part of a sentence that names the nearest of `valid`, or all of them."""
    names = ["null" if item is None else str(item) for item in valid]
    close = difflib.get_close_matches(str(wrong), names, n=1, cutoff=0.5)
    listed = f"the valid ones are {', '.join(names)}" if names else "there is none"
    return f"did you mean {close[0]}? ({listed})" if close else listed
