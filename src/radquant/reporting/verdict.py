"""The verdict: four sentences made from the statistics, and the word for one comparison."""

from collections.abc import Mapping, Sequence
from typing import Any

from radquant.reporting.collect import ORIGINAL
from radquant.reporting.formatting import (
    change,
    coverage,
    interval,
    number,
    perplexity,
    probability,
    share,
    size,
)
from radquant.reporting.saving import saving

# What a comparison with the original says, at the confidence level and after Holm's correction.
WORSE, BETTER = "worse", "better"
WORSE_WITHIN, BETTER_WITHIN = "worse, within the margin", "better, within the margin"
EQUIVALENT, UNKNOWN = "equivalent", "cannot tell"


def state(row: Mapping[str, Any], alpha: float, less_is_better: bool = False) -> str:
    """Return the word for a comparison: is there a difference, and is it within the margin?"""
    within = row["equivalence_p_holm"] is not None and row["equivalence_p_holm"] < alpha
    if row["p_holm"] >= alpha:
        return EQUIVALENT if within else UNKNOWN
    if (row["mean"] < 0) != less_is_better:
        return WORSE_WITHIN if within else WORSE
    return BETTER_WITHIN if within else BETTER


def verdict(
    quality: Mapping[str, Any], performance: Mapping[str, Any], text_input: bool = True
) -> list[str]:
    """Return four sentences: the answer, what quantizing costs in F1, what changes in the reports,
    and what it saves. text_input: whether the model is given text, and not an image alone."""
    if len(quality["precisions"]) == 1:
        return _original_alone(quality, performance, text_input)
    return [
        _answer(quality),
        _clinical(quality),
        _changes(quality),
        saving(quality["precisions"], performance, lambda names: best(quality, names)),
    ]


def _answer(quality: Mapping[str, Any]) -> str:
    """Return what a head of department takes home, about the precision to speak of."""
    settings = quality["settings"]
    rows = quality["differences"][settings["primary"]]
    name = best(quality, list(rows))
    row, margin = rows[name], number(settings["margin"])
    if row["state"] == WORSE:
        if len(rows) == 1:
            return f"Quantizing costs quality: {name} writes worse reports than the original."
        return f"Quantizing costs quality: even {name} writes worse reports than the original."
    judged = f"{name} writes reports that agree with the radiologists'"
    words = {
        EQUIVALENT: f"as well as the original's do, within ±{margin}",
        WORSE_WITHIN: f"a little less than the original's do, by under {margin}",
        BETTER: "better than the original's do",
        BETTER_WITHIN: f"a little better than the original's do, by under {margin}",
    }
    if row["state"] in words:
        return f"{judged} {words[row['state']]}."
    return (
        f"Not settled: {row['n']:,} reports are too few to tell whether {name} writes worse "
        f"reports than the original{_still_possible(quality, row)}."
    )


def _still_possible(quality: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """Say which loss is not excluded, and how many reports would settle it."""
    if row["detectable"] is None:
        return ""
    loss = max(0.0, -row["interval"]["low"])
    original = row["original"]
    of_score = f", {share(loss / original)} of the original's score," if original else ""
    return (
        f": a loss of up to {number(loss)}{of_score} cannot be excluded, and about "
        f"{row['pairs_to_settle']:,} reports would settle whether there is one of "
        f"{number(quality['settings']['margin'])}"
    )


def best(quality: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return the one of `names` to speak of: not shown to be worse, and likeliest references.

    F1 itself is too noisy to choose by: among precisions that it cannot tell apart, the highest
    would be the luckiest.
    """
    rows = quality["differences"][quality["settings"]["primary"]]
    likelihood = quality["likelihood_differences"]
    return min(names, key=lambda name: (rows[name]["state"] == WORSE, likelihood[name]["mean"]))


def _clinical(quality: Mapping[str, Any]) -> str:
    settings = quality["settings"]
    rows = quality["differences"][settings["primary"]]
    groups: dict[str, list[str]] = {}
    for name, row in rows.items():
        groups.setdefault(row["state"], []).append(name)
    margin = f"±{number(settings['margin'])}"
    clauses = []
    for names, words in (
        (groups.get(WORSE, []), "{} clearly worse"),
        (groups.get(BETTER, []), "{} clearly better"),
        (groups.get(WORSE_WITHIN, []), f"{{}} worse, but by less than {margin}"),
        (groups.get(BETTER_WITHIN, []), f"{{}} better, but by less than {margin}"),
        (groups.get(EQUIVALENT, []), f"{{}} equivalent within {margin}"),
    ):
        if names:
            subject = f"{_list(names)} {'is' if len(names) == 1 else 'are'}"
            clauses.append(f"{words.format(subject)} ({_estimates(quality, rows, names)})")
    if unknown := groups.get(UNKNOWN, []):
        clauses.append(_cannot_tell(quality, rows, unknown))
    original = quality["systems"][ORIGINAL][settings["primary"]]
    return (
        f"Against the original model's combined {quality['measure']} of {number(original)} on the "
        f"same {quality['reports']} reports, {_join(clauses)}{_likelihood(quality, rows)}."
    )


def _estimates(quality: Mapping[str, Any], rows: Mapping[str, Any], names: Sequence[str]) -> str:
    if len(names) == 1:
        row = rows[names[0]]
        if row["interval"]["method"] == "constant" and row["mean"] == 0:
            return "no difference in any report"
        return f"{change(row['mean'])}, {coverage(quality)} {interval(row['interval'])}"
    return ", ".join(f"{name} {change(rows[name]['mean'])}" for name in names)


def _cannot_tell(quality: Mapping[str, Any], rows: Mapping[str, Any], names: Sequence[str]) -> str:
    top = best(quality, names)
    row = rows[top]
    sensitivity = (
        f"the smallest detectable difference is {number(row['detectable'])}{_relative(row)}"
        if row["detectable"] is not None
        else "all differences are equal"
    )
    lead = f"{top} " if len(names) > 1 else ""
    return (
        f"we cannot tell at n = {row['n']} whether {_list(names)} "
        f"{'differs' if len(names) == 1 else 'differ'} from it ({lead}{change(row['mean'])}, "
        f"{coverage(quality)} {interval(row['interval'])}, Holm-corrected p "
        f"{probability(row['p_holm'])}; {sensitivity})"
    )


def _relative(row: Mapping[str, Any]) -> str:
    if row["detectable_share"] is None:
        return ""
    return f", which is {share(row['detectable_share'])} of the original's score"


def _likelihood(quality: Mapping[str, Any], rows: Mapping[str, Any]) -> str:
    """Tell of a loss that the references' likelihood shows where F1 shows none."""
    alpha = 1 - quality["settings"]["confidence"]
    silent = [
        name
        for name, row in quality["likelihood_differences"].items()
        if row["p_holm"] < alpha and row["mean"] > 0 and not rows[name]["state"].startswith(WORSE)
    ]
    if not silent:
        return ""
    systems = quality["systems"]
    listed = ", ".join(f"{name} {perplexity(systems[name]['perplexity'])}" for name in silent)
    before = perplexity(systems[ORIGINAL]["perplexity"])
    count = "" if quality["references"] == quality["reports"] else f"{quality['references']:,} "
    return (
        f", though a more sensitive measure, how well the model predicts the {count}reference "
        f"reports, did get worse (perplexity: original {before}, {listed})"
    )


def _changes(quality: Mapping[str, Any]) -> str:
    """Tell in how many reports the precision to speak of says something clinically different."""
    rows = quality["differences"][quality["settings"]["primary"]]
    name = best(quality, list(rows))
    row, reports = quality["changes"][name], quality["reports"]
    if not row["changed"]["reports"]:
        return f"{name} wrote all {reports:,} reports exactly as the original did."
    return (
        f"Compared with what the original wrote of the same reports, {name} leaves out or denies a "
        f"definite finding in {_of(row['losing'], reports)} and states one that the original does "
        f"not in {_of(row['adding'], reports)}; either may be right, which the score against the "
        "radiologist's text judges."
    )


def _of(record: Mapping[str, Any], reports: int) -> str:
    ends = record["interval"]
    return (
        f"{record['reports']:,} of {reports:,} ({share(record['share'])}; "
        f"{share(ends['low'])} to {share(ends['high'])})"
    )


def _original_alone(
    quality: Mapping[str, Any], performance: Mapping[str, Any], text_input: bool
) -> list[str]:
    primary = quality["settings"]["primary"]
    systems, base = quality["systems"], performance["systems"][ORIGINAL]
    row = systems[ORIGINAL]
    copied = f"{number(systems['copy-input'][primary])} for copying the input and "
    return [
        "Only the original model was run, so nothing is said about quantizing it.",
        f"Its combined {quality['measure']} on n = {quality['reports']} reports is "
        f"{number(row[primary])} ({coverage(quality)} "
        f"{interval(row[f'{primary}_interval'], signed=False)}), against "
        f"{copied if text_input else ''}"
        f"{number(systems['constant'][primary])} for one constant text.",
        f"It takes {size(base['disk_bytes'])} on disk, {size(base['weight_bytes'])} for its "
        f"weights in memory and {size(base['peak_process_bytes'])} for the whole process.",
    ]


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _join(clauses: Sequence[str]) -> str:
    return "; ".join(clauses[:-1]) + ("; and " if len(clauses) > 1 else "") + clauses[-1]
