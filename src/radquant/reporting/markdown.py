"""report.md, written from the summary; only the texts of the examples come from elsewhere."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from radquant.reporting.changes_section import changes_section, examples_section
from radquant.reporting.collect import BASELINES, ORIGINAL, annotator_of
from radquant.reporting.figures import figures
from radquant.reporting.formatting import (
    DASH,
    bullets,
    change,
    coverage,
    escape,
    interval,
    number,
    perplexity,
    probability,
    prose,
    ratio,
    share,
    size,
    table,
)
from radquant.reporting.method_sections import (
    data_section,
    quantization_section,
    reproduction_section,
)
from radquant.scoring.metrics.columns import PRIMARY, metrics, of_table, primary, tested
from radquant.scoring.metrics.kind import Column, Metric

Summary = Mapping[str, Any]


def render(summary: Summary, texts: Mapping[tuple[str, str], str], figures_path: str) -> str:
    """Return report.md.

    `texts` holds (system, id) → text for every example, system 'reference' among them;
    `figures_path` is the figures' directory as seen from report.md.
    """
    parts = [
        _head(summary),
        _quality(summary),
        _costs(summary),
        _differences(summary),
        _figures(summary, figures_path),
        changes_section(summary),
        examples_section(summary, texts),
        data_section(summary),
        quantization_section(summary),
        reproduction_section(summary),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(summary: Summary) -> str:
    config, quality = summary["config"], summary["quality"]
    task = config["task"]
    sources = [*task["inputs"], *(["images"] if task.get("image_column") else [])]
    title = f"# What quantizing {escape(config['model']['name'])} costs and saves"
    about = prose(
        f"{escape(config['model']['name'])} wrote the {task['target']} from the "
        f"{' and '.join(sources)} of {quality['reports']} reports of the corpus "
        f"{escape(config['corpus']['name'])}, once in each precision and greedily.",
        *(
            [f"The references' likelihood is over {quality['references']} reports."]
            if quality["references"] != quality["reports"]
            else []
        ),
        "report.html holds the same and an explorer of every report; it holds report text: share "
        "it as you would the reports.",
    )
    answer, *reasons = map(escape, summary["verdict"])
    return "\n\n".join([title, about, "## Verdict", f"**{answer}**", *reasons])


def _quality(summary: Summary) -> str:
    quality = summary["quality"]
    shown = [metric for metric in metrics() if not metric.ABOUT.section and of_table(metric)]
    columns = [column for metric in shown for column in of_table(metric)]
    rows = [
        [*cells, perplexity(row["perplexity"])]
        for cells, row in zip(_rows(quality, columns), quality["systems"].values(), strict=True)
    ]
    header = ["system", *(column.heading for column in columns), "perplexity"]
    original = quality["systems"][ORIGINAL]
    inputs = summary["config"]["task"]["inputs"]
    copied = "repeats the input" if inputs else "is empty, for there is no text to repeat"
    first, *others = (_note(metric, quality) for metric in sorted(shown, key=_not_primary))
    ppl = f"Perplexity is that of the references{_of_all(quality)}: less is better."
    notes = [
        first,
        " ".join([*filter(None, others), ppl]),
        f"{BASELINES[0]} {copied}; {BASELINES[1]} gives every report the one training "
        "text that scores best there. A model is of use only above both.",
    ]
    caveat = annotator_of(summary["config"]).CAVEAT
    if caveat:
        notes.append(f"{caveat} {_agreement(quality)}")
    above = [name for name in BASELINES if quality["systems"][name][PRIMARY] >= original[PRIMARY]]
    if above:
        listed = " and ".join(
            f"{name} ({number(quality['systems'][name][PRIMARY])})" for name in above
        )
        notes.append(
            f"**{listed} {'scores' if len(above) == 1 else 'score'} at least as high without any "
            "model as the original model does "
            f"({number(original[PRIMARY])}): where even the original is of little use, a small "
            "difference between precisions says little about a model that is.**"
        )
    parts = [f"## Quality: {quality['measure']}", table(header, rows), bullets(*notes)]
    return "\n\n".join([*parts, *_sections(quality)])


def _rows(quality: Summary, columns: Sequence[Column]) -> list[list[str]]:
    """The name and the numbers of each system."""
    return [
        [escape(name), *(_cell(column, row[column.name]) for column in columns)]
        for name, row in quality["systems"].items()
    ]


def _cell(column: Column, value: float) -> str:
    if column.kind is bool:
        return share(value)
    return number(value, 1 if column.kind is int else 3)


def _not_primary(metric: Metric) -> bool:
    return primary() not in metric.ABOUT.columns


def _note(metric: Metric, quality: Summary) -> str:
    """What is said of a metric below its table: its own note, and where less is better."""
    known = {"measure": quality["measure"], "annotator": escape(quality["annotator"])}
    note = metric.ABOUT.note.format(**known, citation=metric.ABOUT.citation)
    less = " and ".join(column.label for column in of_table(metric) if column.better == "less")
    return " ".join(filter(None, [note, f"Of {less}, less is better." if less else ""]))


def _of_all(quality: Summary) -> str:
    """Say of how many reports the likelihood is, where that are more than were written."""
    more = quality["references"] != quality["reports"]
    return f" of all {quality['references']} evaluation reports" if more else ""


def _sections(quality: Summary) -> Iterator[str]:
    """The metrics that have a table of their own."""
    for metric in metrics():
        section, columns = metric.ABOUT.section, of_table(metric)
        if section and columns:
            header = ["system", *(column.heading for column in columns)]
            note = _note(metric, quality)
            # The lexicon's scores are not RadGraph's by any definition.
            yield f"### {section.heading}: {quality['measure']}"
            yield prose(section.lead)
            yield table(header, _rows(quality, columns))
            yield from [bullets(note)] if note else []


def _agreement(quality: Mapping[str, Any]) -> str:
    record = quality["annotator_agreement"]
    if record is None:
        return "How well these rules agree with RadGraph-XL has not been measured."

    def cell(name: str) -> str:
        figures = record["agreement"][name]
        return f"{number(figures['value'])} ({number(figures['low'])} to {number(figures['high'])})"

    return (
        f"On {record['reports']} reports of {record['corpus']}, which its rules were not tuned on, "
        f"it agrees with RadGraph-XL in findings with an F1 of {cell('finding F1')}, in findings "
        f"and their status with {cell('finding + status F1')}; for what is uncertain alone it is "
        f"{cell('uncertain F1')}, the weak spot ({share(record['confidence'])} intervals)."
    )


def _costs(summary: Summary) -> str:
    systems = summary["performance"]["systems"]
    device = any(row["peak_device_bytes"] is not None for row in systems.values())
    header = [
        *(
            "precision",
            "tokens/s",
            "ratio",
            "decode tokens/s",
            "ratio",
            "CPU s/token",
            "latency, s",
            "peak memory",
        ),
        *(["device memory"] if device else []),
        *("weights in memory", "ratio", "on disk", "ratio"),
    ]
    rows = [
        [
            escape(name) + (" (simulated)" if row["simulated"] else ""),
            number(row["tokens_per_second"], 1),
            ratio(row["ratios"]["tokens_per_second"]) if row["comparable"] else DASH,
            _decode_speed(row),
            _decode_ratio(row),
            number(row["cpu_seconds_per_token"]),
            number(row["batch_seconds_mean"], 1),
            size(row["peak_process_bytes"]),
            *([size(row["peak_device_bytes"])] if device else []),
            size(row["weight_bytes"]),
            ratio(row["ratios"]["weight_bytes"]),
            size(row["disk_bytes"]),
            ratio(row["ratios"]["disk_bytes"]),
        ]
        for name, row in systems.items()
    ]
    return "\n\n".join(
        ["## Size, memory and speed", table(header, rows), bullets(*_cost_notes(summary))]
    )


def _decode_speed(row: Mapping[str, Any]) -> str:
    speed = row["decode_tokens_per_second"]
    return DASH if speed is None else number(speed, 1)


def _decode_ratio(row: Mapping[str, Any]) -> str:
    factor = row["ratios"]["decode_tokens_per_second"]
    return ratio(factor) if row["comparable"] and factor is not None else DASH


def _cost_notes(summary: Summary) -> list[str]:
    systems, machine = summary["performance"]["systems"], summary["machine"]
    notes = [
        "Ratios are to the original: a speed ratio below 1 is slower. The original's weights are "
        f"stored in {' and '.join(summary['stored_dtypes'])}; everything computes in "
        f"{machine['dtype']}. The lean engine holds weights as they are stored, transformers holds "
        "them in that dtype.",
        "Only linear layers are packed: embeddings, a large part of a small model, are not."
        if not any(row["lm_head"] for row in systems.values())
        else "Linear layers are packed, and heads where a precision rounds them, with embeddings "
        "that are the same table.",
        "Speed is output tokens over the seconds of generation, loading excluded and the reading "
        "of the prompts included: whatever writes longer outputs shows more tokens/s. *Decode* "
        "leaves out the prompts and the first token of each answer. Shards may "
        "have run side by side, so it is the speed of a loaded machine; CPU seconds suffer less "
        "from that.",
        "Peak memory is that of the largest process, Python and libraries included.",
        _engines_and_kernels(systems),
    ]
    for name, row in systems.items():
        if row["too_large_batches"]:
            sizes = " and ".join(map(str, row["too_large_batches"]))
            notes.append(
                f"**{escape(name)}: batches of {sizes} did not fit into memory and were written "
                "in smaller parts, which costs speed; its times are not those of the batch size "
                "that was asked for.**"
            )
    if any(row["engine"] != systems[ORIGINAL]["engine"] for row in systems.values()):
        notes.append(
            "Engines differ, as no other could run some precisions: a speed has a ratio only where "
            "the engine is the original's and nothing is simulated."
        )
    if any(row["kernel"] == "reference" for row in systems.values()):
        notes.append(
            "The kernel *reference* unpacks the weights for every use. It saves memory and shows "
            "what the packed weights compute, but not how fast a dedicated kernel would be."
        )
    if any(row["simulated"] for row in systems.values()):
        notes.append(
            "Simulated: activations, or keys and values of the cache, are rounded to their grid "
            f"and used in {machine['dtype']} (fake quantization), at extra cost. What such a "
            "precision writes is meant to be judged; its speed is not, and is never a speed-up, "
            "and a rounded cache is not smaller here."
        )
    if len(machine["generated_on"]) > 1:
        notes.append(
            "**Outputs were written on different machines; their speeds do not compare: "
            f"{escape('; '.join(machine['generated_on']))}.**"
        )
    return notes


def _engines_and_kernels(systems: Mapping[str, Any]) -> str:
    """'Engine and kernel for packed weights: original transformers, none; …'."""
    each = [f"{escape(name)} {row['engine']}, {row['kernel']}" for name, row in systems.items()]
    return f"Engine and kernel for packed weights: {'; '.join(each)}."


def _differences(summary: Summary) -> str:
    quality = summary["quality"]
    settings = quality["settings"]
    parts = ["## Is the difference real?"]
    header = [
        *("level", "precision", "difference", coverage(quality), "p", "Holm p"),
        *("detectable", f"n for ±{number(settings['margin'])}", "equiv. p", "verdict"),
    ]
    rows = []
    for column in tested():
        for name, row in quality["differences"][column.name].items():
            rows.append(
                [
                    column.label,
                    escape(name),
                    change(row["mean"]),
                    interval(row["interval"]),
                    probability(row["p"]),
                    probability(row["p_holm"]),
                    number(row["detectable"]),
                    number(row["pairs_to_settle"], 0),
                    probability(row["equivalence_p_holm"]),
                    row["state"],
                ]
            )
    if rows:
        parts += [
            prose(
                f"Precision minus original, paired over the same {quality['reports']} reports, in "
                f"{quality['measure']}:"
            ),
            table(header, rows, left=2),
            _likelihood_table(quality),
            bullets(*_difference_notes(settings)),
        ]
    parts += ["Original minus baseline, combined level:", _baseline_table(quality)]
    return "\n\n".join(parts)


def _likelihood_table(quality: Summary) -> str:
    header = [
        *(
            "precision",
            "perplexity",
            "nats/token",
            coverage(quality),
            "p",
            "Holm p",
            "detectable",
        ),
    ]
    rows = [
        [
            escape(name),
            perplexity(quality["systems"][name]["perplexity"]),
            change(row["mean"]),
            interval(row["interval"]),
            probability(row["p"]),
            probability(row["p_holm"]),
            number(row["detectable"]),
        ]
        for name, row in quality["likelihood_differences"].items()
    ]
    original = perplexity(quality["systems"][ORIGINAL]["perplexity"])
    lead = prose(
        f"The same for the references' negative log-likelihood{_of_all(quality)}, per report and "
        f"token: above 0 is worse than the original, whose perplexity is {original}:"
    )
    return "\n\n".join([lead, table(header, rows)])


def _difference_notes(settings: Summary) -> list[str]:
    return [
        f"Interval: bootstrap of the mean difference, {settings['resamples']:,} resamples, BCa "
        "unless another method is named, or Student's t where that reaches further. p: two-sided "
        "sign-flip permutation test with as many flips. Holm: corrected for the number of "
        "precisions, level by level.",
        f"Detectable: the smallest true difference that this many reports would show with "
        f"{share(settings['power'])} power, before Holm's correction; n for "
        f"±{number(settings['margin'])}: how many reports would show either a difference of the "
        "margin or, where there is none, equivalence within it.",
        f"Equiv. p, for equivalence within ±{number(settings['margin'])}: two one-sided t tests, "
        "Holm-corrected. *Cannot tell* means neither a difference nor equivalence was shown: it "
        "does not mean that there is none.",
    ]


def _baseline_table(quality: Summary) -> str:
    header = ["baseline", "difference", coverage(quality), "p"]
    rows = [
        [name, change(row["mean"]), interval(row["interval"]), probability(row["p"])]
        for name, row in quality["baseline_differences"].items()
    ]
    return table(header, rows)


def _figures(summary: Summary, path: str) -> str:
    parts = ["## Figures"]
    for name, (_, description) in figures(summary).items():
        parts.append(f"![{description}]({path}/{name}.svg)")
    return "\n\n".join(parts)
