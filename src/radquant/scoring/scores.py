"""One row of scores per evaluation report and system."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from radquant.corpus.evaluation import written_reports
from radquant.errors import UserError
from radquant.files import read_table
from radquant.instructions import check_template, columns_of, fixed_texts
from radquant.scoring import records, rewards
from radquant.scoring.changes import changes, flags, unsupported
from radquant.scoring.findings import statuses
from radquant.scoring.metrics.columns import measure
from radquant.scoring.metrics.kind import Pair
from radquant.scoring.outputs import check_ids, names_of, read_generations


def score(
    evaluation: str | Path,
    target: str,
    reference: str | Path,
    generations: Sequence[str | Path],
    annotations: Sequence[str | Path],
    original_generations: Sequence[str | Path],
    original_annotations: Sequence[str | Path],
    template: str,
    reports: int | None = None,
    images: bool = False,
) -> pd.DataFrame:
    """Score one system's outputs against the references and against the original model's outputs.

    `target` is the column of `evaluation` that holds the reference text, `template` the prompt,
    with which `images` were shown or not. The outputs must be of the first `reports` rows of
    `evaluation`, of all for None. The result has one row per written report, in the order of
    `evaluation`. Its columns are id, annotator, rewards (the package whose definitions were used),
    those of all registered metrics, and five of JSON. `statuses` and `reference_statuses` are
    {finding: status} of the output and of the reference. `changes` are against the original's
    output. `unsupported` holds comparisons with a prior that the input does not know. `flags` says
    what is wrong with the output by itself. See `radquant.scoring.changes`.

    Raises UserError when ids are missing, double or unknown in any file, and when an annotation is
    of another text. It also does when not all annotations come from the same annotator.
    """
    whole = read_table(evaluation, require=("id", target))
    check_template(template, list(whole.columns), target, images)
    every_id = list(whole["id"])
    check_ids(every_id, every_id, str(evaluation))
    references = pd.Series(list(whole[target]), index=every_id, dtype=object)
    table = written_reports(whole, reports, evaluation)
    used = columns_of(template)
    inputs = [{name: row[name] for name in used} for row in table.to_dict(orient="records")]
    ids = list(table["id"])
    generated = read_generations(generations, ids)
    outputs = generated["output"]
    originals = read_generations(original_generations, ids)["output"]

    reference_notes = _read_annotations([reference], references, "annotation of the reference")
    output_notes = _read_annotations(annotations, outputs, "annotation of the output")
    original_notes = _read_annotations(
        original_annotations, originals, "annotation of the original model's output"
    )
    annotator = _one_annotator(
        {
            str(reference): reference_notes,
            names_of(annotations): output_notes,
            names_of(original_annotations): original_notes,
        }
    )
    fixed = fixed_texts(template)
    finish_reasons = generated["finish_reason"].tolist()
    texts = [dict(references), dict(outputs), dict(originals)]
    rows = []
    for name, shown, finish_reason in zip(ids, inputs, finish_reasons, strict=True):
        reference_text, output, original = (of[name] for of in texts)
        notes = (reference_notes[name], output_notes[name], original_notes[name])
        rows.append(
            {
                **measure(Pair(reference_text, output, original, *notes)),
                **_clinical(output, original, *notes, shown),
                "flags": _json(flags(output, fixed, finish_reason)),
            }
        )
    scores = pd.DataFrame(rows)
    scores.insert(0, "id", ids)
    scores.insert(1, "annotator", annotator)
    scores.insert(2, "rewards", rewards.identity())
    return scores


def _clinical(
    output: str,
    original: str,
    reference_note: dict[str, Any],
    output_note: dict[str, Any],
    original_note: dict[str, Any],
    inputs: Mapping[Any, str],
) -> dict[str, Any]:
    return {
        "statuses": _json(statuses(output_note)),
        "reference_statuses": _json(statuses(reference_note)),
        "changes": _json(changes(original_note, output_note, original, output, inputs)),
        "unsupported": _json(unsupported(output, inputs)),
    }


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _read_annotations(paths: Sequence[str | Path], texts: pd.Series, what: str) -> records.Records:
    notes = records.read(paths)
    check_ids(list(notes), list(texts.index), names_of(paths))
    records.check_texts(notes, texts, what)
    return notes


def _one_annotator(notes: dict[str, records.Records]) -> str:
    places: dict[str, str] = {}
    for place, annotations in notes.items():
        for annotator in sorted(annotations.annotators):
            places.setdefault(annotator, place)
    if len(places) != 1:
        found = "; ".join(f"{annotator!r} in {place}" for annotator, place in places.items())
        raise UserError(
            "scores of different annotators cannot be compared, annotate all texts with the "
            f"same one; found {found}"
        )
    return next(iter(places))
