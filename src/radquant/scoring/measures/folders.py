"""What measures share whose weights are in a folder: its parts, its hash, and how it is used.

A measure says in FOLDERS which parts its folder has and from which of the hub's repositories each
comes. `scripts/fetch_measure.py` makes the folder from pinned commits.
"""

import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from radquant.errors import UserError
from radquant.files import sha256_file, sha256_text

Folders = Mapping[str, str]


def on(settings: Mapping[str, Any]) -> bool:
    return bool(settings.get("directory"))


def check(name: str, folders: Folders, settings: Mapping[str, Any], code: bool = False) -> Path:
    """Return the folder of the measure `name`; code: whether code that comes with it must run.

    Raises UserError where a part is missing, or holds code that may not run.
    """
    directory = Path(settings["directory"]).absolute()
    if code and not settings["trust_remote_code"]:
        raise UserError(
            f"scoring.{name} runs Python code that comes with its weights; read that code and set "
            f"scoring.{name}.trust_remote_code: true, or set its directory to null"
        )
    for part, source in folders.items():
        if not (directory / part).exists():
            raise UserError(
                f"scoring.{name}.directory is {directory}, which has no {part} (of {source}); make "
                f"it with scripts/fetch_measure.py {name}, or set it to null"
            )
        found = sorted((directory / part).glob("*.py")) if (directory / part).is_dir() else []
        if found and not code:
            raise UserError(f"{found[0]} is code, and {name} needs none; remove it")
    return directory


def identity(package: str, folders: Folders, directory: Path) -> str:
    """Return 'f1chexbert 0.0.2 (sha256 …)': equal for equal packages and weights."""
    files = []
    for part in sorted(folders):
        place = directory / part
        files += sorted(place.rglob("*")) if place.is_dir() else [place]
    lines = [
        f"{path.relative_to(directory)}\0{sha256_file(path)}\n" for path in files if path.is_file()
    ]
    return f"{package} {version(package)} (sha256 {sha256_text(''.join(lines))[:12]})"


def begin(threads: int) -> str:
    """Return 'cuda' where there is a GPU, else 'cpu'. Nothing is fetched from then on."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    import torch

    torch.set_num_threads(threads)
    return "cuda" if torch.cuda.is_available() else "cpu"
