"""Each system against the original in the eyes of the readers: pairs of ratings of one report.

A judgement is a question that a rating answers with yes or no. A pair is one reader's answers on
the original's text and on the system's text of the same report.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from radquant import statistics
from radquant.reporting.readers_files import HARM, REFERENCE, Rating, Reading

ACCEPTABLE = 4  # the least acceptability that counts as acceptable, of 5
HARMFUL = "moderate"  # the least harm that counts as harmful


@dataclass(frozen=True)
class Judgement:
    question: str
    good: bool  # whether yes is good
    answer: Callable[[Rating], bool]


JUDGEMENTS = {
    "acceptable": Judgement(
        f"acceptability of {ACCEPTABLE} or 5",
        True,
        lambda rating: rating.acceptability >= ACCEPTABLE,
    ),
    "harmful": Judgement(
        "harm moderate or severe", False, lambda rating: rating.harm >= HARM.index(HARMFUL)
    ),
}


@dataclass(frozen=True)
class Settings:
    resamples: int
    confidence: float
    seed: int


def compare_all(
    readings: Sequence[Reading],
    original: str,
    systems: Sequence[str],
    patients: Mapping[str, str],
    settings: Settings,
) -> dict[str, Any]:
    """Return {judgement: {system: comparison}} with the original.

    systems: the quantized precisions, over which p is adjusted by Holm's method, and the
    radiologist's text where that is rated. It is no precision and takes no part in that. patients:
    {report: patient} of the run's reports.
    """
    found: dict[str, Any] = {}
    for name, judgement in JUDGEMENTS.items():
        answers = [_answers(reading, judgement) for reading in readings]
        rows = {
            system: _compare(readings, answers, original, system, patients, settings)
            for system in systems
        }
        family = [row for system, row in rows.items() if system != REFERENCE]
        _adjust([row["together"] for row in family])
        _adjust([row["majority"] for row in family])
        for reading in readings:
            _adjust([row["readers"][reading.reader] for row in family])
        found[name] = {"question": judgement.question, "good": judgement.good, "systems": rows}
    return found


Answers = dict[tuple[str, str], bool]  # by report and system


def _answers(reading: Reading, judgement: Judgement) -> Answers:
    return {(each.report, each.system): judgement.answer(each) for each in reading.ratings}


def _compare(
    readings: Sequence[Reading],
    answers: Sequence[Answers],
    original: str,
    system: str,
    patients: Mapping[str, str],
    settings: Settings,
) -> dict[str, Any]:
    pairs = [_pairs(each, original, system) for each in answers]
    return {
        "readers": {
            reading.reader: mcnemar(list(each.values()))
            for reading, each in zip(readings, pairs, strict=True)
        },
        "majority": _majority(pairs) if len(pairs) > 1 else None,
        "together": _together(pairs, patients, settings),
    }


Pairs = dict[str, tuple[bool, bool]]  # by report: of the original, of the system


def _pairs(answers: Answers, original: str, system: str) -> Pairs:
    return {
        report: (answers[report, original], yes)
        for (report, name), yes in answers.items()
        if name == system and (report, original) in answers
    }


def mcnemar(pairs: Sequence[tuple[bool, bool]]) -> dict[str, Any]:
    """Return McNemar's exact test of paired answers (McNemar 1947, doi:10.1007/BF02295996).

    Of the pairs that differ, either way is equally likely: p is that of a two-sided sign test.
    It takes the pairs as independent. Without any pair p is None.
    """
    first = sum(one and not other for one, other in pairs)
    second = sum(other and not one for one, other in pairs)
    p = min(1.0, 2 * float(special.bdtr(min(first, second), first + second, 0.5)))
    return {
        "n": len(pairs),
        "original": _share([one for one, _ in pairs]),
        "system": _share([other for _, other in pairs]),
        "original_only": first,
        "system_only": second,
        "p": float(p) if pairs else None,
    }


def _share(answers: Sequence[bool]) -> float | None:
    return sum(answers) / len(answers) if answers else None


def _majority(pairs: Sequence[Pairs]) -> dict[str, Any]:
    """McNemar's test of what more than half of the readers of a pair say; a tie is left out."""
    reports = dict.fromkeys(report for each in pairs for report in each)
    kept = []
    for report in reports:
        votes = [each[report] for each in pairs if report in each]
        one, other = (_more([vote[side] for vote in votes]) for side in (0, 1))
        if one is not None and other is not None:
            kept.append((one, other))
    return mcnemar(kept) | {"ties": len(reports) - len(kept)}


def _more(votes: Sequence[bool]) -> bool | None:
    twice = 2 * sum(votes)
    return None if twice == len(votes) else twice > len(votes)


def _together(
    pairs: Sequence[Pairs], patients: Mapping[str, str], settings: Settings
) -> dict[str, Any]:
    """The difference in the share of yes, over all readers: a bootstrap and sign flips by patient.

    A report's difference is the mean of those of its readers. The readers are taken as they are:
    what is found holds for them, and other readers are not drawn from.
    """
    differences: dict[str, list[int]] = {}
    for each in pairs:
        for report, (one, other) in each.items():
            differences.setdefault(report, []).append(int(other) - int(one))
    d = np.array([float(np.mean(values)) for values in differences.values()])
    row: dict[str, Any] = {
        "reports": len(d),
        "pairs": sum(map(len, differences.values())),
        "patients": len({patients[report] for report in differences}),
        "changed": int(np.count_nonzero(d)),
        "difference": float(d.mean()) if len(d) else None,
        "interval": None,
        "p": None,
    }
    if len(d) < 2:
        return row
    labels = [patients[report] for report in differences]
    found = statistics.compare(
        *(d, settings.resamples, settings.confidence, settings.seed, labels), bounds=(-1, 1)
    )
    ends = found.interval
    return row | {
        "p": found.p,
        "interval": {"low": ends.low, "high": ends.high, "method": ends.method},
    }


def _adjust(rows: Sequence[dict[str, Any] | None]) -> None:
    """Add Holm's p over the rows to each that has a p."""
    tested = {str(n): row["p"] for n, row in enumerate(rows) if row and row["p"] is not None}
    adjusted = statistics.holm(tested)
    for n, row in enumerate(rows):
        if row is not None:
            row["p_holm"] = adjusted.get(str(n))
