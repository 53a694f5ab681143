"""The verdict's sentence on what quantizing saves."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from radquant.reporting.collect import ORIGINAL
from radquant.reporting.formatting import ratio, size


def saving(
    precisions: Sequence[str], performance: Mapping[str, Any], best: Callable[[Sequence[str]], str]
) -> str:
    """Return what quantizing saves, of the precision that `best` chooses among those that ran."""
    systems = performance["systems"]
    # Only a precision that really runs, on the original's engine, has a speed to compare; others
    # stand in when there is none.
    quantized = [name for name in precisions if name != ORIGINAL]
    real = [name for name in quantized if systems[name]["comparable"]]
    name = best(real or quantized)
    row, base = systems[name], systems[ORIGINAL]
    if row["simulated"]:
        what = [
            *(["activations"] if row["activations"] else []),
            *(["KV cache"] if row["kv_cache"] else []),
            *(["head"] if row["lm_head"] else []),
        ]
        speed = (
            f"its speed is not known, because the rounding of its {' and '.join(what)} is simulated"
        )
    elif not row["comparable"]:
        speed = (
            f"its speed says nothing, because another engine ({row['engine']}) wrote it than the "
            f"original's ({base['engine']})"
        )
    else:
        speed = _pace(row, base)
    return (
        f"In return, {name} takes {_against(row, base, 'disk_bytes')} on disk, "
        f"{_against(row, base, 'weight_bytes')} for its weights in memory and "
        f"{_against(row, base, 'peak_process_bytes')} for the whole process, and {speed}."
    )


def _pace(row: Mapping[str, Any], base: Mapping[str, Any]) -> str:
    """Compare what was written once the prompts were read or, if that is not known, with them."""
    known = row["ratios"]["decode_tokens_per_second"] is not None
    key = "decode_tokens_per_second" if known else "tokens_per_second"
    factor = row["ratios"][key]
    pace = "slower" if factor < 0.995 else "faster" if factor >= 1.005 else "as fast"
    behind = " once the prompts were read" if known else ""
    return (
        f"it wrote {row[key]:,.1f} tokens/s against {base[key]:,.1f}{behind} "
        f"({ratio(factor)}: {pace})"
    )


def _against(row: Mapping[str, Any], base: Mapping[str, Any], key: str) -> str:
    return f"{size(row[key])} instead of {size(base[key])} ({ratio(row['ratios'][key])})"
