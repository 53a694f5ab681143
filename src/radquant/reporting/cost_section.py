"""The section of the report on size, memory and speed."""

from collections.abc import Mapping
from typing import Any

from radquant.reporting.collect import ORIGINAL
from radquant.reporting.formatting import (
    DASH,
    bullets,
    escape,
    number,
    ratio,
    size,
    table,
)

Summary = Mapping[str, Any]


def cost_section(summary: Summary) -> str:
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
        ["## Size, memory and speed", table(header, rows), bullets(*cost_notes(summary))]
    )


def _decode_speed(row: Mapping[str, Any]) -> str:
    speed = row["decode_tokens_per_second"]
    return DASH if speed is None else number(speed, 1)


def _decode_ratio(row: Mapping[str, Any]) -> str:
    factor = row["ratios"]["decode_tokens_per_second"]
    return ratio(factor) if row["comparable"] and factor is not None else DASH


def cost_notes(summary: Summary) -> list[str]:
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
