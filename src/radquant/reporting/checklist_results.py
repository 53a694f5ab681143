"""What a run knows of the items of reporting checklists: measures, tests and results."""

from collections.abc import Iterator, Mapping
from typing import Any

from radquant.reporting.checklist_facts import Answer, Summary, quantized
from radquant.reporting.formatting import change, escape, number, probability
from radquant.reporting.leak import leak_warning
from radquant.scoring.metrics.columns import averaged, primary
from radquant.settings.run import ORIGINAL


def measure_answers(summary: Summary) -> dict[str, Answer]:
    """Answers on reference, annotator, metrics and tests."""
    config, quality = summary["config"], summary["quality"]
    settings, target = quality["settings"], config["task"]["target"]
    labels = ", ".join(dict.fromkeys(escape(column.label) for column in averaged()))
    return {
        "reference": Answer(
            f"The radiologist's own {target} of the same report is the reference.",
            "say who wrote the reports, and when",
        ),
        "reference_reason": Answer("", "say why the radiologist's text is the reference"),
        "annotator": Answer(
            f"No person labeled the texts. Findings are marked by {escape(quality['annotator'])}; "
            f"definitions of F1 by {escape(quality['rewards'])}."
        ),
        "annotator_agreement": Answer(*_annotator_agreement(quality)),
        "metrics": Answer(f"{labels}; perplexity of the references; clinical changes and faults."),
        "relevance": Answer("", "say what these metrics mean for the intended use"),
        "outcome": Answer(
            f"Primary: {escape(primary().label)} of {escape(quality['measure'])} against the "
            "reference. Model and annotator ran locally, from files with recorded hashes."
        ),
        "comparators": Answer(
            "Every precision is compared with the original model on the same reports. Three "
            "baselines need no model: the input copied, one constant text, and the text of the "
            "training report whose input is nearest.",
            "compare with published models or with people",
        ),
        "readers": _readers(summary),
        "statistics": Answer(
            f"Paired differences by {'patient' if quality.get('patients') else 'report'}, "
            f"{settings['resamples']:,} resamples, "
            f"{100 * settings['confidence']:g} % intervals, sign-flip tests, Holm's correction "
            "over the precisions. docs/report.md defines each."
        ),
        "margin": _margin(summary),
        "sample_size": Answer(
            f"{quality['reports']:,} reports were compared. {_detectable(quality)}",
            "say how the number of reports was chosen before the run",
        ),
        "robustness": Answer(
            f"{len(quality['precisions'])} precisions on the same reports and prompts."
            + _subgroups(quality),
            "say whether other prompts, seeds or corpora were tried",
        ),
        "explainability": Answer("Not applicable: no method of explanation is used."),
    }


def _annotator_agreement(quality: Mapping[str, Any]) -> tuple[str, str]:
    found = quality["annotator_agreement"]
    missing = "compare the annotator with people on a sample of these reports"
    if not found:
        return "One program labels every text once. Its agreement is not known.", missing
    told = ", ".join(
        f"{name} {number(value['value'])} ({number(value['low'])} to {number(value['high'])})"
        for name, value in found["agreement"].items()
    )
    return (
        f"One program labels every text once. Against RadGraph-XL on {found['reports']:,} reports "
        f"of {escape(found['corpus'])}: {escape(told)}.",
        missing,
    )


def _subgroups(quality: Mapping[str, Any]) -> str:
    divisions = quality.get("subgroups")
    return f" Subgroups, as exploration: {', '.join(map(escape, divisions))}." if divisions else ""


def _margin(summary: Summary) -> Answer:
    settings = summary["config"]["statistics"]
    reason = (settings.get("margin_reason") or "").strip()
    of = " of the original's own score, as a share" * (settings.get("margin_of") == "original")
    facts = f"Margin {number(settings['margin'])}{of}"
    if not reason:
        return Answer(f"{facts}.", "give the reason of the margin")
    return Answer(f"{facts}: {escape(reason)}")


def _detectable(quality: Mapping[str, Any]) -> str:
    rows = quality["differences"][primary().name]
    told = [
        f"{escape(name)} {number(row['detectable'])}"
        for name, row in rows.items()
        if row.get("detectable") is not None
    ]
    if not told:
        return "No smallest detectable difference is known."
    power = f"{100 * quality['settings']['power']:g} %"
    return f"Smallest difference that is found with {power} power: {', '.join(told)}."


def _readers(summary: Summary) -> Answer:
    record = summary.get("readers")
    if not record:
        return Answer(
            "No person judged the outputs of this run.", "have readers judge a sample of them"
        )
    background = (summary["config"].get("study", {}).get("reader_background") or "").strip()
    alpha = record["agreement"]["alpha"].get("acceptability", {}).get("value")
    people = "One reader" if len(record["readers"]) == 1 else f"{len(record['readers'])} readers"
    facts = (
        f"{people} rated outputs of {record['reports']:,} reports, blinded to the precision. "
        f"Krippendorff's alpha of acceptability: {number(alpha)}."
    )
    if not background:
        return Answer(facts, "say who the readers were (config key study: reader_background)")
    return Answer(f"{facts} {escape(background)}")


def result_answers(summary: Summary) -> dict[str, Answer]:
    """Answers on what was found, and what it is worth."""
    quality, cleaning = summary["quality"], summary["cleaning"]
    return {
        "analysed": Answer(_analysed(quality, cleaning)),
        "performance": Answer(" ".join([*_unfit(quality), _performance(quality)])),
        "updating": Answer("Each quantized version is an updated model: see performance."),
        "failures": Answer(
            f"Findings lost or denied against the original's output: {_changed(quality)}. "
            "report.md has each kind, the faults of outputs, and examples."
        ),
        "interpretation": Answer(
            f"The run's verdict: {escape(summary['verdict'][0])}",
            "interpret it, with fairness between groups of patients",
        ),
        "limitations": Answer(
            " ".join(_limitations(summary)), "add what limits the study beyond the run"
        ),
        "internal": Answer(
            "The evaluated reports are held-out reports of the corpus that examples come from."
        ),
        "external": Answer("", "test on another corpus, or say why not"),
        "poor_input": Answer(
            "The run drops reports whose input is missing or too short.",
            "say how such input is to be handled in use",
        ),
        "interaction": Answer("", "say what users have to do, and what they must know"),
        "next_steps": Answer("", "say what should be studied next"),
    }


def _analysed(quality: Mapping[str, Any], cleaning: Mapping[str, Any]) -> str:
    groups = cleaning.get("eval_groups")
    patients = f" of {groups:,} patients" if cleaning["unit"] == "patient" and groups else ""
    found = quality["findings"].get("by_finding", {})
    events = sum(row["references"] for row in found.values())
    return (
        f"Evaluation split: {cleaning['eval']:,} reports{patients}. Scores: "
        f"{quality['reports']:,} reports. Likelihood: {quality['references']:,} references. "
        f"Events: {events:,} findings that a reference has definitely present."
    )


def _performance(quality: Mapping[str, Any]) -> str:
    name, differences = primary().name, quality["differences"][primary().name]
    told = [f"original {number(quality['systems'][ORIGINAL][name])}"]
    for precision, row in differences.items():
        ends = row.get("interval")
        shown = f", {change(ends['low'])} to {change(ends['high'])}" if ends else ""
        p = f", p {probability(row['p_holm'])}" if "p_holm" in row else ""
        told.append(f"{escape(precision)} {change(row['mean'])}{shown}{p}")
    return f"{escape(primary().label)}, mean and differences from it: {'; '.join(told)}."


def _unfit(quality: Mapping[str, Any]) -> Iterator[str]:
    """Why the run cannot answer, before any number of it."""
    fitness = quality.get("fitness") or {"fit": True}
    if not fitness["fit"]:
        yield "The run is unfit to answer: its differences show neither loss nor equality."
        for reason in fitness["reasons"]:
            yield escape(reason["sentence"][:1].upper() + reason["sentence"][1:])


def _changed(quality: Mapping[str, Any]) -> str:
    rows = quality["changes"]
    told = [f"{escape(name)} {_lost(rows[name])}" for name in rows]
    return "; ".join(told) or "no precision is compared"


def _lost(row: Mapping[str, Any]) -> int:
    kinds = row["kinds"]
    return sum(int(kinds[kind]["changes"]) for kind in ("lost", "negated"))


def _limitations(summary: Summary) -> Iterator[str]:
    quality = summary["quality"]
    yield f"{quality['reports']:,} reports of one corpus, one prompt and greedy decoding."
    yield "Scores are against one radiologist's text; other texts may be as right."
    if not summary.get("readers"):
        yield "No person judged the outputs."
    yield from _unfit(quality)
    if any(row["simulated"] for row in summary["performance"]["systems"].values()):
        yield "The speed of simulated precisions is not measured."
    if warning := leak_warning(summary["config"]):
        yield escape(warning)
    if not quantized(summary):
        yield "No quantized version was compared."
