"""Reading files of a blinded reader study, as docs/reading.md describes them, checked.

A comment may hold what a report says. It is checked to be a text and then dropped: it is in no
table, message or result. Nor does a message quote a value that should be one of a few: it may be
anything.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from radquant.errors import UserError
from radquant.files import require_file, sha256_file
from radquant.reporting import reading
from radquant.reporting.reading import FORMAT, REFERENCES

REFERENCE = "reference"  # the radiologist's text, where it is rated as one of the texts
ACCEPTABILITY = tuple(range(1, len(reading.ACCEPTABILITY) + 1))
HARM, ERRORS = tuple(reading.HARM), tuple(reading.ERRORS)
MOST_BYTES = 500_000_000
LONGEST_NAME = 100
KEYS = (
    *("format", "run", "reader", "seed", "created", "finished", "count", "reference"),
    *("systems", "ratings"),
)


@dataclass(frozen=True)
class Rating:
    """What one reader said of one system's output of one report."""

    report: str
    system: str
    acceptability: int  # 1 to 5, 5 is best
    harm: int  # place in HARM
    errors: frozenset[str]
    seconds: float | None


@dataclass(frozen=True)
class Reading:
    """One reader's file."""

    path: str
    sha256: str
    reader: str
    count: int  # reports that were to be read
    reference: str
    systems: tuple[str, ...]
    finished: str | None
    ratings: tuple[Rating, ...]


def read_readings(
    paths: Sequence[str | Path], run: str, reports: Sequence[str], precisions: Sequence[str]
) -> list[Reading]:
    """Read the files of one study of the run with the id `run`.

    reports: the ids of the run's written reports; precisions: their names. Raises UserError with
    file and entry for what is not of the form, not of this run, or there twice.
    """
    if not paths:
        raise UserError("no reading file is given; name those that report.html exported")
    readings: list[Reading] = []
    for path in paths:
        found = _read(Path(path), run, set(reports), [*precisions, REFERENCE])
        for other in readings:
            if other.reader.casefold() == found.reader.casefold():
                raise UserError(
                    f"{path} is of the same reader as {other.path}; give one file for each reader"
                )
        readings.append(found)
    return readings


def _read(path: Path, run: str, reports: set[str], systems: Sequence[str]) -> Reading:
    record = _json(path)
    missing = [key for key in KEYS if key not in record]
    if missing:
        raise _wrong(path, f"lacks {', '.join(missing)}")
    if type(record["format"]) is not int or record["format"] != FORMAT:
        raise _wrong(path, f"is not of format {FORMAT}, the only one that this version reads")
    if record["run"] != run:
        raise UserError(
            f"{path} is of another run than these results, whose id is {run}; give the file that "
            "was exported from this run's report.html"
        )
    named = record["systems"]
    if not isinstance(named, list) or any(each not in systems for each in named):
        raise _wrong(path, f"systems names one that the run has not; it has {', '.join(systems)}")
    if len(set(named)) != len(named) or not named:
        raise _wrong(path, "systems is empty or names one twice")
    return Reading(
        path=str(path),
        sha256=sha256_file(path),
        reader=_reader(path, record["reader"]),
        count=_count(path, record["count"], len(reports)),
        reference=_one_of(path, "reference", record["reference"], REFERENCES),
        systems=tuple(named),
        finished=_time(path, record),
        ratings=_ratings(path, record, reports, named),
    )


def _json(path: Path) -> dict[str, Any]:
    require_file(path)
    if path.stat().st_size > MOST_BYTES:
        raise UserError(f"{path} has over {MOST_BYTES} bytes, which is no reading file")
    try:
        record = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):  # whose messages may quote the text
        raise UserError(
            f"{path} is no JSON in UTF-8; give the file as report.html exported it"
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    if not isinstance(record, dict):
        raise _wrong(path, "holds no object")
    return record


def _wrong(path: Path, what: str) -> UserError:
    return UserError(f"{path}: it {what}; give the file as report.html exported it")


def _reader(path: Path, name: Any) -> str:
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise _wrong(path, "names no reader on one line")
    if len(name) > LONGEST_NAME:
        raise _wrong(path, f"has a reader's name of over {LONGEST_NAME} characters")
    return name.strip()


def _count(path: Path, count: Any, most: int) -> int:
    if type(count) is not int or not 1 <= count <= most:
        raise _wrong(path, f"has a count that is no number from 1 to {most}, the run's reports")
    return count


def _time(path: Path, record: Mapping[str, Any]) -> str | None:
    for key in ("created", "finished"):
        value = record[key]
        if value is None and key == "finished":
            continue
        try:
            datetime.fromisoformat(value)
        except (TypeError, ValueError):
            raise _wrong(path, f"has no time under {key}") from None
    return record["finished"]


def _ratings(
    path: Path, record: Mapping[str, Any], reports: set[str], systems: Sequence[str]
) -> tuple[Rating, ...]:
    entries = record["ratings"]
    if not isinstance(entries, list):
        raise _wrong(path, "has no list of ratings")
    ratings: list[Rating] = []
    places: dict[tuple[str, str], int] = {}
    for number, entry in enumerate(entries, 1):
        place = f"entry {number} of ratings"
        rating = _rating(path, place, entry, reports, systems)
        first = places.setdefault((rating.report, rating.system), number)
        if first != number:
            raise _wrong(path, f"rates the same system's report in {place} and in entry {first}")
        ratings.append(rating)
    rated = len({rating.report for rating in ratings})
    if rated > record["count"]:
        raise _wrong(path, f"rates {rated} reports, more than its count of {record['count']}")
    return tuple(ratings)


def _rating(
    path: Path, place: str, entry: Any, reports: set[str], systems: Sequence[str]
) -> Rating:
    keys = ("report", "system", "acceptability", "harm", "errors", "comment", "seconds")
    if not isinstance(entry, dict):
        raise _wrong(path, f"has {place} that is no object")
    missing = [key for key in keys if key not in entry]
    if missing:
        raise _wrong(path, f"lacks {', '.join(missing)} in {place}")
    if not isinstance(entry["report"], str) or entry["report"] not in reports:
        raise _wrong(path, f"names a report in {place} that the run has not written")
    acceptability = entry["acceptability"]
    if type(acceptability) is not int or acceptability not in ACCEPTABILITY:
        raise _wrong(path, f"has an acceptability in {place} that is none of 1 to 5")
    errors, seconds = entry["errors"], entry["seconds"]
    if not isinstance(errors, list) or any(each not in ERRORS for each in errors):
        raise _wrong(path, f"has an error in {place} that is none of {', '.join(ERRORS)}")
    if len(set(errors)) != len(errors):
        raise _wrong(path, f"names an error twice in {place}")
    if not isinstance(entry["comment"], str | None):
        raise _wrong(path, f"has a comment in {place} that is no text")
    if seconds is not None and not _is_duration(seconds):
        raise _wrong(path, f"has seconds in {place} that are no number from 0")
    return Rating(
        report=entry["report"],
        system=_one_of(path, f"system in {place}", entry["system"], systems),
        acceptability=acceptability,
        harm=HARM.index(_one_of(path, f"harm in {place}", entry["harm"], HARM)),
        errors=frozenset(errors),
        seconds=None if seconds is None else float(seconds),
    )


def _is_duration(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and 0 <= value < 1e9
        and math.isfinite(value)
    )


def _one_of(path: Path, what: str, value: Any, known: Sequence[str]) -> str:
    if not isinstance(value, str) or value not in known:
        raise _wrong(path, f"has a {what} that is none of {', '.join(known)}")
    return value
