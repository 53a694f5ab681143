"""What each precision takes: its speed where it was timed, bytes, and what generation took."""

from typing import Any

from radquant.reporting.encoding import encoding_of
from radquant.reporting.finished_run import Run
from radquant.reporting.speed import speed_of
from radquant.settings.run import ORIGINAL


def performance(run: Run) -> dict[str, Any]:
    systems = {name: _system(run, name) for name in run.precisions}
    base = systems[ORIGINAL]
    for row in systems.values():
        # Another engine's speed says nothing about what quantizing saves.
        row["comparable"] = not row["simulated"] and row["engine"] == base["engine"]
        row["ratios"] = {
            key: None if row[key] is None else row[key] / base[key]
            for key in ("peak_process_bytes", "weight_bytes", "disk_bytes")
        }
    return {
        "speed": None if run.speed is None else speed_of(run.speed, run.precisions),
        "systems": systems,
        "encoding": encoding_of(run),
        "quantization": {
            name: {
                key: record[key] for key in ("wall_seconds", "cpu_seconds", "peak_process_bytes")
            }
            for name, record in run.quantization.items()
        },
        "likelihood": {
            name: {
                **{key: record[key] for key in ("wall_seconds", "cpu_seconds")},
                # What references and outputs both need, where one job made both.
                "counted_with_writing": record.get("counted_with_writing", []),
            }
            for name, record in run.likelihood_costs.items()
        },
    }


def _system(run: Run, precision: str) -> dict[str, Any]:
    shards = run.shards[precision]

    def total(key: str) -> float:
        return sum(shard[key] for shard in shards)

    def most(key: str) -> float | None:
        values = [shard[key] for shard in shards if shard.get(key) is not None]
        return max(values) if values else None

    # A shard may have no batch, and then no latency either.
    latencies = [
        (shard["latency_seconds"], shard["batches"]) for shard in shards if shard["batches"]
    ]
    as_values = most("value_layers")
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
        "batch_seconds_mean": _ratio(
            sum(latency["mean"] * batches for latency, batches in latencies), total("batches")
        ),
        "batch_seconds_max": max(latency["max"] for latency, _ in latencies),
        "peak_process_bytes": most("peak_process_bytes"),
        "peak_device_bytes": most("peak_device_bytes"),
        "value_layers": as_values,
        "weight_bytes": None if as_values else most("weight_bytes"),
        "disk_bytes": run.disk_bytes[run.checkpoint(precision)],
        "shards": shards,
    }


def _ratio(a: float, b: float) -> float:
    """Return a / b, and 0 where nothing was written or measured."""
    return a / b if b else 0.0
