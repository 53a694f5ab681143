"""The report's first section: the verdict, and each precision's word with its measure beside it."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from radquant.reporting.differences_section import margin_sentence, times
from radquant.reporting.formatting import (
    DASH,
    WIDTH,
    bullets,
    change,
    coverage,
    escape,
    interval,
    table,
)
from radquant.reporting.judgement import UNFIT
from radquant.reporting.patients import patients_sentence
from radquant.reporting.verdict import findings_unread
from radquant.settings.run import ORIGINAL

Summary = Mapping[str, Any]
VERDICT = "Verdict"


def verdict_section(summary: Summary, figure: str = "") -> str:
    """Return the section; `figure` is Markdown that stands behind the facts."""
    quality = summary["quality"]
    answer, *sentences = map(escape, summary["verdict"])
    parts = [f"## {VERDICT}", f"**{answer}**", _further_reasons(quality)]
    if len(quality["precisions"]) > 1:
        told = bullets(*map(_fact, summary["facts"]))
        parts += [told, figure, _words(quality), bullets(*_notes(quality))]
    else:
        parts += [*sentences, figure]
    return "\n\n".join(part for part in parts if part)


def _fact(fact: Summary) -> str:
    """'✓ Can this run answer? **Yes, fit to answer.** …'."""
    says = " ".join(map(escape, fact["says"]))
    return f"{fact['mark']} {fact['question']} **{escape(fact['word'])}.** {says}".rstrip()


def closing(summary: Summary, *files: Path) -> str:
    """Return what a terminal shows of a finished run: the verdict, its table, and the files."""
    quality = summary["quality"]
    parts = [textwrap.fill(sentence, WIDTH) for sentence in summary["verdict"]]
    if len(quality["precisions"]) > 1:
        parts.append(_words(quality))
    return "\n\n".join([*parts, "The report: " + " and ".join(map(str, files))])


def _further_reasons(quality: Summary) -> str:
    """What else makes the run unfit, the first being in the first line."""
    reasons = quality["fitness"]["reasons"][1:]
    if not reasons:
        return ""
    more = "One more reason" if len(reasons) == 1 else f"{len(reasons)} more reasons"
    lead = f"The run as a whole is unfit, not one precision. {more}:"
    # The list of facts follows. With the same mark, Markdown would take both for one list.
    return f"{lead}\n\n{bullets(*(escape(each['sentence']) for each in reasons), mark='*')}"


def _words(quality: Summary) -> str:
    header = [
        *("precision", "verdict", "difference in F1 points", coverage(quality)),
        *("lost or denied findings", "perplexity, ratio"),
    ]
    rows = []
    for name, row in quality["differences"][quality["settings"]["primary"]].items():
        losing = quality["changes"][name]["losing"]
        likelihood = quality["likelihood_differences"][name]
        rows.append(
            [
                escape(name),
                row["state"],
                change(row["mean"]),
                interval(row["interval"]),
                DASH
                if findings_unread(quality, name)
                else f"{losing['reports']:,} of {losing['of']:,}",
                times(likelihood["perplexity_ratio"]),
            ]
        )
    return table(header, rows, left=2)


def _notes(quality: Summary) -> list[str]:
    """What the table needs to be read, and why a precision is unfit where the run is not."""
    return [
        "F1 points go from 0 to 1, full agreement with the radiologists; a difference is to the "
        f"{ORIGINAL}. Findings lost or denied: in how many of the reports in which the original "
        "definitely states one.",
        margin_sentence(quality),
        patients_sentence(quality["patients"]),
        *(_own_reasons(quality) if quality["fitness"]["fit"] else []),
    ]


def _own_reasons(quality: Summary) -> list[str]:
    """Why each precision is unfit, or what is wrong with one that is worse besides."""
    rows = quality["differences"][quality["settings"]["primary"]]
    notes = []
    for name, reasons in quality["fitness"]["precisions"].items():
        lead = "unfit" if rows[name]["state"] == UNFIT else "besides"
        said = "; ".join(each["sentence"].rstrip(".") for each in reasons)
        notes += [escape(f"{name}, {lead}: {said}.")] if reasons else []
    return notes
