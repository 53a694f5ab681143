"""The section of the report on size, memory and speed."""

from collections.abc import Iterable, Mapping
from typing import Any

from radquant.reporting import words
from radquant.reporting.encoding import encoding_notes
from radquant.reporting.formatting import (
    DASH,
    bullets,
    escape,
    number,
    prose,
    ratio,
    size,
    table,
    wide_table,
)
from radquant.reporting.speed import BUSY, FIGURES, OTHER_ENGINE, SAME, told_apart, why_no_speed
from radquant.settings.precision import DYNAMIC, TENSOR, activations_of
from radquant.settings.run import ORIGINAL
from radquant.settings.speed import LEAST_REPEATS

Summary = Mapping[str, Any]

AGAINST = "against original"
# What is told of speed, in the order of the table, and whether its ratio is.
SPEED_COLUMNS = {
    "seconds_per_report": ("s/report", True),
    "prompt_tokens_per_second": ("prompt tokens/s", True),
    "decode_tokens_per_second": ("decode tokens/s", True),
    "cpu_seconds_per_report": ("CPU s/report", False),
}
assert set(SPEED_COLUMNS) == set(FIGURES)


def cost_section(summary: Summary) -> str:
    performance = summary["performance"]
    parts = ["## Size, memory and speed"]
    if performance["speed"] is None:
        reason = why_no_speed(summary["config"])
        parts.append(
            prose(
                f"No speed was measured, because {escape(str(reason))}. What generation took is no "
                "measure of it: outputs differ in length."
            )
        )
    else:
        parts += [speed_table(performance), bullets(*speed_notes(performance))]
    if told := encoding_notes(performance["encoding"]):
        parts.append(told)
    parts += [
        "Size and memory:",
        size_table(performance["systems"]),
        bullets(*size_notes(summary)),
        "What generation took (a record, no comparison: outputs differ in length):",
        generation_table(performance["systems"]),
        bullets(*generation_notes(summary)),
    ]
    return "\n\n".join(parts)


def cost_notes(summary: Summary) -> list[str]:
    """All notes below the section's tables."""
    timed = [] if summary["performance"]["speed"] is None else speed_notes(summary["performance"])
    return [*timed, *size_notes(summary), *generation_notes(summary)]


def speed_table(performance: Mapping[str, Any]) -> str:
    header = ["precision"]
    for title, compared in SPEED_COLUMNS.values():
        header += [title, AGAINST] if compared else [title]
    systems = performance["systems"]
    rows = []
    for name, row in performance["speed"]["systems"].items():
        cells = [escape(name) + (" (simulated)" if systems[name]["simulated"] else "")]
        busy = row["why_not"] is None and row["seconds_per_report"] is None
        for key, (_, compared) in SPEED_COLUMNS.items():
            cells.append(BUSY if busy and key == "seconds_per_report" else _spread(row[key]))
            if compared:
                own = name == ORIGINAL and row[key] is not None
                cells.append(ratio(1.0) if own else _compared(row["ratios"][key]))
        rows.append(cells)
    return wide_table(header, rows)


def _spread(found: Mapping[str, float] | None) -> str:
    """'0.281 (0.275 to 0.290)'."""
    if found is None:
        return DASH
    middle, low, high = (_significant(found[key]) for key in ("median", "low", "high"))
    return f"{middle} ({low} to {high})"


def _significant(value: float) -> str:
    """Three digits that count, and all of those before the point."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:#.3g}"


def _compared(found: Mapping[str, Any] | None) -> str:
    if found is None or found["state"] == BUSY:
        return DASH
    if not told_apart(found):
        return str(found["state"])
    return f"{ratio(found['median'])} ({ratio(found['low'])} to {ratio(found['high'])})"


def speed_notes(performance: Mapping[str, Any]) -> list[str]:
    speed, systems = performance["speed"], performance["systems"]
    settings, rows = speed["settings"], speed["systems"]
    timed = {name: row for name, row in rows.items() if row["why_not"] is None}
    notes = [
        f"Every precision that was timed read the prompts of the same {settings['reports']} "
        f"reports and wrote exactly {settings['tokens']} tokens for each, in batches of "
        f"{settings['batch_size']}. An end token ended nothing, and loading is not timed.",
        f"All were timed in turn, {settings['repeats']} rounds, in an order that was rotated. A "
        "cell is the median of the rounds, with the least and the most in brackets.",
        "A ratio compares two timings of one round; below 1.00× is slower. If the range of all "
        f"rounds holds 1.00×, no ratio is given, but *{SAME}*.",
        "*Decode* is all tokens behind the first of each report. The tokens with which all prompts "
        "begin are read, and counted, once.",
        *_whole_prompts(timed, systems),
        *_other_engines(timed, systems),
        *_busy_notes(speed, timed),
    ]
    if untimed := [name for name, row in rows.items() if row["why_not"] is not None]:
        reasons = sorted({str(rows[name]["why_not"]) for name in untimed})
        notes.append(
            f"Not timed: {', '.join(map(escape, untimed))} ({escape('; '.join(reasons))})."
        )
    if any(row["why_no_ratio"] == OTHER_ENGINE for row in timed.values()):
        notes.append(
            "Engines differ, as is asked for or as no other could run some precisions: a ratio is "
            "given only where the engine is the original's."
        )
    return notes


def _whole_prompts(timed: Iterable[str], systems: Mapping[str, Any]) -> list[str]:
    names = []
    for name in timed:
        rounding = activations_of(systems[name]["activations"])
        if rounding is not None and (rounding.granularity, rounding.range) == (TENSOR, DYNAMIC):
            names.append(escape(name))
    if not names:
        return []
    return [
        f"{' and '.join(names)}: a scale is that of a whole prompt. So each prompt is read whole, "
        "with the tokens with which all begin, and these are counted each time."
    ]


def _busy_notes(speed: Mapping[str, Any], timed: Mapping[str, Any]) -> list[str]:
    share = f"{100 * speed['busy_share']:.0f} %"
    busy = {name: row["busy_timings"] for name, row in timed.items() if row["busy_timings"]}
    found = []
    if busy:
        listed = ", ".join(
            f"{escape(name)} {count} of {timed[name]['timings']}" for name, count in busy.items()
        )
        found.append(
            f"**The machine was busy**: in some timings threads waited for a core for over {share} "
            f"of the time ({listed}). They are left out; where fewer than {LEAST_REPEATS} others "
            "remain, no speed is given. CPU seconds are of all. `snakemake --forcerun "
            "measure_speed` times again."
        )
    elif not all(row["waiting_known"] for row in timed.values()):
        found.append("Whether threads had to wait for a core is not known on this system.")
    for name, row in timed.items():
        if row["too_large_batches"]:
            sizes = " and ".join(map(str, row["too_large_batches"]))
            found.append(
                f"**{escape(name)}: batches of {sizes} did not fit into memory and were timed in "
                "smaller parts, which costs speed.**"
            )
    return found


def _engines_and_kernels(systems: Mapping[str, Any]) -> str:
    """'Engine and kernel for packed weights: original transformers, none; …'."""
    each = [f"{escape(name)} {row['engine']}, {words.kernel(row)}" for name, row in systems.items()]
    return f"Engine and kernel for packed weights: {'; '.join(each)}."


def _other_engines(timed: Mapping[str, Any], systems: Mapping[str, Any]) -> list[str]:
    """Tell of what was timed in another way than it wrote the reports."""
    keys = ("engine", "kernel")
    other = {
        name: row
        for name, row in timed.items()
        if [row[key] for key in keys] != [systems[name][key] for key in keys]
    }
    if not other:
        return []
    return [f"**Timed otherwise than the reports were written.** {_engines_and_kernels(other)}"]


def size_table(systems: Mapping[str, Any]) -> str:
    device = any(row["peak_device_bytes"] is not None for row in systems.values())
    header = ["precision", "weights in memory", "ratio", "on disk", "ratio", "peak memory", "ratio"]
    rows = []
    for name, row in systems.items():
        cells = [escape(name)]
        for key in ("weight_bytes", "disk_bytes", "peak_process_bytes"):
            cells += [size(row[key]), ratio(row["ratios"][key])]
        rows.append([*cells, *([size(row["peak_device_bytes"])] if device else [])])
    return wide_table([*header, *(["device memory"] if device else [])], rows)


def size_notes(summary: Summary) -> list[str]:
    systems, machine = summary["performance"]["systems"], summary["machine"]
    return [
        f"The original's weights are stored in {' and '.join(summary['stored_dtypes'])}; "
        f"everything computes in {machine['dtype']}. The lean engine holds weights as they are "
        "stored, transformers holds them in that dtype.",
        *_as_values(systems, machine["dtype"]),
        *_larger(systems),
        "Only linear layers are packed: embeddings, a large part of a small model, are not."
        if not any(row["lm_head"] for row in systems.values())
        else "Linear layers are packed, and heads where a precision rounds them, with embeddings "
        "that are the same table.",
        "Peak memory is that of the largest process that wrote, Python and libraries included. A "
        "simulated precision takes more than it would.",
    ]


def _as_values(systems: Mapping[str, Any], dtype: str) -> list[str]:
    """Of formats without a kernel here. dtype: of the computation."""
    names = [escape(name) for name, row in systems.items() if row["value_layers"]]
    if not names:
        return []
    values = "the values that they stand for"
    held = f"exactly {values}" if dtype == "float32" else f"{values}, rounded to {dtype}"
    return [
        f"{' and '.join(names)}: there is no kernel here for how these weights are stored. They "
        f"were computed with as {held}: quality is meant, and memory and speed are not those of "
        "the format."
    ]


def _larger(systems: Mapping[str, Any]) -> list[str]:
    original = systems[ORIGINAL]["disk_bytes"]
    return [
        f"**{escape(name)} takes {size(row['disk_bytes'])} on disk, more than the original's "
        f"{size(original)}: quantizing it saves no space.**"
        for name, row in systems.items()
        if row["disk_bytes"] > original
    ]


def generation_table(systems: Mapping[str, Any]) -> str:
    header = ["precision", "wall s", "CPU s", "output tokens", "s per batch"]
    rows = [
        [
            escape(name) + (" (simulated)" if row["simulated"] else ""),
            number(row["wall_seconds"], 1),
            number(row["cpu_seconds"], 1),
            f"{row['output_tokens']:,}",
            number(row["batch_seconds_mean"], 1),
        ]
        for name, row in systems.items()
    ]
    return table(header, rows)


def generation_notes(summary: Summary) -> list[str]:
    systems, machine = summary["performance"]["systems"], summary["machine"]
    notes = [
        _engines_and_kernels(systems),
        "Loading is left out. Shards may have run side by side, and other jobs beside them.",
    ]
    if any(words.kernel(row) == "reference" for row in systems.values()):
        notes.append(
            "The kernel *reference* unpacks the weights for every use. A dedicated kernel would be "
            "faster."
        )
    if any(row["simulated"] for row in systems.values()):
        notes.append(
            "*Simulated*: what is rounded at run time is rounded to its grid and computed with as "
            "before, at extra cost. What is rounded to 4 bits may be computed with as integers of "
            "8. Weights without a kernel here are computed with as their values. Quality is meant; "
            "there is no speed."
        )
    for name, row in systems.items():
        if row["too_large_batches"]:
            sizes = " and ".join(map(str, row["too_large_batches"]))
            notes.append(
                f"**{escape(name)}: batches of {sizes} did not fit into memory and were written in "
                "smaller parts.**"
            )
    if len(machine["generated_on"]) > 1:
        notes.append(
            "**Outputs were written on different machines: "
            f"{escape('; '.join(machine['generated_on']))}.**"
        )
    return notes
