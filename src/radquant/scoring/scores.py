"""One row of scores per evaluation report and system."""

import json
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from radquant.errors import UserError
from radquant.files import read_table
from radquant.scoring import radgraph1, records, rewards

# Observations that state the absence of disease or a comparison: losing one is no lost finding.
_NORMALITY = """
    normal normally unremarkable clear intact patent stable unchanged change changed expanded
    sharp midline free within limits symmetric abnormality abnormalities process disease acute
"""
NOT_FINDINGS = frozenset(_NORMALITY.split())
PRESENT = ("Observation::definitely present", "OBS-DP")
UNCERTAIN = ("Observation::uncertain", "OBS-U")


def score(
    evaluation: str | Path,
    target: str,
    reference: str | Path,
    generations: Sequence[str | Path],
    annotations: Sequence[str | Path],
    original_generations: Sequence[str | Path],
    original_annotations: Sequence[str | Path],
) -> pd.DataFrame:
    """Score one system's outputs against the references and against the original model's outputs.

    `target` is the column of `evaluation` that holds the reference text. Columns of the result,
    one row per report in the order of `evaluation`: id, annotator, rewards (the package whose
    definitions were used), simple, partial, complete (F1 against the reference), rg1_* (the same
    by the definitions of RadGraph 1.0, see `radgraph1`), fidelity_* (F1 against the original
    model's output), rouge_l and rouge_l_original (F-measure with stemming),
    identical, empty, output_words, lost and invented (JSON lists, see `flips`).

    Two identical outputs have fidelity 1 and ROUGE-L 1 even when they hold no entity or no word,
    where F1 is undefined.

    Raises UserError when ids are missing, double or unknown in any file, when an annotation is of
    another text, and when not all annotations come from the same annotator.
    """
    table = read_table(evaluation, require=("id", target))
    ids = list(table["id"])
    _check_ids(ids, ids, str(evaluation))
    references = pd.Series(list(table[target]), index=ids, dtype=object)
    outputs = read_outputs(generations, ids)
    originals = read_outputs(original_generations, ids)

    reference_notes = _read_annotations([reference], references, "annotation of the reference")
    output_notes = _read_annotations(annotations, outputs, "annotation of the output")
    original_notes = _read_annotations(
        original_annotations, originals, "annotation of the original model's output"
    )
    annotator = _one_annotator(
        {
            str(reference): reference_notes,
            _names(annotations): output_notes,
            _names(original_annotations): original_notes,
        }
    )
    rows = [
        _row(
            references[name],
            outputs[name],
            originals[name],
            reference_notes[name],
            output_notes[name],
            original_notes[name],
        )
        for name in ids
    ]
    scores = pd.DataFrame(rows)
    scores.insert(0, "id", ids)
    scores.insert(1, "annotator", annotator)
    scores.insert(2, "rewards", rewards.identity())
    return scores


def read_outputs(paths: Sequence[str | Path], ids: Sequence[str]) -> pd.Series:
    """Return the outputs of all shards together, by id, in the order of `ids`."""
    tables = [read_table(path, require=("id", "output")) for path in paths]
    table = pd.concat(tables, ignore_index=True)
    _check_ids(list(table["id"]), ids, _names(paths))
    for name, output in zip(table["id"], table["output"], strict=True):
        if not isinstance(output, str):
            raise UserError(
                f"{_names(paths)}, column 'output', report {name!r}: not a text; generate again"
            )
    return pd.Series(list(table["output"]), index=list(table["id"]), dtype=object).loc[list(ids)]


def flips(original: dict[str, Any], output: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return the findings (lost, invented) by `output` with respect to `original`.

    A finding is an observation that is definitely present, modifies nothing, and is more than a
    statement of normality (all its words in `NOT_FINDINGS`); it is written as `effusion (pleural)`,
    with the anatomy at which it is located. It is lost when the other side has the same observation
    neither definitely present nor uncertain. Words are compared by their stems; an observation
    without anatomy equals the same observation at any anatomy. Side, size and degree are not
    compared.
    """
    return _missing(original, output), _missing(output, original)


def _missing(present: dict[str, Any], other: dict[str, Any]) -> list[str]:
    anatomies: dict[tuple[str, ...], list[frozenset[str]]] = {}
    for observation, anatomy in _findings(other["entities"], PRESENT + UNCERTAIN):
        anatomies.setdefault(_stems(observation), []).append(frozenset(_stems(anatomy)))
    missing = []
    for observation, anatomy in _findings(present["entities"], PRESENT):
        here = frozenset(_stems(anatomy))
        there = anatomies.get(_stems(observation), [])
        if not any(not here or not place or here & place for place in there):
            missing.append(f"{observation} ({anatomy})" if anatomy else observation)
    return sorted(set(missing))


def _findings(entities: dict[str, Any], labels: tuple[str, ...]) -> Iterable[tuple[str, str]]:
    """Yield (observation, anatomy) in lower case of the findings that have one of `labels`."""
    for entity in entities.values():
        observation = entity["tokens"].lower()
        if entity["label"] not in labels or NOT_FINDINGS.issuperset(observation.split()):
            continue
        if any(relation == "modify" for relation, _ in entity["relations"]):
            continue
        places = {target for relation, target in entity["relations"] if relation == "located_at"}
        anatomy = [entities[place] for place in places]
        anatomy.sort(key=lambda place: place["start_ix"])
        yield observation, " ".join(place["tokens"].lower() for place in anatomy)


@cache
def _stems(words: str) -> tuple[str, ...]:
    return tuple(_tokenizer().tokenize(words))


@cache
def _tokenizer() -> Any:
    from rouge_score.tokenizers import DefaultTokenizer

    return DefaultTokenizer(use_stemmer=True)


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=True)


def _rouge_l(target: str, prediction: str) -> float:
    return float(_rouge().score(target, prediction)["rougeL"].fmeasure)


def _row(
    reference: str,
    output: str,
    original: str,
    reference_note: dict[str, Any],
    output_note: dict[str, Any],
    original_note: dict[str, Any],
) -> dict[str, Any]:
    identical = output == original
    against_reference = rewards.f1(output_note, reference_note)
    against_original = (1.0, 1.0, 1.0) if identical else rewards.f1(output_note, original_note)
    lost, invented = flips(original_note, output_note)
    return {
        **dict(zip(("simple", "partial", "complete"), map(float, against_reference), strict=True)),
        **dict(
            zip(
                ("fidelity_simple", "fidelity_partial", "fidelity_complete"),
                map(float, against_original),
                strict=True,
            )
        ),
        **dict(zip(radgraph1.COLUMNS, radgraph1.f1(output_note, reference_note), strict=True)),
        "rouge_l": _rouge_l(reference, output),
        "rouge_l_original": 1.0 if identical else _rouge_l(original, output),
        "identical": identical,
        "empty": not output.strip(),
        "output_words": len(output.split()),
        "lost": json.dumps(lost, ensure_ascii=False),
        "invented": json.dumps(invented, ensure_ascii=False),
    }


def _read_annotations(
    paths: Sequence[str | Path], texts: pd.Series, what: str
) -> dict[str, records.Record]:
    notes = records.read(paths)
    _check_ids(list(notes), list(texts.index), _names(paths))
    records.check_texts(notes, texts, what)
    return notes


def _check_ids(ids: Sequence[str], expected: Sequence[str], place: str) -> None:
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            raise UserError(f"{place}: report {name!r} occurs twice; every report has one row")
        seen.add(name)
    missing = [name for name in expected if name not in seen]
    if missing:
        raise UserError(
            f"{place}: {len(missing)} of the {len(expected)} evaluation reports are missing "
            f"(the first is {missing[0]!r}); all systems are scored on the same reports, "
            "so make this file again"
        )
    unknown = sorted(seen.difference(expected))
    if unknown:
        raise UserError(
            f"{place}: {len(unknown)} reports are not among the {len(expected)} evaluation "
            f"reports (the first is {unknown[0]!r}); make this file again"
        )


def _one_annotator(notes: dict[str, dict[str, records.Record]]) -> str:
    places: dict[str, str] = {}
    for place, annotations in notes.items():
        for record in annotations.values():
            places.setdefault(record["annotator"], place)
    if len(places) != 1:
        found = "; ".join(f"{annotator!r} in {place}" for annotator, place in places.items())
        raise UserError(
            "scores of different annotators cannot be compared, annotate all texts with the "
            f"same one; found {found}"
        )
    return next(iter(places))


def _names(paths: Sequence[str | Path]) -> str:
    return ", ".join(map(str, paths))
