"""Dividing reports into training and evaluation, so that nothing is known to both.

Membership is decided by hashes of (seed, group) and (seed, id), never by position. So the members
stay when a corpus grows or an evaluation asks for more reports.
"""

import hashlib
from collections.abc import Sequence

from radquant.corpus.cleaning import normalise
from radquant.corpus.marks import same_id
from radquant.corpus.reports import Report
from radquant.errors import UserError
from radquant.image_files import image_names

# Sections that describe the images. Two reports that share one are the same reading; two that share
# only an indication ("Chest pain.") or a comparison ("None.") are not.
_BODY = ("findings", "impression", "text")


def unit_hash(seed: int, purpose: str, key: str) -> float:
    """Return a number in [0, 1) that depends on the three arguments alone (SHA-256)."""
    digest = hashlib.sha256(f"{seed}\0{purpose}\0{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def assign_splits(reports: Sequence[Report], eval_fraction: float, seed: int) -> list[str]:
    """Return 'train', 'eval' or '' for each report.

    A corpus that brings its own split keeps it, and '' marks the reports that it left out.
    Otherwise about `eval_fraction` of the groups are for evaluation, each group whole; a report
    without a group is a group of its own.
    """
    if any(report.split for report in reports):
        return [report.split for report in reports]
    return [
        "eval" if unit_hash(seed, "split", _group(report)) < eval_fraction else "train"
        for report in reports
    ]


def _group(report: Report) -> str:
    group = same_id(report.group)
    return f"group {group}" if group else f"id {same_id(report.id)}"


def draw(reports: Sequence[Report], count: int, seed: int) -> tuple[list[Report], list[Report]]:
    """Return (the first `count` reports in the order of their ids' hashes, the others)."""
    ordered = sorted(reports, key=lambda report: (unit_hash(seed, "draw", report.id), report.id))
    return ordered[:count], ordered[count:]


def text_key(report: Report, inputs: Sequence[str], target: str) -> str:
    """Return the text by which two reports count as the same for a leak.

    That is the normalised input, where an input describes the images; else input and target
    together, of the same images if there are any. Equal targets alone are no leak: "No acute
    disease." is the honest answer to many.
    """
    described = set(inputs) & set(_BODY)
    names = [*inputs] if described else [*inputs, target]
    texts = [normalise(getattr(report, name)) for name in names]
    return "\0".join(texts if described else [*texts, report.images])


def leaks(
    train: Sequence[Report], held_out: Sequence[Report], inputs: Sequence[str], target: str
) -> dict[str, str]:
    """Return {id of a training report: reason} for those that share something with a report in
    `held_out`. The reason is 'shared patient', 'shared study', 'shared image' or 'shared text'.
    """
    groups = {same_id(report.group) for report in held_out} - {""}
    studies = {same_id(report.study) for report in held_out} - {""}
    images = {name for report in held_out for name in image_names(report.images)}
    texts = {text_key(report, inputs, target) for report in held_out}
    found: dict[str, str] = {}
    for report in train:
        if same_id(report.group) in groups:
            found[report.id] = "shared patient"
        elif same_id(report.study) in studies:
            found[report.id] = "shared study"
        elif images.intersection(image_names(report.images)):
            found[report.id] = "shared image"
        elif text_key(report, inputs, target) in texts:
            found[report.id] = "shared text"
    return found


def check_no_leak(
    train: Sequence[Report], held_out: Sequence[Report], inputs: Sequence[str], target: str
) -> None:
    """Raise UserError when training and evaluation share an id, a patient, a study, an image or a
    text. A text is shared if inputs, or inputs and targets, are equal after `normalise`.
    """
    held = {same_id(report.id) for report in held_out}
    both = {report.id for report in train if same_id(report.id) in held}
    found = {**leaks(train, held_out, inputs, target), **dict.fromkeys(both, "shared id")}
    if found:
        kinds = ", ".join(sorted(set(found.values())))
        raise UserError(
            f"{len(found)} training reports are also known to the evaluation ({kinds}); "
            "clean the corpus again"
        )
