"""Run a command as a process of its own and say what it used.

Called as a program, this file runs the command after the first argument, to which it writes that.
"""

import json
import os
import subprocess
import sys
import tempfile
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
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        # A process begins with the peak of the one that started it: a small one must.
        between = [sys.executable, "-S", __file__, file.name]
        done = subprocess.run([*between, *command], env=environment, stdout=sys.stderr, check=False)
        if done.returncode:
            sys.exit(f"error: exit status {done.returncode} of {' '.join(command)}")
        return dict(json.load(file))


def main() -> None:
    file, *command = sys.argv[1:]
    started = time.monotonic()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    used = {
        "wall_seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_bytes": usage.ru_maxrss * 1024,
    }
    Path(file).write_text(json.dumps(used), encoding="utf-8")
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
