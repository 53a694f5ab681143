"""The verdict as five facts, each with a mark, a word and the numbers behind it.

They are those of the precision that the verdict speaks of. A mark never says more than its word. Of
a run that is unfit, nothing is marked as good but what is saved.
"""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from radquant.reporting.comparisons import MOST_NATS
from radquant.reporting.differences_section import times
from radquant.reporting.fitness import LOST
from radquant.reporting.formatting import (
    UNIT,
    change,
    counted,
    coverage,
    interval,
    listed,
    perplexity,
    points,
    share,
)
from radquant.reporting.judgement import BETTER, NO_WORSE, NOT_SETTLED, UNFIT, WORSE
from radquant.reporting.saving import seconds_per_report, told_of, why_no_pace
from radquant.reporting.verdict import best, findings_unread, less_likely, parts
from radquant.settings.run import ORIGINAL

GOOD, BAD, CAUTION, OPEN = "✓", "✗", "!", "?"
MARKS = {GOOD: "good", BAD: "bad", CAUTION: "caution", OPEN: "open"}
# The mark of each word of a comparison.
OF_WORDS = {WORSE: BAD, NO_WORSE: GOOD, BETTER: GOOD, NOT_SETTLED: OPEN, UNFIT: OPEN}
ALIKE = 0.005  # a saving below it is told as none
FITNESS, DIFFERENCE, FINDINGS, LIKELIHOOD, SAVING = (
    "Can this run answer?",
    "How large is the difference from the original?",
    "Are findings lost or denied?",
    "Are the radiologists' texts as likely as before?",
    "What does quantizing save?",
)

Quality = Mapping[str, Any]
Fact = dict[str, Any]


def facts(quality: Quality, performance: Mapping[str, Any]) -> list[Fact]:
    """Return the five facts, each {question, mark, word, says: sentences}; none without precisions.

    `mark` is a key of MARKS. The sentences of the verdict are among `says`, but for its first line.
    """
    if len(quality["precisions"]) == 1:
        return []
    told = parts(quality, performance)
    name = best(quality, list(_rows(quality)))
    found = [
        _fitness(quality, name, told),
        _difference(quality, name, told),
        _findings(quality, name, told),
        _likelihood(quality, name, told),
    ]
    fit = quality["fitness"]["fit"]
    return [
        *(each if fit else _unmarked(each) for each in found),
        _saving(quality, performance, told),
    ]


def _fact(question: str, mark: str, word: str, *says: str) -> Fact:
    return {"question": question, "mark": mark, "word": word, "says": [*filter(None, says)]}


def _unmarked(fact: Fact) -> Fact:
    return {**fact, "mark": OPEN} if fact["mark"] == GOOD else fact


def _rows(quality: Quality) -> Mapping[str, Any]:
    rows: Mapping[str, Any] = quality["differences"][quality["settings"]["primary"]]
    return rows


def _fitness(quality: Quality, name: str, told: Mapping[str, str]) -> Fact:
    found, rows = quality["fitness"], _rows(quality)
    reasons = found["reasons"] or (
        found["precisions"][name] if rows[name]["state"] == UNFIT else []
    )
    if reasons:
        kinds = listed([*dict.fromkeys(str(reason["kind"]) for reason in reasons)])
        why = f"{'Reason' if len(reasons) == 1 else 'Reasons'}: {kinds}."
        return _fact(FITNESS, BAD, "No, unfit to answer", why, told["broken"])
    unfit = [each for each, row in rows.items() if row["state"] == UNFIT]
    alone = (
        f"By {'itself' if len(unfit) == 1 else 'themselves'} unfit: {listed(unfit)}."
        if unfit
        else ""
    )
    return _fact(
        FITNESS,
        CAUTION if unfit else GOOD,
        "Yes, fit to answer",
        f"{quality['reports']:,} reports{_patients(quality)} were compared, and no reason against "
        "it was found.",
        alone,
        told["broken"],
    )


def _patients(quality: Quality) -> str:
    known = quality.get("patients")
    return f" of {counted(known['patients'], 'patient')}" if known else ""


def _difference(quality: Quality, name: str, told: Mapping[str, str]) -> Fact:
    rows = _rows(quality)
    row = rows[name]
    # A higher F1 with a loss of likelihood is no proof of better reports.
    doubtful = row["state"] == BETTER and less_likely(quality, name)
    return _fact(
        DIFFERENCE,
        CAUTION if doubtful else OF_WORDS[row["state"]],
        f"{name}: {row['state']}",
        f"{change(row['mean'])}{UNIT}, {coverage(quality)} {interval(row['interval'])}; the margin "
        f"is {points(row['margin'])}.",
        told["scores"],
        _others(rows, name) if quality["fitness"]["fit"] else "",
    )


def _others(rows: Mapping[str, Any], name: str) -> str:
    """The words of the precisions that the verdict does not speak of."""
    others = {each: row["state"] for each, row in rows.items() if each != name}
    if len(others) < 2:
        return "".join(f"{each} is {state}." for each, state in others.items())
    counts = Counter(others.values())
    told = [f"{count} {'is' if count == 1 else 'are'} {state}" for state, count in counts.items()]
    return f"Of the other {len(others)} precisions {listed(told)}."


def _findings(quality: Quality, name: str, told: Mapping[str, str]) -> Fact:
    row, said = quality["changes"][name], told["changes"]
    losing = row["losing"]
    if not row["changed"]["reports"]:
        return _fact(FINDINGS, GOOD, "No, every output is the same", said)
    if findings_unread(quality, name):
        return _fact(FINDINGS, OPEN, "Not known", said)
    if not losing["of"]:
        return _fact(FINDINGS, OPEN, "None could be", said)
    low, high = losing["interval"]["low"], losing["interval"]["high"]
    much = f"That is {share(losing['share'])} ({coverage(quality)} {share(low)} to {share(high)})."
    if not losing["reports"]:
        return _fact(FINDINGS, GOOD, f"In none of {counted(losing['of'], 'report')}", said, much)
    mark = BAD if losing["share"] > LOST else CAUTION
    word = f"Yes, in {losing['reports']:,} of {counted(losing['of'], 'report')}"
    return _fact(FINDINGS, mark, word, said, much)


def _likelihood(quality: Quality, name: str, told: Mapping[str, str]) -> Fact:
    found = quality["likelihood_differences"][name]
    shown = found["p_holm"] < 1 - quality["settings"]["confidence"]
    mark, word = OPEN, "No difference shown"
    if less_likely(quality, name):
        mark, word = BAD, "No, less likely"
    elif shown and found["interval"]["high"] < 0:
        mark, word = GOOD, "Yes, likelier"
    low, high = (times(math.exp(min(found["interval"][end], MOST_NATS))) for end in ("low", "high"))
    before, own = (quality["systems"][each]["perplexity"] for each in (ORIGINAL, name))
    return _fact(
        LIKELIHOOD,
        mark,
        word,
        f"Perplexity of {name}: {perplexity(own)}, of the original: {perplexity(before)}; ratio "
        f"{times(found['perplexity_ratio'])} ({coverage(quality)} {low} to {high}).",
        told["disagreement"],
    )


def _saving(quality: Quality, performance: Mapping[str, Any], told: Mapping[str, str]) -> Fact:
    """Memory and time, each told whether it was saved."""
    name = told_of(quality["precisions"], performance, lambda names: best(quality, names))
    assert name is not None  # some precision is quantized
    row = performance["systems"][name]
    in_memory = row["weight_bytes"] is not None
    key, what = ("weight_bytes", "memory for weights") if in_memory else ("disk_bytes", "on disk")
    part = row["ratios"][key]
    pace = seconds_per_report(performance, name)
    own, original = pace or (0.0, 0.0)
    saves = part < 1 - ALIKE or own < original
    costs = part > 1 + ALIKE or own > original
    poor = _rows(quality)[name]["state"] in (WORSE, UNFIT)
    mark = BAD if not saves else CAUTION if costs or poor else GOOD
    speed, why = (_pace(own, original), "") if pace else why_no_pace(performance, name)
    return _fact(SAVING, mark, f"{name}: {_much(part, what)}, {speed}", told["saving"], why)


def _much(part: float, what: str) -> str:
    if abs(part - 1) <= ALIKE:
        return f"as much {what}"
    return f"{share(abs(1 - part))} {'less' if part < 1 else 'more'} {what}"


def _pace(own: float, original: float) -> str:
    return "faster" if own < original else "slower"
