"""Run a command as a process of its own and say what it used."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def script(name: str, *arguments: object, python: str | Path = sys.executable) -> list[str]:
    """The command line of one of the repository's scripts."""
    return [str(python), str(REPOSITORY / "scripts" / name), *map(str, arguments)]


def measured(command: Sequence[str], threads: int = 1) -> dict[str, float]:
    """Run `command` and return its wall and CPU seconds and its peak resident memory in bytes.

    The CPU time of the processes that it started counts. Exits if it fails.
    """
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",  # spinning threads would count as work
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # Environments of other tools know this package by its place.
        "PYTHONPATH": str(REPOSITORY / "src"),
    }
    started = time.monotonic()
    process = subprocess.Popen(command, env=environment, stdout=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - started
    if status:
        sys.exit(f"error: exit status {os.waitstatus_to_exitcode(status)} of {' '.join(command)}")
    return {
        "wall_seconds": round(wall, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_bytes": usage.ru_maxrss * 1024,
    }
