"""The report's later sections: data, quantization, reproduction."""

from collections.abc import Mapping
from typing import Any

import yaml

from radquant.model_files import GGUF
from radquant.reporting import words
from radquant.reporting.formatting import (
    DASH,
    bullets,
    escape,
    fold,
    number,
    prose,
    size,
    table,
    wide_table,
    without_absent,
)
from radquant.reporting.inputs import BURNED_IN, pictured
from radquant.reporting.leak import leak_warning
from radquant.reporting.self_checks import in_words, self_checks
from radquant.settings.recipe import WHOLE_ROW, known_poor
from radquant.settings.run import ORIGINAL

Summary = Mapping[str, Any]
REPRODUCE = (
    "snakemake --snakefile RADQUANT/Snakefile --cores 1 --configfile results/config.json "
    "-- results/report.md"
)
WITH_SCALES = (
    " Bits of a GGUF file without a recipe are what a weight takes with its scales; all others are "
    "those of a number alone."
)


def data_section(summary: Summary) -> str:
    cleaning, calibration = summary["cleaning"], summary["calibration"]
    rows = [
        [escape(str(step["step"])), f"{step['removed']:,}", f"{step['left']:,}"]
        for step in cleaning["steps"]
    ]
    sentences = [
        f"{cleaning['train']:,} reports are for training (calibration, examples) and "
        f"{cleaning['eval']:,} were evaluated (split {escape(cleaning['split'])}, by "
        f"{escape(cleaning['unit'])}); data/rejected.csv tells why each of the others was dropped."
    ]
    quality = summary["quality"]
    if quality["references"] != quality["reports"]:
        sentences.append(
            f"Of these, the first {quality['reports']:,} by draw were written and scored; the "
            f"likelihood is that of all {quality['references']:,} references."
        )
    if warning := leak_warning(summary["config"]):
        sentences.append(f"**{escape(warning)}**")
    if ways := cleaning.get("images"):
        counts = (f"{way['images']:,} ({', '.join(way['steps'])})" for way in ways)
        sentences.append(
            f"Images were made what a model is shown by these steps: {escape('; '.join(counts))}; "
            "data/cleaning.json names the files of each."
        )
    if left := cleaning.get("reading", {}).get("left out", {}).get("images"):
        counts = (f"{count:,} {which}" for which, count in left.items())
        sentences.append(f"Of the corpus were left out: {escape(', '.join(counts))}.")
    if pictured(summary["config"]):
        sentences.append(f"**report.html has small copies of the images: {BURNED_IN}.**")
    if calibration is not None:
        sentences.append(_calibrated_on(calibration))
    sentences.append(words.examples(summary["performance"]["systems"][ORIGINAL]["shards"]))
    return "\n\n".join(["## Data", table(["step", "removed", "left"], rows), prose(*sentences)])


def _calibrated_on(calibration: Mapping[str, Any]) -> str:
    source = calibration["source"]
    texts = {
        "corpus": "training texts",
        "table": f"texts from {escape(source.get('path', ''))}",
        "hub": f"texts from {escape(source.get('id', ''))} ({escape(source.get('file', ''))})",
    }[source["kind"]]
    packed = f", packed into {calibration['samples']:,} sequences" if calibration["packed"] else ""
    return (
        f"Quantization was calibrated on {calibration['texts']:,} {texts}{packed}, "
        f"{calibration['tokens']:,} tokens."
    )


def quantization_section(summary: Summary) -> str:
    records = summary["quantization"]
    if not records:
        return ""
    kinds = sorted({kind for record in records.values() for kind in record["errors"]})
    header = [
        *("checkpoint", "method", "bits", "group", "zero point"),
        *("transform", "fitted to activations of", "stored prefix", "layers"),
        *(kind.replace("_", " ") for kind in kinds),
        *("wall", "CPU", "peak memory"),
    ]
    rows, notes = [], []
    for name, record in records.items():
        recipe, stored, errors = record["recipe"], words.stored(record), record["errors"]
        rows.append(
            [
                escape(name),
                escape(words.method(record)),
                words.bits(record),
                _group(stored.get("group_size")),
                in_words(stored["zero_point"]) if "zero_point" in stored else DASH,
                words.transform(recipe),
                escape(words.activations((recipe or {}).get("activations"))),
                _tokens(len(record["prefix"])),
                str(record["layers"]),
                *(_error(errors.get(kind)) for kind in kinds),
                *_costs(summary["performance"]["quantization"][name], record["source"]),
            ]
        )
        worst = ", ".join(
            f"{kind.replace('_', ' ')} {error['worst_layer']}" for kind, error in errors.items()
        )
        if given := words.source(record):
            notes.append(f"{escape(name)}: given, from {escape(given)}.")
        caveat = (record["tool"] or {}).get("caveat")
        if worst:
            notes.append(f"{escape(name)}: largest {escape(worst)}.")
        notes += [f"{escape(name)}: {escape(note)}" for note in record["notes"]]
        notes += [f"**{escape(name)}: {escape(caveat)}.**"] if caveat else []
        if recipe and (caution := known_poor(recipe)):
            notes.append(f"**{escape(name)}: {escape(caution)}.**")
        if mixed := record.get("bits"):
            which = ". ".join(map(escape, mixed["which"]))
            notes.append(
                f"{escape(name)}: {mixed['average']:.3g} bits a weight on average, more where "
                f"rounding moves the model most. {which}."
            )
    lead = prose(
        "Errors are relative to the norm of the layer's weights, or of its outputs on the "
        "calibration texts: median of the layers, and the largest."
        + (WITH_SCALES if any(map(_is_gguf_of_others, summary["quantization"].values())) else "")
    )
    shown = wide_table(*without_absent(header, rows), left=2)
    parts = ["## Quantization", shown, lead, *filter(None, [bullets(*notes)])]
    parts += self_checks(records)
    return "\n\n".join([*parts, "How each precision computes:", _layer_table(summary)])


def _is_gguf_of_others(record: Mapping[str, Any]) -> bool:
    return record["recipe"] is None and record["format"] == GGUF


def _group(size: int | None) -> str:
    if size is None:
        return DASH
    return "row" if size == WHOLE_ROW else str(size)


def _costs(cost: Mapping[str, Any], source: Mapping[str, Any] | None) -> list[str]:
    """Wall, CPU and memory of quantizing; what it took to make a given checkpoint is not known."""
    if source is not None:
        return [DASH, DASH, DASH]
    return [
        f"{cost['wall_seconds']:,.0f} s",
        f"{cost['cpu_seconds']:,.0f} s",
        size(cost["peak_process_bytes"]),
    ]


def _error(error: Mapping[str, Any] | None) -> str:
    return DASH if error is None else f"{number(error['median'])} ({number(error['max'])})"


def _tokens(count: int) -> str:
    return f"{count} token{'s' if count > 1 else ''}" if count else DASH


def _layer_table(summary: Summary) -> str:
    header = [
        *("precision", "checkpoint", "transform", "weight layers", "activation layers"),
        *("activations", "KV cache", "head", "stored prefix", "kernel"),
    ]
    rows = []
    for name, row in summary["performance"]["systems"].items():
        checkpoint = summary["config"]["precisions"][name]["checkpoint"]
        record = summary["quantization"].get(checkpoint)
        rows.append(
            [
                escape(name) + (" (simulated)" if row["simulated"] else ""),
                escape(checkpoint),
                DASH if record is None else words.transform(record["recipe"]),
                str(row["layers_quantized"]),
                str(row["activation_layers"]),
                escape(words.activations(row["activations"])),
                words.kv_cache(row["kv_cache"]),
                words.lm_head(row["lm_head"]),
                _tokens(row["stored_prefix_tokens"]),
                words.kernel(row),
            ]
        )
    return wide_table(*without_absent(header, rows), left=2)


def reproduction_section(summary: Summary) -> str:
    config, machine = summary["config"], summary["machine"]
    note = summary["source"].get("note")
    versions = ", ".join(f"{name} {value}" for name, value in sorted(machine["versions"].items()))
    facts = [
        f"Seed {config['seed']}; {machine['dtype']}, {machine['threads']} thread(s) a job, batches "
        f"of {machine['batch_size']}, at most {machine['max_new_tokens']} tokens an output, engine "
        f"{' and '.join(machine['engines'])}.",
        f"Outputs written on {escape('; '.join(machine['generated_on']))}. This report was made on "
        f"{escape(machine['cpu'])}, {machine['logical_cores']} logical cores, "
        f"{size(machine['memory_bytes'])} memory, {machine['system']}.",
        f"Versions: {escape(versions)}.",
        f"Annotator: {escape(summary['quality']['annotator'])}; definitions of F1: "
        f"{escape(summary['quality']['rewards'])}.",
    ]
    if note:
        facts.append(f"Weights: {escape(str(note))}")
    facts.append(
        f"Code: {_code(summary['provenance']['code'])}. provenance.json holds every hash below, "
        "those of the code's files and of the results, and the versions of all packages. "
        "scripts/compare_runs.py tells two runs apart by it."
    )
    dumped = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    return "\n\n".join(
        [
            "## How to reproduce",
            f"```sh\n{REPRODUCE}\n```",
            prose(
                "Run this in the folder that holds the run's `results`. RADQUANT stands for the "
                "folder of the program's code. If that is the same folder, leave out `RADQUANT/`."
            ),
            bullets(*facts),
            *fold(
                "sha256 of all that the run was made from",
                table(["what", "sha256"], _hashes(summary), left=2),
            ),
            *fold("Configuration, every default filled in", f"```yaml\n{dumped}```"),
        ]
    )


def _code(code: Mapping[str, Any]) -> str:
    if code["commit"] is None:
        return "sha256 of its files below, from no git checkout"
    edited = ", edited after it" if code["changed"] else ""
    return f"git commit {code['commit']}{edited}"


def _hashes(summary: Summary) -> list[list[str]]:
    """[what, sha256] of all that the run was made from."""
    record, calibration = summary["provenance"], summary["calibration"]
    rows = {
        "configuration": record["config"]["sha256"],
        "code": record["code"]["sha256"],
        **record["data"],
        "generation prompt": record["prompts"]["generation"],
        "rendered prompts": record["prompts"]["rendered"],
    }
    if calibration is not None:
        texts = calibration["source"].get("sha256")  # those of the corpus come from data/train.csv
        name = "calibration texts" if texts else "calibration prompt"
        rows[name] = texts or calibration["prompt_hash"]
    for checkpoint, files in record["checkpoints"].items():
        folder = "models" if checkpoint == ORIGINAL else "checkpoints"
        rows |= {f"{folder}/{checkpoint}/{name}": digest for name, digest in files.items()}
    return [[f"`{name}`", digest] for name, digest in rows.items()]
