"""What a stage cost: wall and CPU seconds, latency, peak memory."""

import functools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch


@dataclass
class Spent:
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0  # of all threads of this process


@contextmanager
def stopwatch(device: torch.device) -> Iterator[Spent]:
    """Measure the block; work that a GPU still has in hand is waited for."""
    spent = Spent()
    synchronize(device)
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        yield spent
    finally:
        synchronize(device)
        spent.wall_seconds = time.perf_counter() - wall
        spent.cpu_seconds = time.process_time() - cpu


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_device_bytes(device: torch.device) -> int | None:
    """Return the most memory that tensors took on the GPU, in bytes; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def device_name(device: torch.device) -> str:
    """Return the model name of the GPU or of the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return cpu_name()


def cpu_name() -> str:
    return _cpu_model() or f"{torch.backends.cpu.get_cpu_capability()} CPU"


@functools.cache
def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.partition(":")[2].strip() for line in lines if line.startswith("model n")]
    except OSError:  # not Linux
        return ""
    return names[0] if names else ""


def latency_summary(seconds: Sequence[float]) -> dict[str, float | None]:
    """Return mean, median, 95th percentile and maximum; None each when nothing was measured."""
    if not seconds:
        return dict.fromkeys(("mean", "p50", "p95", "max"))
    values = np.asarray(seconds, dtype=np.float64)
    return {
        "mean": float(values.mean()),
        "p50": float(np.percentile(values, 50)),
        "p95": float(np.percentile(values, 95)),
        "max": float(values.max()),
    }
