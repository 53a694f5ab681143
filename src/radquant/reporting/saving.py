"""The verdict's sentence on what quantizing saves."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from radquant.reporting.formatting import size
from radquant.reporting.speed import BUSY, OTHER_ENGINE, told_apart
from radquant.settings.run import ORIGINAL


def saving(
    precisions: Sequence[str],
    performance: Mapping[str, Any],
    best: Callable[[Sequence[str]], str],
    named: Callable[[str], str],
) -> str:
    """Return what quantizing saves in one sentence of at most 25 words; "" if nothing is quantized.

    `named` says a precision's name, and that it is a poor one. A speed is named only if it was told
    from the original's.
    """
    name = told_of(precisions, performance, best)
    if name is None:
        return ""
    systems = performance["systems"]
    row, base = systems[name], systems[ORIGINAL]
    pace = seconds_per_report(performance, name)
    if row["weight_bytes"] is None:  # as values, which no program would keep
        return f"{named(name)} takes {_against(row, base, 'disk_bytes')} on disk."
    takes = f"{named(name)} needs {_against(row, base, 'weight_bytes')} of memory for its weights"
    if pace is None:
        return f"{takes}, and {_against(row, base, 'disk_bytes')} on disk."
    own, original = pace
    return f"{takes}, and {own:#.3g} s instead of {original:#.3g} s per report."


def told_of(
    precisions: Sequence[str],
    performance: Mapping[str, Any],
    best: Callable[[Sequence[str]], str],
) -> str | None:
    """Return the precision whose saving is told; None if nothing is quantized.

    It is the one that `best` chooses among those that really run on the original's engine, or of
    all if there is none.
    """
    quantized = [name for name in precisions if name != ORIGINAL]
    real = [name for name in quantized if performance["systems"][name]["comparable"]]
    return best(real or quantized) if quantized else None


def seconds_per_report(performance: Mapping[str, Any], name: str) -> tuple[float, float] | None:
    """Seconds of a precision and of the original; None unless they were told apart."""
    if performance["speed"] is None:
        return None
    ratio = performance["speed"]["systems"][name]["ratios"]["seconds_per_report"]
    return (ratio["own"], ratio["original"]) if told_apart(ratio) else None


def why_no_pace(performance: Mapping[str, Any], name: str) -> tuple[str, str]:
    """Return in few words, and in a sentence, why no time of a precision is told."""
    if performance["speed"] is None:
        return "time not measured", "No speed was measured."
    row = performance["speed"]["systems"][name]
    ratio = row["ratios"]["seconds_per_report"]
    if row["why_not"] is not None:
        return "time not measured", f"It was not timed ({row['why_not']})."
    if row["why_no_ratio"] == OTHER_ENGINE:
        return "time not compared", "It was timed on another engine than the original."
    if ratio is None:
        return "time not compared", "Its time was not compared with the original's."
    if ratio["state"] == BUSY:
        return "time not known", "The machine was too busy to compare its time with the original's."
    return "no difference in time measured", ""


def _against(row: Mapping[str, Any], base: Mapping[str, Any], key: str) -> str:
    return f"{size(row[key])} instead of {size(base[key])}"
