"""What each precision takes: bytes, seconds and tokens, and their ratios to the original's."""

from collections.abc import Mapping, Sequence
from typing import Any

from radquant.reporting.collect import ORIGINAL, Run


def performance(run: Run) -> dict[str, Any]:
    systems = {name: _speed(run, name) for name in run.precisions}
    base = systems[ORIGINAL]
    for row in systems.values():
        # Another engine's speed says nothing about what quantizing saves.
        row["comparable"] = not row["simulated"] and row["engine"] == base["engine"]
        row["ratios"] = {
            key: row[key] / base[key]
            for key in ("tokens_per_second", "peak_process_bytes", "weight_bytes", "disk_bytes")
        }
        written, of_original = row["decode_tokens_per_second"], base["decode_tokens_per_second"]
        row["ratios"]["decode_tokens_per_second"] = (
            written / of_original if written and of_original else None
        )
    return {
        "systems": systems,
        "quantization": {
            name: {
                key: record[key] for key in ("wall_seconds", "cpu_seconds", "peak_process_bytes")
            }
            for name, record in run.quantization.items()
        },
        "likelihood": {
            name: {key: record[key] for key in ("wall_seconds", "cpu_seconds")}
            for name, record in run.likelihood_costs.items()
        },
    }


def _speed(run: Run, precision: str) -> dict[str, Any]:
    shards = run.shards[precision]

    def total(key: str) -> float:
        return sum(shard[key] for shard in shards)

    def most(key: str) -> float | None:
        values = [shard[key] for shard in shards if shard[key] is not None]
        return max(values) if values else None

    # A shard may have no batch, and then no latency either.
    latencies = [
        (shard["latency_seconds"], shard["batches"]) for shard in shards if shard["batches"]
    ]
    return {
        "simulated": any(shard["simulated"] for shard in shards),
        "activations": shards[0]["activations"],
        "kv_cache": shards[0]["kv_cache"],
        "lm_head": shards[0]["lm_head"],
        "stored_prefix_tokens": shards[0]["stored_prefix_tokens"],
        "engine": " and ".join(sorted({shard["engine"] for shard in shards})),
        "kernel": " and ".join(sorted({shard["kernel"] for shard in shards})),
        "too_large_batches": sorted({n for shard in shards for n in shard["too_large_batches"]}),
        "layers_quantized": shards[0]["layers_quantized"],
        "activation_layers": shards[0]["activation_layers"],
        "output_tokens": total("output_tokens"),
        "wall_seconds": total("wall_seconds"),
        "cpu_seconds": total("cpu_seconds"),
        "load_seconds": total("load_seconds"),
        "tokens_per_second": _ratio(total("output_tokens"), total("wall_seconds")),
        "decode_tokens_per_second": _decode_speed(shards),
        "cpu_seconds_per_token": _ratio(total("cpu_seconds"), total("output_tokens")),
        "batch_seconds_mean": _ratio(
            sum(latency["mean"] * batches for latency, batches in latencies), total("batches")
        ),
        "batch_seconds_max": max(latency["max"] for latency, _ in latencies),
        "peak_process_bytes": most("peak_process_bytes"),
        "peak_device_bytes": most("peak_device_bytes"),
        "weight_bytes": most("weight_bytes"),
        "disk_bytes": run.disk_bytes[run.checkpoint(precision)],
        "shards": shards,
    }


def _decode_speed(shards: Sequence[Mapping[str, Any]]) -> float | None:
    """Return tokens/s behind the first of each answer; None where no engine told it apart."""
    if any(shard["decode_seconds"] is None for shard in shards):
        return None
    seconds = sum(shard["decode_seconds"] for shard in shards)
    return sum(shard["decode_tokens"] for shard in shards) / seconds if seconds else None


def _ratio(a: float, b: float) -> float:
    """Return a / b, and 0 where nothing was written or measured."""
    return a / b if b else 0.0
