"""The table of all rulers, beside the primary one."""

from collections.abc import Iterator, Mapping
from typing import Any

from radquant.reporting.formatting import (
    DASH,
    MOST,
    bullets,
    change,
    coverage,
    escape,
    interval,
    listed,
    number,
    prose,
    wide_table,
)
from radquant.scoring.measures.tables import kind
from radquant.scoring.metrics.columns import metrics
from radquant.settings.run import BASELINES, ORIGINAL

Summary = Mapping[str, Any]
Row = Mapping[str, Any]
LESS = "↓"


def rulers_section(quality: Summary) -> str:
    names = _quantized(quality)
    header = ["ruler", "group", ORIGINAL, *map(escape, names), *BASELINES]
    shown = min(MOST, 3 + len(names))
    lead = prose(
        f"Each ruler holds the outputs of the same {quality['reports']} reports against the "
        f"reference. {LESS}: less is better. Under a precision stands its difference from the "
        f"original with its {coverage(quality)}, paired{_by(quality)}. Only *combined* was chosen "
        "beforehand; it alone judges. All others are exploratory: their intervals are not "
        "corrected for their number, so some leave out 0 by chance."
    )
    notes = bullets(*_dependence(quality), *_remarks(quality))
    return "\n\n".join(
        [
            "### More than one ruler",
            lead,
            wide_table(header, list(_cells(quality)), left=2, shown=shown),
            notes,
        ]
    )


def _quantized(quality: Summary) -> list[str]:
    return [name for name in quality["precisions"] if name != ORIGINAL]


def _by(quality: Summary) -> str:
    return " by patient" if quality.get("patients") else ""


def _cells(quality: Summary) -> Iterator[list[str]]:
    for row in quality["rulers"]:
        yield [
            _label(row),
            row["group"],
            number(row["systems"][ORIGINAL]),
            *(_difference(row["differences"][name]) for name in _quantized(quality)),
            *(number(row["systems"][name]) for name in BASELINES),
        ]


def _label(row: Row) -> str:
    text = escape(row["label"]) + (f" {LESS}" if row["better"] == "less" else "")
    text += f" ({row['over']} labels)" if row["over"] is not None else ""
    return f"**{text}** (primary)" if row["primary"] else text


def _difference(row: Row) -> str:
    if row["mean"] is None:
        return DASH
    if row["interval"] is None:
        return change(row["mean"])
    same = row["interval"]["low"] == row["interval"]["high"]
    return f"{change(row['mean'])} ({'all equal' if same else interval(row['interval'])})"


def _dependence(quality: Summary) -> Iterator[str]:
    """Say which rulers are independent of each other, and which are not."""
    rows = quality["rulers"]
    same, others = (
        list(dict.fromkeys(escape(row["metric"]) for row in rows if row["annotations"] is is_one))
        for is_one in (True, False)
    )
    yield (
        f"{_capital(listed(same))} come from the same annotations ({escape(quality['annotator'])})"
        ". What it misreads counts in all of them: that they agree is no second proof."
    )
    if others:
        verb = "read" if len(others) > 1 else "reads"
        yield f"{listed(others)} {verb} no annotation: independent of it, and blind to meaning."


def _remarks(quality: Summary) -> Iterator[str]:
    abouts = [metric.ABOUT for metric in metrics()]
    abouts += [kind(name).ABOUT for name in quality["measures"]]
    for about in abouts:
        if about.remark:
            yield about.remark.format(annotator=escape(quality["annotator"]))
    for name, identity in quality["measures"].items():
        yield f"{kind(name).ABOUT.columns[0].label} was made with {escape(identity)}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
