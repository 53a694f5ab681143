"""What the readers of a blinded study said of a run's outputs: results/readers.json.

It holds counts, coefficients and names of readers, but no comment, no report's id and no report
text.
"""

import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from radquant.reporting.readers_agreement import (
    LEVELS,
    MISSING,
    WEIGHTS,
    Measure,
    agreement,
    alpha,
    by_patient,
    coincidences,
    crossed,
    disagreement,
    resampled,
    weighted_kappa,
)
from radquant.reporting.readers_comparison import ACCEPTABLE, HARMFUL, Settings, compare_all
from radquant.reporting.readers_files import (
    ACCEPTABILITY,
    ERRORS,
    HARM,
    REFERENCE,
    Rating,
    Reading,
    read_readings,
)
from radquant.settings.run import ORIGINAL

FORMAT = 1
NOMINAL, ORDINAL = LEVELS
SCALES = {"acceptability": len(ACCEPTABILITY), "harm": len(HARM)}


@dataclass(frozen=True)
class Study:
    """What a reader study is about: a run's outputs. Dictionaries are by the report's id."""

    run: str  # the run's id, as reading files name it
    precisions: list[str]  # the original first
    unit: str  # what resampling draws: 'patient', or 'report' where no patient is known
    patients: dict[str, str]
    texts: dict[str, dict[str, str]]  # {report: {system: text}}, the reference's among them


def readers_record(study: Study, paths: Sequence[str | Path], settings: Settings) -> dict[str, Any]:
    """Return what readers.json holds, from the reading files at `paths`; docs/reading.md has it.

    Raises UserError for a file that is not of this run or not as report.html exports it.
    """
    readings = read_readings(paths, study.run, list(study.patients), study.precisions)
    readings.sort(key=lambda reading: reading.reader)
    named = {system for reading in readings for system in reading.systems}
    systems = [name for name in [*study.precisions, REFERENCE] if name in named]
    rated = {rating.report for reading in readings for rating in reading.ratings}
    compared = [name for name in systems if name != ORIGINAL]
    return {
        "format": FORMAT,
        "run": study.run,
        "settings": asdict(settings) | {"acceptable": ACCEPTABLE, "harmful": HARMFUL},
        "readers": {reading.reader: _reader(reading) for reading in readings},
        "files": [[Path(reading.path).name, reading.sha256] for reading in readings],
        "systems": systems,
        "unit": study.unit,
        "reports": len(rated),
        "patients": len({study.patients[report] for report in rated}),
        "of_reports": len(study.patients),
        "ratings": {system: _ratings(readings, system) for system in systems},
        "agreement": _agreement(study, readings, settings),
        "comparisons": compare_all(readings, ORIGINAL, compared, study.patients, settings),
    }


def _reader(reading: Reading) -> dict[str, Any]:
    seconds = [each.seconds for each in reading.ratings if each.seconds is not None]
    wanted = reading.count * len(reading.systems)
    return {
        "ratings": len(reading.ratings),
        "wanted": wanted,
        "missing": wanted - len(reading.ratings),
        "reports": len({each.report for each in reading.ratings}),
        "count": reading.count,
        "finished": reading.finished is not None,
        "reference": reading.reference,
        "median_seconds": statistics.median(seconds) if seconds else None,
    }


def _ratings(readings: Sequence[Reading], system: str) -> dict[str, Any]:
    """How often each answer was given to a system's texts, over all readers."""
    given = [each for reading in readings for each in reading.ratings if each.system == system]
    acceptability = Counter(each.acceptability for each in given)
    harm = Counter(HARM[each.harm] for each in given)
    errors = Counter(kind for each in given for kind in each.errors)
    return {
        "ratings": len(given),
        "acceptability": {str(each): acceptability[each] for each in ACCEPTABILITY},
        "mean_acceptability": _mean([each.acceptability for each in given]),
        "acceptable": _mean([each.acceptability >= ACCEPTABLE for each in given]),
        "harm": {each: harm[each] for each in HARM},
        "harmful": _mean([each.harm >= HARM.index(HARMFUL) for each in given]),
        "errors": {kind: errors[kind] for kind in ERRORS},
        "any_error": _mean([bool(each.errors) for each in given]),
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(sum(values) / len(values)) if values else None


def _agreement(study: Study, readings: Sequence[Reading], settings: Settings) -> dict[str, Any]:
    """Alpha of all readers and kappa of each pair, each with an interval by patient.

    The unit is a text, not a system. Where systems wrote the same text for a report, the page asks
    for one rating and writes it for each of them. Counted for each, it would weigh too much.
    """
    units = _units(study, readings)
    if len(readings) < 2 or not units:
        return {"units": len(units), "alpha": {}, "pairs": []}
    names = sorted({study.patients[report] for report, _ in units})
    place = {name: number for number, name in enumerate(names)}
    patients = np.array([place[study.patients[report]] for report, _ in units])
    counts, measures = _measures(readings, units, patients)
    draws = resampled(measures, settings.resamples, settings.seed)

    def found(name: str) -> dict[str, Any]:
        tables, measure = measures[name]
        value = float(measure(tables.sum(axis=0)))
        return asdict(agreement(counts[name], value, draws[name], settings.confidence))

    return {
        "units": len(units),
        "alpha": {name: found(name) for name in (*SCALES, *ERRORS)},
        "pairs": [
            {
                "readers": [readings[one].reader, readings[other].reader],
                **{
                    scale: {each: found(f"{scale} {each} {one} {other}") for each in WEIGHTS}
                    for scale in SCALES
                },
            }
            for one, other in combinations(range(len(readings)), 2)
        ],
    }


Units = dict[tuple[str, int], dict[int, Rating]]  # by report and number: {reader: rating}


def _units(study: Study, readings: Sequence[Reading]) -> Units:
    """The texts that were rated: systems of a report with the same text, and the same ratings of
    it by every reader, are one."""
    given: dict[tuple[str, str], dict[int, Rating]] = {}
    for number, reading in enumerate(readings):
        for rating in reading.ratings:
            given.setdefault((rating.report, rating.system), {})[number] = rating
    seen: dict[Any, int] = {}
    units: Units = {}
    for (report, system), ratings in given.items():
        said = tuple(
            (number, each.acceptability, each.harm, each.errors)
            for number, each in sorted(ratings.items(), key=lambda item: item[0])
        )
        key = (report, study.texts[report][system], said)
        units.setdefault((report, seen.setdefault(key, len(seen))), ratings)
    return units


def _measures(
    readings: Sequence[Reading], units: Units, patients: np.ndarray
) -> tuple[dict[str, int], dict[str, Measure]]:
    """Alpha of each scale and kind of error, and kappa of each pair of readers.

    They are {name: units that it is from} and {name: tables of the patients, and what is measured
    of their sum}.
    """

    def values(answer: Callable[[Rating], int]) -> np.ndarray:
        rows = [
            [answer(given[number]) if number in given else MISSING for given in units.values()]
            for number in range(len(readings))
        ]
        return np.array(rows, dtype=np.int64)

    counts: dict[str, int] = {}
    measures: dict[str, Measure] = {}

    def add(tables: np.ndarray, **named: Callable[[np.ndarray], np.ndarray]) -> None:
        sums, n = by_patient(tables, patients), int(tables.any(axis=(-2, -1)).sum())
        for name, measure in named.items():
            counts[name], measures[name] = n, (sums, measure)

    scales = {
        "acceptability": values(lambda rating: rating.acceptability - ACCEPTABILITY[0]),
        "harm": values(lambda rating: rating.harm),
    }
    for scale, found in scales.items():
        add(coincidences(found, SCALES[scale]), **{scale: partial(alpha, level=ORDINAL)})
    for kind in ERRORS:
        named = values(partial(_names, kind))
        add(coincidences(named, 2), **{kind: partial(alpha, level=NOMINAL)})
    for one, other in combinations(range(len(readings)), 2):
        for scale, found in scales.items():
            kappas = {
                f"{scale} {each} {one} {other}": partial(
                    weighted_kappa, disagreement=disagreement(each, SCALES[scale])
                )
                for each in WEIGHTS
            }
            add(crossed(found[one], found[other], SCALES[scale]), **kappas)
    return counts, measures


def _names(kind: str, rating: Rating) -> int:
    return int(kind in rating.errors)
