"""Virtual environments for tools that need another stack than this package's own."""

import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from radquant.errors import UserError
from radquant.failures import how_it_ended
from radquant.files import require_file, sha256_file, write_json

# Packages that other packages bring along, import if they can, and do without. The one on PyPI is
# built for its own PyTorch with CUDA, and does not load beside one for CPUs.
COMPANIONS = {"torchvision", "torchaudio", "torchcodec"}
# The platform and Python that the locks were made for.
LOCKED_FOR = ("3.11", "Linux", "x86_64")


def build(requirements: str | Path, directory: str | Path) -> None:
    """Make `directory` a virtual environment with what `requirements` (a pip file) lists.

    Its lock, if there is one (`lock_of`), says in which exact releases. `ready.json` is written
    last and records both files' hashes, the Python version and all packages. An environment cannot
    be moved, so it is built in place. Without a `ready.json` that fits, it is taken for half-built
    and made again from nothing. What pip says goes to stderr.

    Raises UserError when the environment cannot be made or pip fails.
    """
    require_file(requirements)
    environment = Path(directory)
    lock = lock_of(requirements)
    wanted = {
        "requirements_sha256": sha256_file(requirements),
        "lock_sha256": sha256_file(lock) if lock else None,
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
    # Every job of the workflow starts this Python anew. The first jobs compile the small part that
    # they import, and keep it. So pip compiles all only if Python is told to write none.
    compiled = "--compile" if sys.dont_write_bytecode else "--no-compile"
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    listed = ["--requirement", str(requirements)]
    constraints = ["--constraint", str(lock)] if lock else []
    _call([*pip, "install", compiled, *listed, *constraints], "install into it")
    for name in sorted(COMPANIONS & set(_packages(pip))):
        command = [str(python), "-c", f"import {name}"]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            print(f"removing {name}, which does not load beside this PyTorch", file=sys.stderr)
            _call([*pip, "uninstall", "--yes", name], f"remove {name}")
    write_json(environment / "ready.json", {**wanted, "packages": _packages(pip)})


def lock_of(requirements: str | Path) -> Path | None:
    """Return `locks/NAME.txt` beside the file NAME.txt: every package, in one exact release.

    None without such a file, and where the locks were not made for this Python and machine.
    """
    lock = Path(requirements).parent / "locks" / Path(requirements).name
    version = ".".join(platform.python_version_tuple()[:2])
    here = (version, platform.system(), platform.machine())
    return lock if lock.is_file() and here == LOCKED_FOR else None


def _packages(pip: list[str]) -> dict[str, str]:
    """Versions by name of all that is installed."""
    listed = subprocess.run(
        [*pip, "list", "--format", "json"], check=True, capture_output=True, text=True
    )
    return {package["name"]: package["version"] for package in json.loads(listed.stdout)}


def _call(command: list[str], what: str) -> None:
    if code := subprocess.run(command, stdout=sys.stderr, check=False).returncode:
        raise UserError(f"could not {what}: {' '.join(command[1:4])} {how_it_ended(code)}")


def _is_environment(directory: Path) -> bool:
    """Say whether `directory` is an environment, the beginning of one, or empty."""
    if not directory.is_dir():
        return False
    names = {path.name for path in directory.iterdir()}
    return "pyvenv.cfg" in names or names <= {"bin", "include", "lib", "lib64"}


def _is_ready(directory: Path, wanted: dict[str, str | None]) -> bool:
    if not (directory / "bin" / "python").exists():
        return False
    try:
        record = json.loads((directory / "ready.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(record, dict) and all(
        record.get(key) == value for key, value in wanted.items()
    )
