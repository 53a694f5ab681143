"""The verdict: its first line, and at most three sentences: what quantizing costs, what it changes
in the reports, what it saves.

No sentence has more than 25 words, and no number is without its unit. What a sentence says of a
loss is read off the interval that the report shows, so that it cannot contradict it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from radquant.reporting.fitness import BROKEN, HANDED_IN, unread
from radquant.reporting.formatting import UNIT, points, size
from radquant.reporting.judgement import (
    BETTER,
    NO_WORSE,
    UNFIT,
    WORSE,
    alone_within,
)
from radquant.reporting.saving import saving
from radquant.settings.run import BASELINES, ORIGINAL

Quality = Mapping[str, Any]
OF_RADIOLOGISTS = "the radiologists' texts"
NOT_CALLED = "No precision is called better or as good."


def verdict(quality: Quality, performance: Mapping[str, Any]) -> list[str]:
    """Return the first line and the sentences under it."""
    if len(quality["precisions"]) == 1:
        return _original_alone(quality, performance)
    found = parts(quality, performance)
    cost = found["broken"] or found["disagreement"] or found["scores"]
    return [text for text in (found["answer"], cost, found["changes"], found["saving"]) if text]


def parts(quality: Quality, performance: Mapping[str, Any]) -> dict[str, str]:
    """Return what is told of a run with several precisions, each part on its own; "" of nothing.

    Of *broken*, *disagreement* and *scores* the verdict tells the first that there is.
    """
    rows = _rows(quality)
    name = best(quality, list(rows))
    return {
        "answer": _first_line(quality),
        "broken": _broken(quality),
        "disagreement": _disagreement(quality, name, rows[name]),
        "scores": _scores(quality, name),
        "changes": _changes(quality),
        "saving": saving(
            quality["precisions"],
            performance,
            lambda names: best(quality, names),
            lambda name: _apart(quality, name),
        ),
    }


def best(quality: Quality, names: Sequence[str]) -> str:
    """Return the one of `names` to speak of: what is settled, then the likeliest references.

    First comes what is no worse, then what is not settled, unfit, and worse. *Better* without a
    likelihood that agrees is as good as not settled. F1 itself is too noisy to choose by: among
    precisions that it cannot tell apart, the highest would be the luckiest.
    """
    rows, likelihood = _rows(quality), quality["likelihood_differences"]
    ranks = {NO_WORSE: 0, UNFIT: 2, WORSE: 3}

    def place(name: str) -> tuple[int, float]:
        state = rows[name]["state"]
        sure = state == BETTER and not less_likely(quality, name)
        return (0 if sure else ranks.get(state, 1), likelihood[name]["mean"])

    return min(names, key=place)


def less_likely(quality: Quality, name: str) -> bool:
    """Whether it is shown that a precision finds the references less likely."""
    found = quality["likelihood_differences"][name]
    shown = found["p_holm"] < 1 - quality["settings"]["confidence"]
    return bool(shown and found["interval"]["low"] > 0)


def _apart(quality: Quality, name: str) -> str:
    """What to say of a precision that is worse or unfit, where the verdict spoke of another."""
    rows = _rows(quality)
    state = rows[name]["state"]
    if state not in (WORSE, UNFIT) or name == best(quality, list(rows)):
        return name
    return f"{name}, which is {state},"


def _rows(quality: Quality) -> Mapping[str, Any]:
    rows: Mapping[str, Any] = quality["differences"][quality["settings"]["primary"]]
    return rows


def _first_line(quality: Quality) -> str:
    """Return the word and its measure: what a head of department takes home."""
    rows = _rows(quality)
    if not quality["fitness"]["fit"]:
        return _unfit(quality["fitness"]["reasons"])
    name = best(quality, list(rows))
    row = rows[name]
    low, high = row["interval"]["low"], row["interval"]["high"]
    if row["state"] == UNFIT:
        return _unfit(
            quality["fitness"]["precisions"][name], f"So {name} is not called better or as good."
        )
    if row["state"] == WORSE:
        even = "even " if len(rows) > 1 and all(x["state"] == WORSE for x in rows.values()) else ""
        return (
            f"Quantizing costs quality: {even}{name} is worse than the original, by "
            f"{_between(-high, -low)}."
        )
    if row["state"] == BETTER:
        return f"{name} is better than the original, by {_between(low, high)}."
    if row["state"] == NO_WORSE:
        return f"{name} is no worse than the margin of {points(row['margin'])}: {_left(low, high)}."
    return _not_settled(quality, name, row)


def _unfit(reasons: Sequence[Mapping[str, Any]], follows: str = NOT_CALLED) -> str:
    return f"Unfit to answer: {reasons[0]['sentence']} {follows}"


def _between(low: float, high: float) -> str:
    if points(low) == points(high):
        return points(low)
    return f"{points(low).removesuffix(UNIT)} to {points(high)}"


def _left(low: float, high: float) -> str:
    """What the interval of one that is no worse than the margin leaves of a loss."""
    if low >= 0:
        return "no loss is left in its interval"
    if high < 0:
        return f"its loss is {_between(-high, -low)}"
    return f"it loses {points(-low, up=True)} at the most"


def _not_settled(quality: Quality, name: str, row: Mapping[str, Any]) -> str:
    """Say what is open. A loss is called possible only where the interval holds it."""
    low = row["interval"]["low"]
    needed = _more_reports(row["reports_to_settle"], quality["reports"])
    if low <= -row["margin"]:
        margin = points(row["margin"])
        tell = (
            f"; {needed} would tell if it exceeds {margin}"
            if needed
            else f", and the margin is {margin}"
        )
        return f"Not settled: {name} may lose up to {points(-low, up=True)}{tell}."
    if alone_within(row, quality["settings"]["confidence"]):
        others = len(_rows(quality)) - 1
        beside = "another precision" if others == 1 else f"{others} other precisions"
        return (
            f"Not settled: alone, {name} would pass as no worse, but beside {beside} the evidence "
            "is too weak."
        )
    what = "any loss" if low >= 0 else f"a loss above {points(-low, up=True)}"
    but = (
        f"ruling out rare large losses takes {needed}"
        if needed
        else "the stricter test, which allows for rare large losses, does not"
    )
    return f"Not settled: {name}'s interval excludes {what}, but {but}."


def _more_reports(needed: Mapping[str, int] | None, reports: int) -> str:
    """Write how many reports would settle it; "" where no more than there are."""
    if needed is None or needed["high"] <= reports:
        return ""
    low, high = needed["low"], needed["high"]
    if low <= reports:
        return f"up to {high:,} reports"
    return f"{low:,} reports" if low == high else f"{low:,} to {high:,} reports"


def _broken(quality: Quality) -> str:
    """Name a precision whose checkpoint is broken, unless the first line does."""
    precisions = quality["fitness"]["precisions"]
    found = {
        name: each["sentence"]
        for name, reasons in precisions.items()
        for each in reasons
        if each["kind"] == BROKEN
    }
    told = best(quality, list(_rows(quality))) if quality["fitness"]["fit"] else None
    left = [name for name in found if name != told or _rows(quality)[name]["state"] != UNFIT]
    if len(left) > 1:
        return (
            f"{len(left)} precisions are broken, {left[0]} among them: their weights cannot have "
            "been made of the original's."
        )
    return f"{found[left[0]][0].upper()}{found[left[0]][1:]}" if left else ""


def _scores(quality: Quality, name: str) -> str:
    """Return the scores of the precision that is spoken of; of an unfit run, a loss alone."""
    rows = _rows(quality)
    if not quality["fitness"]["fit"]:
        return _of_unfit(rows)
    return (
        f"The original scores {points(rows[name]['original'])}, {name} "
        f"{points(rows[name]['system'])}; full agreement with the radiologists would be 1 F1 "
        "point."
    )


def _of_unfit(rows: Mapping[str, Any]) -> str:
    """What holds even in an unfit run: a loss that is shown."""
    worse = sum(row["state"] == WORSE for row in rows.values())
    if not worse:
        return ""
    if len(rows) == 1:
        return f"{next(iter(rows))} is worse than the original all the same."
    verb = "is" if worse == 1 else "are"
    return f"{worse} of {len(rows)} precisions {verb} worse than the original all the same."


def _disagreement(quality: Quality, name: str, row: Mapping[str, Any]) -> str:
    """Say what it means that likelihood and F1 point in different directions; "" where not."""
    found = quality["likelihood_differences"][name]
    shown = found["p_holm"] < 1 - quality["settings"]["confidence"]
    high = found["interval"]["high"]
    fewer = quality["reports"] != quality["references"]
    texts = f"the radiologists' {quality['references']:,} reports" if fewer else OF_RADIOLOGISTS
    times = f"(perplexity {_times(found['perplexity_ratio'])} the original's)"
    if less_likely(quality, name):
        if not quality["changes"][name]["changed"]["reports"]:
            return f"{name} finds {texts} less likely {times}, which changed none of its outputs."
        if row["state"] == BETTER or round(row["mean"], 3) > 0:
            return (
                f"{name}'s higher F1 is no proof of better reports: it finds {texts} less likely "
                f"{times}."
            )
        if row["state"] == UNFIT:
            return f"{name} finds {texts} less likely {times}, whatever the annotator reads."
        if row["state"] != WORSE:
            within = row["interval"]["high"] < 0
            loss = "a loss within the margin" if within else "no loss beyond doubt"
            return (
                f"F1 shows {loss}, but {name} finds {texts} less likely {times}: F1 may miss "
                "something."
            )
    if shown and high < 0 and row["interval"]["high"] < 0 and row["state"] != UNFIT:
        return (
            f"{name} finds {texts} likelier {times} and yet scores lower: what it writes is what "
            "counts."
        )
    return ""


def _times(ratio: float) -> str:
    """Write a ratio that is not 1 so that it does not read as 1."""
    if ratio >= 1000:
        return "over 1,000 times"
    if ratio < 0.01:
        return "less than 0.01 times"
    digits = next((few for few in range(2, 7) if float(f"{ratio:.{few}f}") != 1), 6)
    return f"{ratio:.{digits}f} times"


def _changes(quality: Quality) -> str:
    """Tell in how many reports the precision to speak of loses or adds a finding."""
    name = best(quality, list(_rows(quality)))
    row, reports = quality["changes"][name], quality["reports"]
    if not row["changed"]["reports"]:
        return f"{name} wrote all {reports:,} reports exactly as the original did."
    if findings_unread(quality, name):
        return (
            "Which findings were lost or added cannot be told: the annotator does not read all of "
            "these texts."
        )
    losing, adding = row["losing"], row["adding"]
    added = f"adds some in {adding['reports']:,} of {reports:,} reports"
    if not losing["of"]:
        return f"The original states no definite finding that could be lost; {name} {added}."
    return (
        f"{name} loses or denies definite findings in "
        f"{_out_of(losing['reports'], losing['of'])} where the original states any, and {added}."
    )


def findings_unread(quality: Quality, name: str) -> bool:
    """Whether the annotator cannot tell which findings a precision lost."""
    found = quality["fitness"]
    own = [each for each in found["precisions"][name] if each["kind"] == "language"]
    return unread([*found["reasons"], *own])


def _out_of(hits: int, total: int) -> str:
    """'both of the 2 reports': a share whose denominator cannot be overlooked."""
    if total == 1:
        return "the only report" if hits else "0 of 1 report"
    if not hits:
        return f"none of the {total:,} reports"
    if hits == total:
        return f"both of the {total} reports" if total == 2 else f"all of the {total:,} reports"
    return f"{hits:,} of the {total:,} reports"


def _original_alone(quality: Quality, performance: Mapping[str, Any]) -> list[str]:
    primary = quality["settings"]["primary"]
    row, base = quality["systems"][ORIGINAL], performance["systems"][ORIGINAL]
    ends = row[f"{primary}_interval"]
    reasons = quality["fitness"]["reasons"]
    return [
        _unfit(reasons, "Only the original model was run.")
        if reasons
        else "Only the original model was run, so nothing is said about quantizing it.",
        f"The original scores {points(row[primary])} ({_between(ends['low'], ends['high'])}).",
        _of_baselines(quality["fitness"]["facts"]["scores"]),
        f"It takes {size(base['disk_bytes'])} on disk, {size(base['weight_bytes'])} for its "
        f"weights in memory and {size(base['peak_process_bytes'])} for the whole process.",
    ]


def _of_baselines(scores: Mapping[str, float]) -> str:
    """What is scored without a model."""
    first, *others = (name for name in BASELINES if name in scores)
    told = f"{HANDED_IN[first]} scores {points(scores[first])}"
    told += "".join(f", {HANDED_IN[name]} {points(scores[name])}" for name in others)
    return f"{told[0].upper()}{told[1:]}."
