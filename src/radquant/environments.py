"""Virtual environments for tools that need another stack than this package's own."""

import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from radquant.errors import UserError
from radquant.files import require_file, sha256_file, write_json

# What other packages bring along and import if it is there, but do without. PyPI's is built for its
# own PyTorch, with CUDA, and does not load beside one for CPUs.
COMPANIONS = {"torchvision", "torchaudio", "torchcodec"}


def build(requirements: str | Path, directory: str | Path) -> None:
    """Make `directory` a virtual environment with what `requirements` (a pip file) lists.

    `ready.json` is written last and records the file's hash, the Python version and all packages.
    An environment cannot be moved, so it is built in place; without a `ready.json` that fits it
    is taken for half-built and made again from nothing. What pip says goes to stderr.

    Raises UserError when the environment cannot be made or pip fails.
    """
    require_file(requirements)
    environment = Path(directory)
    wanted = {
        "requirements_sha256": sha256_file(requirements),
        "python_version": platform.python_version(),
    }
    if _is_ready(environment, wanted):
        return
    if environment.exists() and not _is_environment(environment):
        raise UserError(
            f"{environment} exists and is not a virtual environment; "
            "remove it or give another --output"
        )
    shutil.rmtree(environment, ignore_errors=True)
    python = environment / "bin" / "python"
    _call([sys.executable, "-m", "venv", str(environment)], "make the environment")
    # Byte-compiled, because every job of the workflow starts this Python anew.
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    _call([*pip, "install", "--compile", "--requirement", str(requirements)], "install into it")
    for name in sorted(COMPANIONS & set(_packages(pip))):
        command = [str(python), "-c", f"import {name}"]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            print(f"removing {name}, which does not load beside this PyTorch", file=sys.stderr)
            _call([*pip, "uninstall", "--yes", name], f"remove {name}")
    write_json(environment / "ready.json", {**wanted, "packages": _packages(pip)})


def _packages(pip: list[str]) -> dict[str, str]:
    """Versions by name of all that is installed."""
    listed = subprocess.run(
        [*pip, "list", "--format", "json"], check=True, capture_output=True, text=True
    )
    return {package["name"]: package["version"] for package in json.loads(listed.stdout)}


def _call(command: list[str], what: str) -> None:
    if subprocess.run(command, stdout=sys.stderr, check=False).returncode:
        raise UserError(
            f"could not {what} ({' '.join(command[1:4])} failed); "
            "its own message stands above this line"
        )


def _is_environment(directory: Path) -> bool:
    """Say whether `directory` is an environment, the beginning of one, or empty."""
    names = {path.name for path in directory.iterdir()}
    return "pyvenv.cfg" in names or names <= {"bin", "include", "lib", "lib64"}


def _is_ready(directory: Path, wanted: dict[str, str]) -> bool:
    if not (directory / "bin" / "python").exists():
        return False
    try:
        record = json.loads((directory / "ready.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return all(record.get(key) == value for key, value in wanted.items())
