"""The section of the report on quality: what each system scores."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from radquant.reporting.finished_run import annotator_of
from radquant.reporting.formatting import (
    bullets,
    escape,
    listed,
    number,
    perplexity,
    prose,
    share,
    wide_table,
)
from radquant.reporting.rulers_section import rulers_section
from radquant.scoring.metrics.columns import PRIMARY, metrics, of_table, primary
from radquant.scoring.metrics.kind import Column, Metric
from radquant.settings.run import ORIGINAL, baselines_with_text

Summary = Mapping[str, Any]


def quality_section(summary: Summary) -> str:
    quality = summary["quality"]
    shown = [metric for metric in metrics() if not metric.ABOUT.section and of_table(metric)]
    columns = [column for metric in shown for column in of_table(metric)]
    header = ["system", *(column.heading for column in columns)]
    rows = _rows(quality, columns)
    behind = 2 + columns.index(primary())  # likelihood stands beside the score that judges
    header.insert(behind, "perplexity")
    for cells, row in zip(rows, quality["systems"].values(), strict=True):
        cells.insert(behind, perplexity(row["perplexity"]))
    original = quality["systems"][ORIGINAL]
    inputs = summary["config"]["task"]["inputs"]
    first, *others = (_note(metric, quality) for metric in sorted(shown, key=_not_primary))
    ppl = f"Perplexity is that of the references{of_all(quality)}: less is better."
    notes = [
        first,
        " ".join([*filter(None, others), ppl]),
        _baselines(inputs),
    ]
    caveat = annotator_of(summary["config"]).CAVEAT
    if caveat:
        notes.append(f"{caveat} {_agreement(quality)}")
    scores = {name: quality["systems"][name][PRIMARY] for name in baselines_with_text(inputs)}
    above = [name for name, value in scores.items() if value >= original[PRIMARY]]
    if above:
        names = listed([f"{name} ({number(scores[name])})" for name in above])
        notes.append(
            f"**{names} {'scores' if len(above) == 1 else 'score'} at least as high without any "
            f"model as the original model does ({number(original[PRIMARY])}). Where even the "
            "original is of little use, a small difference between precisions says little about a "
            "model that is.**"
        )
    parts = [f"## Quality: {quality['measure']}", wide_table(header, rows), bullets(*notes)]
    return "\n\n".join([*parts, *_sections(quality), rulers_section(quality)])


def _baselines(inputs: Sequence[str]) -> str:
    """What the systems without a model are."""
    constant = "constant gives every report the one training text that scores best there"
    if not inputs:
        return (
            "copy-input is empty, for there is no text to repeat, and so is nearest, for there is "
            f"none to compare; {constant}. A model is of use only above it."
        )
    return (
        f"copy-input repeats the input; {constant}; nearest gives each report the text of the "
        "training report whose input has the words most like its own. A model is of use only above "
        "all three."
    )


def _rows(quality: Summary, columns: Sequence[Column]) -> list[list[str]]:
    """The name and the numbers of each system."""
    return [
        [escape(name), *(_cell(column, row[column.name]) for column in columns)]
        for name, row in quality["systems"].items()
    ]


def _cell(column: Column, value: float) -> str:
    if column.kind is bool:
        return share(value)
    return number(value, 1 if column.kind is int else 3)


def _not_primary(metric: Metric) -> bool:
    return primary() not in metric.ABOUT.columns


def _note(metric: Metric, quality: Summary) -> str:
    """What is said of a metric below its table: its own note, and where less is better."""
    known = {"measure": quality["measure"], "annotator": escape(quality["annotator"])}
    note = metric.ABOUT.note.format(**known, citation=metric.ABOUT.citation)
    less = " and ".join(column.label for column in of_table(metric) if column.better == "less")
    return " ".join(filter(None, [note, f"Of {less}, less is better." if less else ""]))


def of_all(quality: Summary) -> str:
    """Say of how many reports the likelihood is, where that are more than were written."""
    more = quality["references"] != quality["reports"]
    return f" of all {quality['references']} evaluation reports" if more else ""


def _sections(quality: Summary) -> Iterator[str]:
    """The metrics that have a table of their own."""
    for metric in metrics():
        section, columns = metric.ABOUT.section, of_table(metric)
        if section and columns:
            header = ["system", *(column.heading for column in columns)]
            note = _note(metric, quality)
            # The lexicon's scores are not RadGraph's by any definition.
            yield f"### {section.heading}: {quality['measure']}"
            yield prose(section.lead)
            yield wide_table(header, _rows(quality, columns))
            yield from [bullets(note)] if note else []


def _agreement(quality: Mapping[str, Any]) -> str:
    record = quality["annotator_agreement"]
    if record is None:
        return "How well these rules agree with RadGraph-XL has not been measured."

    def cell(name: str) -> str:
        figures = record["agreement"][name]
        return f"{number(figures['value'])} ({number(figures['low'])} to {number(figures['high'])})"

    return (
        f"On {record['reports']} reports of {record['corpus']}, which its rules were not tuned on, "
        f"it agrees with RadGraph-XL in findings with an F1 of {cell('finding F1')}. In findings "
        f"and their status it is {cell('finding + status F1')}. For what is uncertain alone it is "
        f"{cell('uncertain F1')}, the weak spot ({share(record['confidence'])} intervals)."
    )
