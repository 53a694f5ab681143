"""The report's sections on what changed clinically, and the worst examples."""

import json
import textwrap
from collections.abc import Mapping
from typing import Any

from radquant.reporting.against_radiologist import SENSITIVITY, SPECIFICITY
from radquant.reporting.clinical_changes import FLIPS, OTHER
from radquant.reporting.finished_run import Run
from radquant.reporting.formatting import (
    DASH,
    LABELLED,
    WIDTH,
    bullets,
    change,
    coverage,
    escape,
    number,
    plain,
    prose,
    share,
    table,
    wide_table,
)
from radquant.scoring.changes import ATTRIBUTES, FLAGS, KINDS
from radquant.settings.run import ORIGINAL

Summary = Mapping[str, Any]
# Rows of a table of findings; summary.json holds them all.
FINDINGS = 12
FLIPPED, WORST = 8, 2


def changes_section(summary: Summary) -> str:
    quality = summary["quality"]
    parts = ["## What changed in the reports", _lead(quality), _counts_table(quality)]
    parts += [bullets(*_notes(quality)), _pooled(quality), _sensitivity(quality), _flips(quality)]
    return "\n\n".join(part for part in parts if part)


def _lead(quality: Summary) -> str:
    return prose(
        f"Each output against the original model's output of the same report, {quality['reports']} "
        "reports, by the findings that the annotator marks. A cell holds how many changes in how "
        f"many reports, of how many: their share ({coverage(quality)}{_by_patient(quality)}). What "
        "is lost, negated or hedged is counted out of those in which the original definitely "
        "states a finding. In the third row it is those in which the radiologist does. The rest is "
        "out of all. The most harmful kind first:"
    )


def _by_patient(quality: Summary) -> str:
    return ", by patient" if quality.get("patients") else ""


def _counts_table(quality: Summary) -> str:
    changes, outputs = quality["changes"], quality["outputs"]
    rows = [["changed output", *_cells(quality, lambda name: _reports(changes[name]["changed"]))]]
    for key, label in (
        ("losing", "lost or negated"),
        ("losing_of_reference", "… where the radiologist states one"),
    ):
        rows.append([label, *_cells(quality, lambda name, k=key: _reports(changes[name][k]))])
    for kind in KINDS:
        rows.append([kind, *_cells(quality, lambda name, k=kind: _kind(changes[name]["kinds"][k]))])
    for flag in FLAGS:
        rows.append([flag, *(_reports(row["flags"][flag]) for row in outputs.values())])
    rows.append(["unsupported prior", *(_reports(row["unsupported"]) for row in outputs.values())])
    rows.append(["prompt cut", *(str(row["truncated_prompts"]) for row in outputs.values())])
    rows.append(["words", *(number(row["mean_words"], 1) for row in outputs.values())])
    return wide_table(["what", *map(escape, outputs)], rows)


def _cells(quality: Summary, cell: Any) -> list[str]:
    names = quality["outputs"]
    return [DASH if name == ORIGINAL else cell(name) for name in names]


def _kind(record: Summary) -> str:
    return f"{record['changes']} in {_reports(record)}" if record["changes"] else _reports(record)


def _reports(record: Summary) -> str:
    return f"{record['reports']} of {record['of']}{_share(record)}"


def _share(record: Summary) -> str:
    """A share with its interval; nothing where there was nothing to be hit."""
    if record["share"] is None:
        return ""
    low, high = record["interval"]["low"], record["interval"]["high"]
    return f": {share(record['share'])} ({share(low)} to {share(high)})"


def _notes(quality: Summary) -> list[str]:
    notes = [
        "; ".join(f"*{kind}*: {meaning}" for kind, meaning in KINDS.items()) + ".",
        "*empty* to *cut off* are outputs that are wrong by themselves, whatever they say. "
        "*unsupported prior* counts outputs that compare with an earlier examination which the "
        "input does not speak of, the original's too. *prompt cut* counts prompts shortened to "
        "fit. *words* is the mean length.",
    ]
    for name, row in quality["changes"].items():
        kinds, known = row["kinds"], row["in_reference"]
        gone = kinds["lost"]["changes"] + kinds["negated"]["changes"]
        new = kinds["invented"]["changes"]
        if gone or new:
            notes.append(
                f"{escape(name)}: the reference has {known['lost'] + known['negated']} of the "
                f"{gone} findings lost or negated, and {known['invented']} of the {new} invented."
            )
    return notes


def _pooled(quality: Summary) -> str:
    """Return sensitivity and specificity over all findings, against the radiologist."""
    rows = []
    for name, row in quality["against_radiologist"].items():
        cells = [_pooled_cells(row[kind]) for kind in (SENSITIVITY, SPECIFICITY)]
        rows.append([escape(name), *(cell for pair in cells for cell in pair)])
    lead = prose(
        "All findings together, against the radiologist. *Sensitivity*: of the findings that a "
        "reference definitely states, the share that the output has too, definitely or possibly. "
        "*Specificity*: of the findings of our lists that a reference does not state, the share "
        "that the output does not state either. It is near 100 %, as most findings are rare. "
        "Beside each its paired difference from the original "
        f"({coverage(quality)}s{_by_patient(quality) or ', by report'}):"
    )
    header = ["precision", "sensitivity", "difference", "specificity", "difference"]
    return "\n\n".join([lead, table(header, rows)])


def _pooled_cells(record: Summary) -> tuple[str, str]:
    text = f"{record['count']:,} of {record['of']:,}"
    if record["share"] is not None:
        low, high = (share(record["interval"][end], 1) for end in ("low", "high"))
        text += f": {share(record['share'], 1)} ({low} to {high})"
    difference = record.get("difference")
    if difference is None:
        return text, DASH
    low, high = (change(difference["interval"][end]) for end in ("low", "high"))
    return text, f"{change(difference['mean'])} ({low} to {high})"


def _sensitivity(quality: Summary) -> str:
    findings, names = quality["findings"], quality["precisions"]
    rows = [
        [
            finding,
            str(row["references"]),
            *(_found(row["sensitivity"][name]) for name in names),
        ]
        for finding, row in findings["by_finding"].items()
        if row["sensitivity"]
    ]
    fewest = findings["fewest_references"]
    if not rows:
        return prose(
            f"No finding is definitely present in {fewest} references or more: too few to say "
            "which are found."
        )
    lead = prose(
        "Findings of the references that an output has too, definitely or possibly: sensitivity "
        f"(and its paired difference from the original, {coverage(quality)}):"
    )
    notes = [
        f"Findings that at least {fewest} references have definitely present; "
        f"{findings['too_few']} more occur in fewer and are left out. The most frequent are "
        f"shown, up to {FINDINGS}; summary.json holds all.",
        "The interval is that of the paired differences. Where few reports differ it is as wide as "
        "differences allow that so few references would not show.",
    ]
    header = ["finding", "references", *map(escape, names)]
    return "\n\n".join(["### Findings", lead, wide_table(header, rows[:FINDINGS]), bullets(*notes)])


def _found(record: Summary) -> str:
    text = number(record["share"], 2)
    difference = record.get("difference")
    if difference is None:
        return text
    low, high = difference["interval"]["low"], difference["interval"]["high"]
    return f"{text} ({change(low, 2)} to {change(high, 2)})"


def _flips(quality: Summary) -> str:
    """Return the flips by finding of the precisions that have most of them."""
    findings, changes = quality["findings"], quality["changes"]
    total = {
        name: sum(row["kinds"][kind]["changes"] for kind in FLIPS) for name, row in changes.items()
    }
    worst = sorted(total, key=lambda name: -total[name])
    parts = []
    for name in worst[:WORST]:
        flips = {
            finding: row["flips"][name]
            for finding, row in findings["by_finding"].items()
            if any(row["flips"][name].values())
        }
        if any(findings[OTHER][name].values()):
            flips[OTHER] = findings[OTHER][name]
        rows = [
            [finding, *(str(counts[kind]) for kind in FLIPS)]
            for finding, counts in sorted(flips.items(), key=lambda item: -sum(item[1].values()))
        ]
        if rows:
            parts.append(prose(f"Flips of {escape(name)} by finding, most first:"))
            parts.append(table(["finding", *FLIPS], rows[:FLIPPED]))
    return "\n\n".join(parts)


# ----------------------------------------------------------------------------------- examples


def examples_section(summary: Summary, texts: Mapping[tuple[str, str], str]) -> str:
    examples = summary["quality"]["examples"]
    if not examples:
        return ""
    parts = [
        "### Examples",
        prose(
            "The reports with the most harmful changes: the worst of each precision, "
            f"then the next, {len(examples)} in all. **They hold report text: share this file as "
            "you would share the reports.** (summary.json holds none.)"
        ),
    ]
    for row in examples:
        precision, report = row["precision"], row["id"]
        parts.append(
            f"**{escape(precision)}, report {escape(report)}**: {_reasons(row)}; combined F1 "
            f"{number(row['score_original'])} → {number(row['score'])}"
        )
        lines = {
            "reference": texts["reference", report],
            ORIGINAL: texts[ORIGINAL, report],
            precision: texts[precision, report],
            "changes": texts[f"changes of {precision}", report],
        }
        parts.append(labelled(lines))
    return "\n\n".join(parts)


def _reasons(row: Summary) -> str:
    return ", ".join([*(f"{count} {kind}" for kind, count in row["kinds"].items()), *row["flags"]])


def labelled(lines: Mapping[str, str]) -> str:
    """Return a code block, in which nothing is Markdown or HTML, wrapped and with labels."""
    column = max(map(len, lines)) + 2
    wrapped = [
        textwrap.fill(
            plain(text) or DASH,
            WIDTH,
            initial_indent=label.ljust(column),
            subsequent_indent=" " * column,
            # A line ends between words alone: report.html puts the lines together again.
            break_long_words=False,
            break_on_hyphens=False,
        )
        for label, text in lines.items()
    ]
    # A label stands before every text, so no line of it can begin with the closing fence. A fence
    # after indentation of four or more does not count.
    return "\n".join([f"```{LABELLED}", *wrapped, "```"])


def example_texts(run: Run, summary: Summary) -> dict[tuple[str, str], str]:
    """Return the texts that `render` needs for the summary's examples."""
    references = dict(zip(run.reports["id"], run.reports["reference"], strict=True))
    texts = {}
    for row in summary["quality"]["examples"]:
        texts["reference", row["id"]] = references[row["id"]]
        for system in (ORIGINAL, row["precision"]):
            outputs = run.generations[system].set_index("id")["output"]
            texts[system, row["id"]] = outputs[row["id"]]
        found = json.loads(run.scores[row["precision"]].set_index("id").loc[row["id"], "changes"])
        texts[f"changes of {row['precision']}", row["id"]] = "; ".join(map(_in_words, found))
    return texts


def _in_words(found: Mapping[str, str]) -> str:
    """Write one change; of a flip the finding alone, since its sentences stand in the texts."""
    detail = f" {found['before']} → {found['after']}" if found["kind"] in ATTRIBUTES else ""
    return f"{found['kind']}: {found['finding']}{detail}"
