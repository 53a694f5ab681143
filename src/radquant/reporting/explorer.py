"""What the explorer in report.html shows: every evaluated report and every model's output of it.

The payload, as JSON in report.html:
{"systems": [the precisions, the original first], "measure": what F1 is called,
 "kinds": [[kind, description], ...] in the order of harm, "flags": [...],
 "reports": [{"id", "reference": text, "outputs": [one per system: {"text": text, "f1",
   "changes": [{"kind", "finding", "before", "after"}], "flags", "unsupported", "harm"}]}],
 "texts": [{"text", "spans": [[start, end, status], ...]}]}
A text is its number in "texts", where equal texts stand once. Spans are the annotator's entities,
in order and apart from each other, and count UTF-16 units as JavaScript does.
"""

from collections.abc import Mapping
from typing import Any

from radquant.reporting.collect import ANNOTATORS, Run
from radquant.scoring.changes import FLAGS, KINDS, harm
from radquant.scoring.finding_terms import NOT_FINDINGS
from radquant.scoring.records import Record
from radquant.scoring.spans import spans

STATUSES = {
    **{"definitely present": "present", "definitely absent": "absent", "uncertain": "uncertain"},
    **{"DP": "present", "DA": "absent", "U": "uncertain"},  # as RadGraph 1 writes them
}


def payload(run: Run) -> dict[str, Any]:
    """Return what the explorer shows of `run`."""
    texts = _Texts()
    columns = {name: _columns(run, name) for name in run.precisions}
    reports = []
    for row, (name, reference) in enumerate(
        zip(run.reports["id"], run.reports["reference"], strict=True)
    ):
        outputs = []
        for system, (written, f1, changes, flags, unsupported) in columns.items():
            outputs.append(
                {
                    "text": texts.number(written[row], run.annotations[system][name]),
                    "f1": round(float(f1[row]), 6),
                    "changes": changes[row],
                    "flags": flags[row],
                    "unsupported": unsupported[row],
                    "harm": harm(changes[row], flags[row]),
                }
            )
        number = texts.number(reference, run.annotations["reference"][name])
        reports.append({"id": name, "reference": number, "outputs": outputs})
    return {
        "systems": run.precisions,
        "measure": ANNOTATORS[run.config["scoring"]["annotator"]],
        "kinds": [[kind, description] for kind, description in KINDS.items()],
        "flags": list(FLAGS),
        "reports": reports,
        "texts": texts.found,
    }


def marks(text: str, note: Record) -> list[list[Any]]:
    """Return [start, end, status] of the entities in `note`, the annotation of `text`."""
    units = _units(text)
    found: list[list[Any]] = []
    for start, end, entity in spans(text, note):
        if not found or units[start] >= found[-1][1]:  # else it stands inside another
            found.append([units[start], units[end], _status(entity)])
    return found


def _units(text: str) -> list[int]:
    """Return how many UTF-16 units stand before each character, and before the end."""
    units = [0]
    for character in text:
        units.append(units[-1] + (2 if ord(character) > 0xFFFF else 1))
    return units


def _status(entity: Mapping[str, Any]) -> str:
    """Return how an entity is coloured; "clear" and "normal" are there, but no finding."""
    kind, _, label = entity["label"].replace("::", "-").partition("-")
    if kind.lower().startswith("anat"):
        return "anatomy"
    status = STATUSES[label]
    reassures = NOT_FINDINGS.issuperset(entity["tokens"].lower().split())
    return "normal" if status == "present" and reassures else status


def _columns(run: Run, system: str) -> tuple[list[Any], ...]:
    scores = run.scores[system]
    return (
        run.generations[system]["output"].tolist(),
        scores["complete"].tolist(),
        *(scores[name].tolist() for name in ("changes", "flags", "unsupported")),
    )


class _Texts:
    """Texts with their spans, each once."""

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []
        self._numbers: dict[str, int] = {}

    def number(self, text: str, note: Record) -> int:
        if text not in self._numbers:
            self._numbers[text] = len(self.found)
            self.found.append({"text": text, "spans": marks(text, note)})
        return self._numbers[text]
