"""Refusing what cannot be compared, or is not what the configuration asks for."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from radquant.errors import UserError
from radquant.reporting import words as in_words
from radquant.settings import engines
from radquant.settings.precision import activations_of, kv_cache_of, lm_head_of, same_rounding
from radquant.settings.run import ORIGINAL

# What must be equal in all shards of all precisions for their scores and speeds to be compared.
SHARED_SETTINGS = [
    *("device", "dtype", "threads"),
    *("batch_size", "max_new_tokens", "examples", "examples_by", "versions"),
]
OF_AN_ENGINE = ("device", "dtype", "versions")
# What every record of a precision says of how it computed, and how that is told.
COMPUTED_AS = {
    "layers_quantized": "{} quantized layers",
    "activation_layers": "{} layers with quantized activations",
    "activations": "activations of {}",
    "kv_cache": "a KV cache of {}",
    "lm_head": "a head of {}",
    "stored_prefix_tokens": "a stored prefix of {} tokens",
}
# What the timed section says of a precision that was timed, and of each timing.
TIMED_KEYS = ["why_not", "rounds", "precision", "engine", "kernel", *COMPUTED_AS]
TIMING_KEYS = [
    *("round", "wall_seconds", "cpu_seconds", "waited_seconds", "prompt_seconds", "decode_seconds"),
    *("reports", "prompt_tokens", "output_tokens", "decode_tokens", "too_large_batches"),
]
ROUNDING = {
    "activations": in_words.activations,
    "kv_cache": in_words.kv_cache,
    "lm_head": in_words.lm_head,
}
SETTINGS: dict[str, Callable[[Any], Any]] = {
    "activations": activations_of,
    "kv_cache": kv_cache_of,
    "lm_head": lm_head_of,
}


def first_id(table: pd.DataFrame, chosen: pd.Series) -> str:
    return repr(table.loc[chosen, "id"].iloc[0])


def check_unique(ids: pd.Series, where: Path) -> None:
    double = ids[ids.duplicated()]
    if len(double):
        raise UserError(
            f"{where}: id {double.iloc[0]!r} appears more than once; delete it and run again"
        )


def check_same_reports(found: Sequence[str], expected: Sequence[str], where: Path) -> None:
    """Refuse what was not measured on exactly the evaluation reports, in their order.

    expected: the written ones or, of likelihoods and references, all.
    """
    if len(found) != len(expected):
        raise UserError(
            f"{where} has {len(found)} rows, but it should be of {len(expected)} reports of "
            "data/eval.csv; delete it and run again"
        )
    for row, (one, other) in enumerate(zip(found, expected, strict=True), 1):
        if one != other:
            raise UserError(
                f"{where}, row {row}: id {one!r} stands where data/eval.csv has {other!r}, so the "
                "reports cannot be paired; delete it and run again"
            )


def check_settings(shards: Mapping[str, list[dict[str, Any]]]) -> None:
    seen: dict[str | None, tuple[str, dict[str, Any]]] = {}
    for precision, records in shards.items():
        for number, record in enumerate(records, 1):
            place = f"generations/{precision}, shard {number}"
            apart = engines.environment(record["engine"], record["device"])
            seen.setdefault(apart, (place, record))
            for key in SHARED_SETTINGS:
                # An engine in an environment of its own is compared with records of that
                # environment alone.
                group = apart if key in OF_AN_ENGINE else next(iter(seen))
                first_place, first = seen[group]
                if record[key] != first[key]:
                    raise UserError(
                        f"{place} ran with {key} {record[key]!r}, but {first_place} with "
                        f"{first[key]!r}; delete results/generations and run again"
                    )


def check_prompts(generations: Mapping[str, pd.DataFrame]) -> None:
    expected = generations[ORIGINAL]["prompt_hash"]
    for precision, table in generations.items():
        other = table["prompt_hash"] != expected
        if other.any():
            raise UserError(
                f"generations/{precision}: {int(other.sum())} report(s) had another prompt than "
                f"the original model, first id {first_id(table, other)}; delete "
                "results/generations and run again"
            )


def check_tokens(likelihood: Mapping[str, pd.DataFrame]) -> None:
    for precision, table in likelihood.items():
        if (table["tokens"] != likelihood[ORIGINAL]["tokens"]).any():
            raise UserError(
                f"likelihood/{precision} counts other tokens than likelihood/{ORIGINAL}, so the "
                "two cannot be paired; delete results/likelihood and run again"
            )


def check_computed(
    precision: str,
    records: Mapping[str, Mapping[str, Any]],
    expected: Mapping[str, Any],
    remedy: str = "",
) -> None:
    """Refuse a precision that did not compute as its configuration and its checkpoint say.

    records: by what they are called. expected: what each must say, by the keys of COMPUTED_AS.
    remedy: what to do, if it is not to compute the precision again.
    """
    again = f"delete results/generations/{precision} and results/likelihood/{precision}.*"
    for place, record in records.items():
        if record["precision"] != precision:
            raise UserError(
                f"{place} is of precision {record['precision']!r}; delete it and run again"
            )
        for key, words in COMPUTED_AS.items():
            got, wanted = record[key], expected[key]
            if not (got == wanted or _round_alike(key, got, wanted)):
                raise UserError(
                    f"{place} had {words.format(_shown(key, got))} instead of "
                    f"{_shown(key, wanted)}; {remedy or again} and run again"
                )


def _round_alike(key: str, got: Any, wanted: Any) -> bool:
    read = SETTINGS.get(key)
    return read is not None and same_rounding(read(got), read(wanted))


def _shown(key: str, value: Any) -> str:
    if key not in ROUNDING:
        return str(value)
    return "full precision" if value is None else ROUNDING[key](value)


def check_speed(path: Path, record: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Refuse timings of other precisions, lengths or repeats than the configuration asks for."""
    speed = config["speed"]
    for key, asked, found in (
        ("precisions", set(config["precisions"]), set(record["precisions"])),
        ("repeats", speed["repeats"], record["repeats"]),
        ("tokens", speed["tokens"], record["tokens"]),
    ):
        if found != asked:
            raise UserError(f"{path} was measured with other {key}; delete it and run again")
    for name, each in record["precisions"].items():
        place = f"{path}: precision {name}"
        if lacking := _lacking(each):
            raise UserError(f"{place} lacks {min(lacking)}; delete it and run again")
        count = 0 if each["why_not"] else speed["repeats"]
        lengths = {timing["output_tokens"] / timing["reports"] for timing in each["rounds"]}
        if len(each["rounds"]) != count or lengths - {speed["tokens"]}:
            raise UserError(
                f"{place} should have {count} timings of {speed['tokens']} tokens a report; delete "
                "it and run again"
            )


def _lacking(timed: Mapping[str, Any]) -> set[str]:
    """The keys that the record of a precision in the timed section should have and has not."""
    asked = ["why_not", "rounds"] if timed.get("why_not") else TIMED_KEYS
    timings = timed.get("rounds", [])
    of_timings = {key for key in TIMING_KEYS if any(key not in timing for timing in timings)}
    return {key for key in asked if key not in timed} | of_timings
