"""What this process cost so far. Nothing here needs PyTorch: other environments import it."""

import resource
import sys
from pathlib import Path


def waited_seconds() -> float | None:
    """Seconds for which this process's threads were ready to run and no core was free, added up.

    None where the system does not say. Linux does (Documentation/scheduler/sched-stats.rst).
    """
    try:
        files = [task / "schedstat" for task in Path("/proc/self/task").iterdir()]
        return sum(int(file.read_text().split()[1]) for file in files) / 1e9
    except (OSError, IndexError):
        return None


def peak_process_bytes() -> int:
    """Return the largest resident size of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kernels differ in the unit
