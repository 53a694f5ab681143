"""What the explorer in report.html shows: every evaluated report and every model's output of it.

The payload, as JSON in report.html:

    {"systems": [the precisions, the original first], "measure": what F1 is called,
     "kinds": [[kind, description], ...] in the order of harm, "flags": [...],
     "weights": {kind or flag: what it adds to the harm of an output},
     "ruined": {system: why, see ruined.py},
     "run": see reading.run_id, "order": see reading.order, "scales": see reading.scales,
     "target": what the models had to write, "inputs": [the columns that the prompt shows],
     "prompt": the instruction, with a {field} for each of them,
     "images": how many there are, "side": pixels of the longest of an image,
     "reports": [{"id", "inputs": [one text per column], "images": [numbers], "cut": whether the
       prompt was shortened, "examples": [numbers], "reference": text, "outputs": [one per system:
       {"text": text, "f1", "changes": [{"kind", "finding", "before", "after"}], "flags",
       "unsupported", "harm"}]}],
     "examples": [{"id", "inputs": [one text per column], "answer": text}], those in prompts,
     "texts": [{"text", "spans": [[start, end, status], ...], "findings": {finding: status}}]}

A text is its number in "texts", where equal texts stand once. Spans are the annotator's entities,
in order and apart from each other, and count UTF-16 units as JavaScript does. Inputs are not
annotated, nor are examples: they have spans and findings only where an output or a reference is the
same text.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from radquant.image_files import COLUMN
from radquant.instructions import Row
from radquant.reporting.finished_run import REFERENCES, Run, values
from radquant.reporting.inputs import (
    SIDE,
    image_numbers,
    numbers_of,
    read_examples,
    read_inputs,
    template_of,
    text_columns,
)
from radquant.reporting.reading import order, run_id, scales
from radquant.scoring.changes import FLAGS, HARM, KINDS, harm
from radquant.scoring.finding_terms import NOT_FINDINGS
from radquant.scoring.metrics.columns import PRIMARY
from radquant.scoring.records import Record
from radquant.scoring.spans import spans
from radquant.settings.run import ORIGINAL

REFERENCE = "reference"
INPUT = ""  # no system has this name
_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
STATUSES = {
    **{"definitely present": "present", "definitely absent": "absent", "uncertain": "uncertain"},
    **{"DP": "present", "DA": "absent", "U": "uncertain"},  # as RadGraph 1 writes them
}


def payload_pieces(run: Run, ruined: Mapping[str, str]) -> Iterator[str]:
    """Yield the payload of `run` as JSON piece by piece: whole, it may be larger than memory.

    ruined: what `ruined.ruined` returns.
    """
    texts, inputs = _Texts(run), read_inputs(run)
    examples = _Examples(run, texts, inputs)
    yield dump(_head(run, ruined, inputs)).removesuffix("}") + ',"reports":['
    yield from _joined(_reports(run, inputs, texts, examples))
    yield '],"examples":['
    yield from _joined(examples.shown)
    yield '],"texts":['
    yield from _joined(texts.shown())
    yield "]}"


def dump(value: Any) -> str:
    return _JSON.encode(value)


def _joined(values: Iterable[Any]) -> Iterator[str]:
    for number, value in enumerate(values):
        yield ("," if number else "") + dump(value)


def _head(run: Run, ruined: Mapping[str, str], inputs: pd.DataFrame) -> dict[str, Any]:
    name = run_id(run)
    return {
        "systems": run.precisions,
        "measure": run.measure,
        "kinds": [[kind, description] for kind, description in KINDS.items()],
        "flags": list(FLAGS),
        "weights": HARM,
        "ruined": dict(ruined),
        "run": name,
        "order": order(name, run.reports["id"].tolist()),
        "scales": scales(),
        "target": run.config["task"]["target"],
        "inputs": text_columns(inputs),
        "prompt": template_of(run),
        "images": len(image_numbers(inputs)),
        "side": SIDE,
    }


def _reports(
    run: Run, inputs: pd.DataFrame, texts: "_Texts", examples: "_Examples"
) -> Iterator[dict[str, Any]]:
    columns = {name: _columns(run, name) for name in run.precisions}
    numbers = image_numbers(inputs)
    given = [values(inputs[column]) for column in text_columns(inputs)]
    pictured = inputs[COLUMN].tolist() if numbers else [""] * len(inputs)
    shortened = (run.generations[ORIGINAL]["truncated_tokens"] > 0).tolist()
    for row, (name, reference) in enumerate(
        zip(values(run.reports["id"]), values(run.reports["reference"]), strict=True)
    ):
        outputs = []
        for system, rows in columns.items():
            written, f1, changes, flags, unsupported = next(rows)
            outputs.append(
                {
                    "text": texts.number(written, system, row),
                    "f1": round(float(f1), 6),
                    "changes": changes,
                    "flags": flags,
                    "unsupported": unsupported,
                    "harm": harm(changes, flags),
                }
            )
        yield {
            "id": name,
            "inputs": [texts.number(next(column), INPUT, row) for column in given],
            "images": numbers_of(pictured[row], numbers),
            "cut": shortened[row],
            "examples": examples.numbers(row),
            "reference": texts.number(reference, REFERENCE, row),
            "outputs": outputs,
        }


def marks(text: str, note: Record) -> list[list[Any]]:
    """Return [start, end, status] of the entities in `note`, the annotation of `text`."""
    units = _units(text)
    found: list[list[Any]] = []
    for start, end, entity in spans(text, note):
        if not found or units[start] >= found[-1][1]:  # else it stands inside another
            found.append([units[start], units[end], _status(entity)])
    return found


def _units(text: str) -> Sequence[int]:
    """Return how many UTF-16 units stand before each character, and before the end."""
    if text.isascii():
        return range(len(text) + 1)
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


def _columns(run: Run, system: str) -> Iterator[tuple[Any, ...]]:
    return zip(
        values(run.generations[system]["output"]),
        values(run.scores[system][PRIMARY]),
        *(run.clinical(system, name) for name in ("changes", "flags", "unsupported")),
        strict=True,
    )


class _Texts:
    """Texts with their spans, each once, numbered as they come."""

    def __init__(self, run: Run) -> None:
        self._run = run
        names = [(name, "statuses") for name in run.precisions] + [(ORIGINAL, REFERENCES)]
        self._columns = {(name, column): run.scores[name][column].array for name, column in names}
        self._numbers: dict[str, int] = {}
        self._first: list[tuple[str, int]] = []  # whose, and of which report

    def number(self, text: str, system: str, row: int) -> int:
        number = self._numbers.setdefault(text, len(self._first))
        if number == len(self._first):
            self._first.append((system, row))
        elif self._first[number][0] == INPUT:  # which nobody annotated
            self._first[number] = (system, row)
        return number

    def shown(self) -> Iterator[dict[str, Any]]:
        ids = self._run.reports["id"].tolist()
        for text, (system, row) in zip(self._numbers, self._first, strict=True):
            if system == INPUT:
                yield {"text": text, "spans": [], "findings": {}}
                continue
            note = self._run.annotations[system][ids[row]]
            yield {
                "text": text,
                "spans": marks(text, note),
                "findings": self._findings(system, row),
            }

    def _findings(self, system: str, row: int) -> dict[str, str]:
        whose, column = (ORIGINAL, REFERENCES) if system == REFERENCE else (system, "statuses")
        found: dict[str, str] = json.loads(self._columns[whose, column][row])
        return found


class _Examples:
    """The solved examples of the prompts, each once, numbered as they come."""

    def __init__(self, run: Run, texts: _Texts, inputs: pd.DataFrame) -> None:
        self._of_reports = read_examples(run, inputs)
        self._columns, self._target = text_columns(inputs), run.config["task"]["target"]
        self._texts = texts
        self._numbers: dict[str, int] = {}
        self.shown: list[dict[str, Any]] = []

    def numbers(self, row: int) -> list[int]:
        return [self._number(example, row) for example in self._of_reports[row]]

    def _number(self, example: Row, row: int) -> int:
        number = self._numbers.setdefault(example["id"], len(self.shown))
        if number == len(self.shown):
            said = [self._texts.number(example[name], INPUT, row) for name in self._columns]
            answer = self._texts.number(example[self._target], INPUT, row)
            self.shown.append({"id": example["id"], "inputs": said, "answer": answer})
        return number
