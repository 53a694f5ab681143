"""Whether a run can answer at all: judged before any comparison is.

Every threshold stands here, and why it was chosen in docs/report.md. A sentence names what was
counted, of how many, and leaves the verdict to say what follows.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from radquant.reporting.clinical_changes import MENTIONED
from radquant.reporting.finished_run import REFERENCES, Run
from radquant.reporting.formatting import counted, points
from radquant.scoring.language import ENGLISH, Language, language_of
from radquant.settings.run import BASELINES, NEAREST, ORIGINAL, baselines_with_text

# Fewest reports, and fewest patients where they are known.
FEWEST_REPORTS, FEWEST_PATIENTS = 30, 10
# The largest share of reports that one patient may have.
MOST_OF_ONE = 0.30
# The largest share of references, and of outputs, in which an annotator marks nothing.
BLIND_REFERENCES, BLIND_OUTPUTS = 0.10, 0.25
# Fewest references, and fewest outputs of the original, that state a finding, possibly or
# definitely. Outputs must also be this share of those references.
FEWEST_STATED, FEWEST_WRITTEN = 5, 0.10
# The largest share of reports in which the original scores 0, and can lose nothing.
AT_FLOOR = 0.90
# The largest shares of outputs that are wrong by themselves, that were cut off, and that are one
# and the same.
DEGENERATE, CUT_OFF, SAME = 0.25, 0.50, 0.80
# Of the reports that state a definite finding, the largest share that may lose one. Fewer than the
# second number do not count.
LOST, FEWEST_LOST = 0.50, 2
UNREAD = ("language", "nothing seen in the references", "nothing seen in the outputs")
BROKEN = "broken checkpoint"
FAULTS = frozenset({"empty", "prompt echo", "repetition"})
# The text that each baseline hands in.
HANDED_IN = dict(
    zip(
        BASELINES,
        ("repeating the input", "one constant text", "the nearest training report's text"),
        strict=True,
    )
)
# If more than this share of outputs differs from the original's, at least this share of those must
# have other scores.
OTHER_OUTPUTS, OTHER_SCORES = 0.05, 0.10

# A reason has its kind, a sentence of at most 22 words, and the numbers in it.
Reason = dict[str, Any]
Facts = Mapping[str, Any]


def fitness(facts: Facts) -> dict[str, Any]:
    """Return whether the run is fit to answer, and why not; of each precision its own reasons.

    facts: what `facts_of` returns.
    """
    reasons = list(_of_run(facts))
    own = {
        name: [
            *_of_checkpoint(name, row.get("broken")),
            *_of_outputs(name, row, facts["reports"]),
            *_of_changes(name, row, facts["reports"]),
        ]
        for name, row in facts["systems"].items()
        if name != ORIGINAL
    }
    return {"fit": not reasons, "reasons": reasons, "precisions": own, "facts": facts}


def _reason(kind: str, sentence: str, **numbers: Any) -> Reason:
    return {"kind": kind, "sentence": sentence, "numbers": numbers}


def _of_run(facts: Facts) -> Iterator[Reason]:
    """The reasons of the run, what is most wrong first."""
    reports, original = facts["reports"], facts["systems"][ORIGINAL]
    references = list(_of_references(facts["references"], reports))
    outputs = list(_of_outputs("the original", original, reports))
    yield from references
    yield from outputs
    # Texts that the annotator cannot read say nothing of the model.
    if not references:
        yield from _of_baselines(facts)
    yield from _of_score(facts)
    yield from _of_size(reports, facts["patients"], facts["most_reports"])
    if not unread([*references, *outputs]):
        yield from _of_findings(facts)


def unread(reasons: Sequence[Facts]) -> bool:
    """Whether, for one of these reasons, nothing is known of the findings in the texts."""
    return any(reason["kind"] in UNREAD for reason in reasons)


def _of_references(row: Facts, reports: int) -> Iterator[Reason]:
    if row["known_words"] < ENGLISH:
        yield _not_english("the references", row)
    elif not row["english"]:
        yield _reason(
            "language",
            f"{row['foreign']:,} of {row['judged']:,} references are not in English, and the "
            "annotator reads English alone.",
            foreign=row["foreign"],
            judged=row["judged"],
        )
    if row["blind"] > BLIND_REFERENCES * reports:
        yield _reason(
            "nothing seen in the references",
            f"in {row['blind']:,} of {reports:,} references the annotator finds nothing that could "
            "be compared.",
            blind=row["blind"],
            reports=reports,
        )


def _not_english(whose: str, row: Facts) -> Reason:
    return _reason(
        "language",
        f"{100 * row['known_words']:.0f} % of the words in {whose} are known English words, and "
        "the annotator reads English alone.",
        known_words=row["known_words"],
    )


def _of_checkpoint(name: str, broken: Sequence[Facts] | None) -> Iterator[Reason]:
    """A checkpoint whose weights are not the original's, rounded: nothing follows of quantizing."""
    if broken:
        others = len({each["layer"] for each in broken}) - 1
        more = f" and {counted(others, 'other part')}" if others else ""
        yield _reason(
            BROKEN,
            f"{name} is broken: {broken[0]['layer']}{more} of its checkpoint cannot have been made "
            "of the original.",
            layer=broken[0]["layer"],
            others=others,
        )


def _of_outputs(name: str, row: Facts, reports: int) -> Iterator[Reason]:
    """What is wrong with one system's outputs, so that it cannot be called good."""
    if row["known_words"] < ENGLISH:
        yield _not_english(f"{_of(name)} outputs", row)
    for kind, count, most, sentence in (
        ("nothing seen in the outputs", row["blind"], BLIND_OUTPUTS, "the annotator finds nothing"),
        ("degenerate outputs", row["faulty"], DEGENERATE, "the text is empty or repeats itself"),
        ("outputs cut off", row["cut_off"], CUT_OFF, "the text is cut off at the limit of tokens"),
    ):
        if count > most * reports:
            yield _reason(
                kind,
                f"in {count:,} of {reports:,} outputs of {name} {sentence}.",
                count=count,
                reports=reports,
            )
    others, known = reports - row["same"], reports - row["same_references"]
    if row["same"] > SAME * reports and 2 * others < known:
        yield _reason(
            "the same output",
            f"{name} writes one and the same text for {row['same']:,} of {reports:,} reports.",
            count=row["same"],
            reports=reports,
        )


def _of(name: str) -> str:
    return "the original's" if name == "the original" else f"{name}'s"


def _of_baselines(facts: Facts) -> Iterator[Reason]:
    """The original's score being no better than what needs no model."""
    scores = facts["scores"]
    original = scores[ORIGINAL]
    known = [name for name in BASELINES if name in scores]
    above = {name: scores[name] for name in known if scores[name] >= original}
    if above:
        told = NEAREST if NEAREST in above else max(above, key=lambda name: above[name])
        few = "a baseline" if len(above) == 1 else "two baselines"
        yield _reason(
            "no better than a baseline",
            f"this model is no better than {'any baseline' if len(above) == len(known) else few}, "
            f"scoring {points(original)} where {HANDED_IN[told]} scores {points(scores[told])}.",
            original=original,
            baselines=above,
        )


def _of_score(facts: Facts) -> Iterator[Reason]:
    """The original's score at the floor."""
    original, margin = facts["scores"][ORIGINAL], facts["margin"]
    if original <= margin:
        yield _reason(
            "scores at the floor",
            f"the original scores {points(original)}, and losing {points(margin)} would count as "
            "no loss.",
            original=original,
            margin=margin,
        )
    elif facts["at_floor"] > AT_FLOOR * facts["reports"]:
        yield _reason(
            "scores at the floor",
            f"in {facts['at_floor']:,} of {facts['reports']:,} reports the original scores 0 F1 "
            "points, so that nothing can be lost there.",
            at_floor=facts["at_floor"],
            reports=facts["reports"],
        )


def _of_size(reports: int, patients: int | None, most: int | None) -> Iterator[Reason]:
    if reports < FEWEST_REPORTS:
        yield _reason(
            "few reports",
            f"{reports:,} reports are too few: an answer takes at least {FEWEST_REPORTS} reports.",
            reports=reports,
        )
    if patients is not None and patients < FEWEST_PATIENTS:
        yield _reason(
            "few patients",
            f"{reports:,} reports come from {counted(patients, 'patient')}: an answer takes at "
            f"least {FEWEST_PATIENTS} patients.",
            reports=reports,
            patients=patients,
        )
    elif most is not None and most > MOST_OF_ONE * reports:
        yield _reason(
            "one patient",
            f"{most:,} of {reports:,} reports come from one patient, from whom hardly anything "
            "follows for other patients.",
            reports=reports,
            most_reports=most,
        )


def _of_findings(facts: Facts) -> Iterator[Reason]:
    """Whether enough findings are stated for one to be lost."""
    reports, known = facts["reports"], facts["references"]["stated"]
    stated = facts["systems"][ORIGINAL]["stated"]
    if known < FEWEST_STATED:
        yield _reason(
            "few findings",
            f"{known:,} of {reports:,} references state a finding, definite or possible, so that "
            "hardly any can be lost.",
            stated=known,
            reports=reports,
        )
    elif stated < max(FEWEST_STATED, FEWEST_WRITTEN * known):
        yield _reason(
            "few findings written",
            f"the original states a finding, definite or possible, in {stated:,} of {reports:,} "
            f"reports, the radiologists in {known:,} reports.",
            stated=stated,
            reports=reports,
            references=known,
        )


def _of_changes(name: str, row: Facts, reports: int) -> Iterator[Reason]:
    """Whether the score can see that a precision writes something else, and loses findings."""
    lost, stated = row["losing"], row["losing_of"]
    if lost >= FEWEST_LOST and lost > LOST * stated:
        yield _reason(
            "findings lost",
            f"{name} loses or denies definite findings in {lost:,} of the {stated:,} reports where "
            "the original states any.",
            lost=lost,
            stated=stated,
        )
    written, moved = row["other_outputs"], row["other_scores"]
    if written > OTHER_OUTPUTS * reports and moved < OTHER_SCORES * written:
        yield _reason(
            "differences not seen",
            f"{name} writes {written:,} of {reports:,} reports otherwise, and the score differs in "
            f"{counted(moved, 'report')}: F1 hardly sees the change.",
            outputs=written,
            scores=moved,
            reports=reports,
        )


# ------------------------------------------------------------------------------------- counting


def facts_of(run: Run, quality: Mapping[str, Any]) -> dict[str, Any]:
    """Count what `fitness` judges by. quality: what the summary has of means and differences."""
    primary = quality["settings"]["primary"]
    references = run.reports["reference"].tolist()
    same = _most_frequent(references)
    rows = quality["differences"][primary]
    losing = {name: row["losing"] for name, row in quality["changes"].items()}
    return {
        "reports": len(references),
        "patients": quality["patients"] and len(set(run.patients or [])),
        "most_reports": quality["patients"] and quality["patients"]["most_reports"],
        "margin": quality["margin"],
        "at_floor": int((run.scores[ORIGINAL][primary] <= 0).sum()),
        "scores": {
            name: quality["systems"][name][primary]
            for name in (ORIGINAL, *baselines_with_text(run.config["task"]["inputs"]))
        },
        "references": {
            "blind": _blind(run, "reference"),
            "stated": _stating(run, ORIGINAL, REFERENCES),
            **_language(language_of(references)),
        },
        "systems": {
            name: {
                **_counts(run, name),
                "broken": _broken(run, name),
                "same_references": same,
                "other_outputs": quality["changes"][name]["changed"]["reports"]
                if name != ORIGINAL
                else 0,
                "other_scores": rows[name]["changed"] if name != ORIGINAL else 0,
                "losing": losing[name]["reports"] if name != ORIGINAL else 0,
                "losing_of": losing[name]["of"] if name != ORIGINAL else 0,
            }
            for name in run.precisions
        },
    }


def _broken(run: Run, name: str) -> list[dict[str, Any]]:
    """What verification found to be out of bounds in a precision's checkpoint."""
    record = run.quantization.get(run.checkpoint(name), {})
    return list((record.get("verification") or {}).get("broken", []))


def _counts(run: Run, name: str) -> dict[str, Any]:
    outputs = run.generations[name]["output"].tolist()
    return {
        "blind": _blind(run, name),
        "stated": _stating(run, name, "statuses"),
        "faulty": int(run.has(name, "flags", lambda row: not FAULTS.isdisjoint(row)).sum()),
        "cut_off": int(run.has(name, "flags", lambda row: "cut off" in row).sum()),
        "same": _most_frequent(outputs),
        **_language(language_of(outputs)),
    }


def _blind(run: Run, name: str) -> int:
    """In how many of the written reports the annotator found no entity."""
    notes = run.annotations[name]
    return sum(notes.without_entities(report) for report in run.reports["id"].tolist())


def _stating(run: Run, name: str, column: str) -> int:
    return int(run.has(name, column, _states).sum())


def _states(statuses: Mapping[str, str]) -> bool:
    return any(status in MENTIONED for status in statuses.values())


def _language(found: Language) -> dict[str, Any]:
    return {
        "english": found.english,
        "known_words": found.share,
        "foreign": len(found.foreign),
        "judged": found.judged,
    }


def _most_frequent(texts: Sequence[str]) -> int:
    """How many texts are the same, capitals, marks and numbers aside."""
    plain = Counter(" ".join(re.findall(r"[^\W\d_]+", text.lower())) for text in texts)
    return max(plain.values())
