"""What benchmarks/engines.py prints of its figures."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from comparing import table

Cost = Mapping[str, float]  # tokens, cpu_seconds, seconds
CPU, WALL = "cpu_seconds", "seconds"


def cost(tokens: int, whole: Cost, first: Cost | None = None) -> dict[str, float]:
    """What tokens took: the whole, or what it took more than the first of them."""
    taken = {name: whole[name] - (0 if first is None else first[name]) for name in (CPU, WALL)}
    return {"tokens": tokens, **taken}


def rates(rounds: Sequence[Mapping[str, Cost]], task: str, unit: str) -> list[float]:
    """Tokens a second, of each round; 0 where they took no time to speak of."""
    taken = [(one[task]["tokens"], one[task][unit]) for one in rounds]
    return [tokens / spent if spent > 0 else 0.0 for tokens, spent in taken]


def with_range(values: Sequence[float]) -> str:
    """The median, and the least and most behind it.

    "too short" where a round's tokens took no longer than their first ones: no speed is known.
    """
    if min(values) <= 0:
        return "too short"
    return f"{statistics.median(values):.0f} ({min(values):.0f}–{max(values):.0f})"


def perplexity(nats: Sequence[float], tokens: int) -> float:
    return math.exp(sum(nats) / tokens)


def rows(found: Mapping[str, Any], threads: str, unit: str) -> list[list[str]]:
    """One row for each engine."""
    made = []
    reading = [f"prompt-{length}" for length in found["settings"]["prompt_tokens"]]
    tasks = [*(f"decode-{size}" for size in found["settings"]["batch_sizes"]), *reading]
    for engine in found["engines"].values():
        names = [engine["label"], engine["weights"]]
        if "not_run" in engine or threads not in engine["threads"]:
            reason = engine.get("not_run", "not measured with so many threads")
            made.append([*names, f"not run: {reason}", *[""] * (len(head(found, unit)) - 3)])
            continue
        measured = engine["threads"][threads]
        cells = [with_range(rates(measured["rounds"], task, unit)) for task in tasks]
        if unit == CPU:
            scored = engine.get("perplexity")
            cells.append(f"{measured['peak_bytes'] / 1e9:.2f} GB")
            cells.append("–" if scored is None else f"{scored:.2f}")
        else:
            for task in reading:
                first = [1000 * one[task][WALL] for one in measured["rounds"]]
                cells.append(f"{with_range(first)} ms")
        made.append([*names, *cells])
    return made


def head(found: Mapping[str, Any], unit: str) -> list[str]:
    lengths = found["settings"]["prompt_tokens"]
    cells = ["engine", "weights"]
    cells += [f"decode {size}" for size in found["settings"]["batch_sizes"]]
    cells += [f"prompt {length:,}" for length in lengths]
    if unit == CPU:
        return [*cells, "peak memory", "perplexity"]
    return [*cells, *(f"first token of {length:,}" for length in lengths)]


def tables(found: Mapping[str, Any]) -> str:
    """Two tables for each number of threads, and what their dashes mean."""
    settings = found["settings"]
    parts = [f"{found['machine']}; median (least–most) of {settings['rounds']} rounds."]
    for threads in map(str, settings["threads"]):
        named = f"{threads} thread{'s' * (threads != '1')}"
        for unit, words in ((CPU, "tokens per CPU-second"), (WALL, "tokens per second")):
            made = table(head(found, unit), rows(found, threads, unit))
            parts += [f"**{named}: {words}**", made]
    return "\n\n".join([*parts, *notes(found)])


def notes(found: Mapping[str, Any]) -> list[str]:
    """Why engines have no perplexity, and the versions of all."""
    made, versions = [], {}
    for engine in found["engines"].values():
        if "no_perplexity" in engine:
            made.append(
                f"– {engine['label']} {engine['weights']}: no perplexity, "
                f"because {engine['no_perplexity']}."
            )
        versions |= engine.get("versions", {})
    made.append("Versions: " + ", ".join(f"{name} {number}" for name, number in versions.items()))
    return made
