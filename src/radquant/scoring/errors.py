"""Errors of a report against the radiologist's reference, by the six kinds of ReXVal.

The kinds are those that radiologists counted in ReXVal (Yu et al. 2023, "Evaluating progress in
automatic chest X-ray radiology report generation", doi:10.1016/j.patter.2023.100802). Here rules
count them, on annotations of the two texts and on the texts: nobody has read the reports.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from radquant.scoring.changes import of_finding
from radquant.scoring.comparisons import COMPARED, SAME, Claim, comparisons, is_change
from radquant.scoring.finding_terms import CANONICAL
from radquant.scoring.findings import ABSENT, LABELS, UNCERTAIN, Finding, describe

Record = dict[str, Any]

FALSE, MISSED, PLACE, SEVERITY = "false finding", "missed finding", "wrong place", "wrong severity"
FALSE_COMPARISON, MISSED_COMPARISON = "false comparison", "missed comparison"
KINDS = (FALSE, MISSED, PLACE, SEVERITY, FALSE_COMPARISON, MISSED_COMPARISON)

# ReXVal's radiologists counted all errors, and of these the clinically significant ones. A minor
# error counts half: as much as in the mean of the two counts.
WEIGHT, MINOR = 1.0, 0.5
# Minor are devices, and what is old or comes with age. So is a finding that no list knows, as its
# weight is unknown. So are a finding that is only possible, and a comparison that says that nothing
# has changed.
DEVICES = frozenset(
    (
        *("endotracheal tube", "tracheostomy", "enteric tube", "chest tube", "tube"),
        *("pacemaker", "central line", "aortic balloon pump"),
    )
)
MINOR_FINDINGS = DEVICES | {
    *("aortic tortuosity or calcification", "granuloma or calcification", "hernia"),
    *("scarring or pleural thickening", "degenerative change", "scoliosis or kyphosis"),
    *("osteopenia", "postoperative change", "low lung volumes"),
}
# A finding that another one says as well, only less precisely. A text with "opacity" for what the
# radiologist calls pneumonia has missed the pneumonia, and has not invented an opacity.
SAID_BY = {
    "opacity": (
        *("consolidation", "pneumonia", "atelectasis", "pulmonary edema", "interstitial disease"),
        *("nodule", "mass", "malignancy", "tuberculosis", "scarring or pleural thickening"),
        "granuloma or calcification",
    ),
    "consolidation": ("pneumonia",),
    "interstitial disease": ("pulmonary edema",),
    "pulmonary edema": ("heart failure",),
    "vascular congestion": ("pulmonary edema", "heart failure"),
    "mass": ("malignancy",),
    "blunted costophrenic angle": ("pleural effusion", "scarring or pleural thickening"),
    "compression deformity": ("fracture",),
    "tube": ("endotracheal tube", "tracheostomy", "enteric tube", "chest tube"),
}
# The changes of a finding (`radquant.scoring.changes`) that are errors where both texts state it.
# Its course is a comparison.
KIND_OF = {
    "side": PLACE,
    "place": PLACE,
    "device": PLACE,
    "measurement": SEVERITY,
    "severity": SEVERITY,
}
# Names of one thing by its size. A mass that is called a nodule is one error, of its size.
BY_SIZE = frozenset(("nodule", "mass"))


@dataclass(frozen=True)
class Error:
    """One error; `finding` may be report text, and is "" where it is of no finding."""

    kind: str
    finding: str
    weight: float


def errors(reference: Record, output: Record, reference_text: str, output_text: str) -> list[Error]:
    """Return the errors of `output_text`; the first two arguments are the texts' annotations.

    A finding is stated where it is present or uncertain: a hedge reaches the reader. What one of
    the texts leaves open, a side, a degree or a measurement, is no error. An output that says
    nothing misses at least that nothing was found: else garbage would have the fewest errors.
    """
    before, after = describe(reference, reference_text), describe(output, output_text)
    true, said = _stated(before), _stated(after)
    false = [name for name in said if name not in _with_general(true)]
    missed = [name for name in true if name not in _with_general(said)]
    found = []
    if {*false, *missed} >= BY_SIZE and len(BY_SIZE.intersection(false)) == 1:
        false = [name for name in false if name not in BY_SIZE]
        (name,) = BY_SIZE.intersection(missed)
        found = [Error(SEVERITY, name, _weight(name, true[name]))]
        missed.remove(name)
    found += [Error(FALSE, name, _weight(name, said[name])) for name in false]
    found += [Error(MISSED, name, _weight(name, true[name])) for name in missed]
    for name in true.keys() & said.keys():
        found += _of_both(name, true[name], said[name])
    if not true and _speaks(reference) and not _speaks(output):
        found.append(Error(MISSED, "", WEIGHT))
    counted = {*false, *missed}
    old, new = comparisons(reference, reference_text), comparisons(output, output_text)
    found += _comparisons(FALSE_COMPARISON, new[0], old[1], counted)
    found += _comparisons(MISSED_COMPARISON, old[0], new[1], counted)
    return sorted(_once(found), key=lambda error: (KINDS.index(error.kind), error.finding))


def _once(found: Sequence[Error]) -> Iterator[Error]:
    """Yield each error once: a missed "opacity, concerning for pneumonia" is one that is missed."""
    for error in found:
        same = [other for other in found if other.kind == error.kind]
        if any(other.finding in SAID_BY.get(error.finding, ()) for other in same):
            continue
        general = [e.weight for e in same if error.finding in SAID_BY.get(e.finding, ())]
        yield replace(error, weight=max(error.weight, *general, 0))


def _speaks(record: Record) -> bool:
    """Say whether the annotator reads any observation, be it that something is absent."""
    return any(entity["label"] in LABELS for entity in record["entities"].values())


def _stated(findings: Mapping[str, Finding]) -> dict[str, Finding]:
    return {
        name: finding
        for name, finding in findings.items()
        if finding.status != ABSENT and not is_change(name)
    }


def _with_general(names: Collection[str]) -> set[str]:
    """Return `names` with the less precise names of the same."""
    general = {name for name, precise in SAID_BY.items() if not set(names).isdisjoint(precise)}
    return {*names, *general}


def _of_both(name: str, true: Finding, said: Finding) -> Iterator[Error]:
    changed = {change["kind"] for change in of_finding(name, true, said)}
    weight = max(_weight(name, true), _weight(name, said))
    if "device" in changed:  # that a tube is in the wrong place is not minor
        weight = WEIGHT
    # A measurement of a device says where it ends.
    size = PLACE if name in DEVICES else SEVERITY
    kinds = {size if kind == "measurement" else KIND_OF[kind] for kind in changed & KIND_OF.keys()}
    yield from (Error(kind, name, weight) for kind in kinds)


def _comparisons(
    kind: str, claims: Iterable[Claim], known: Collection[Claim], counted: Collection[str]
) -> Iterator[Error]:
    """Yield what of `claims` the other text, which may claim `known`, does not claim."""
    for name, course in sorted(claims):
        same = [
            finding for finding, other in known if COMPARED in (course, other) or other == course
        ]
        # A claim that belongs to no finding may be about any.
        if name in counted or name in same or "" in same or (not name and same):
            continue
        yield Error(kind, name, MINOR if course in (SAME, COMPARED) else _importance(name))


def _weight(name: str, finding: Finding) -> float:
    return MINOR if finding.status == UNCERTAIN else _importance(name)


def _importance(name: str) -> float:
    known = not name or name in CANONICAL
    return WEIGHT if known and name not in MINOR_FINDINGS else MINOR
