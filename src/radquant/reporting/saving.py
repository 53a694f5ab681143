"""The verdict's sentence on what quantizing saves."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from radquant.reporting.formatting import size
from radquant.reporting.speed import told_apart
from radquant.settings.run import ORIGINAL


def saving(
    precisions: Sequence[str],
    performance: Mapping[str, Any],
    best: Callable[[Sequence[str]], str],
    named: Callable[[str], str],
) -> str:
    """Return what quantizing saves in one sentence of at most 25 words; "" if nothing is quantized.

    It is said of the precision that `best` chooses among those that really run on the original's
    engine, or of all if there is none; `named` says its name, and that it is a poor one. A speed is
    named only if it was told from the original's.
    """
    quantized = [name for name in precisions if name != ORIGINAL]
    if not quantized:
        return ""
    systems = performance["systems"]
    real = [name for name in quantized if systems[name]["comparable"]]
    name = best(real or quantized)
    row, base = systems[name], systems[ORIGINAL]
    pace = seconds_per_report(performance, name)
    if row["weight_bytes"] is None:  # as values, which no program would keep
        return f"{named(name)} takes {_against(row, base, 'disk_bytes')} on disk."
    takes = f"{named(name)} needs {_against(row, base, 'weight_bytes')} of memory for its weights"
    if pace is None:
        return f"{takes}, and {_against(row, base, 'disk_bytes')} on disk."
    own, original = pace
    return f"{takes}, and {own:#.3g} s instead of {original:#.3g} s per report."


def seconds_per_report(performance: Mapping[str, Any], name: str) -> tuple[float, float] | None:
    """Seconds of a precision and of the original; None unless they were told apart."""
    if performance["speed"] is None:
        return None
    ratio = performance["speed"]["systems"][name]["ratios"]["seconds_per_report"]
    return (ratio["own"], ratio["original"]) if told_apart(ratio) else None


def _against(row: Mapping[str, Any], base: Mapping[str, Any], key: str) -> str:
    return f"{size(row[key])} instead of {size(base[key])}"
