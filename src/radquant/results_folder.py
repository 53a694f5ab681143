"""Whether a run can and may write into its results folder, said before any job starts."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from radquant.errors import UserError
from radquant.files import read_json

# The run's own locks, and the folders that its jobs write into.
LOCKS = (".lock", ".jobs.lock")
FOLDERS = (
    *("annotations", "benchmarks", "calibration", "checkpoints", "data", "downloads", "features"),
    *("figures", "generations", "likelihood", "logs", "measures", "models", "scores", "tables"),
    *("venvs", "verification"),
)


def check_results(folder: str | Path) -> None:
    """Raise UserError unless `folder` is one that can be written into, or can be made.

    A link to a folder elsewhere is one.
    """
    folder = Path(folder)
    if not os.path.lexists(folder):
        return
    for place in (folder, *(folder / name for name in FOLDERS)):
        _check_folder(place)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{folder} may not be written into; allow it or run elsewhere")
    room = shutil.disk_usage(folder)
    if room.total and not room.free:  # some file systems tell neither
        raise UserError(f"there is no room left where {folder} is; make some and run again")
    for lock in (folder / name for name in LOCKS):
        ours = lock.is_file() and not lock.is_symlink() and os.access(lock, os.W_OK)
        if os.path.lexists(lock) and not ours:
            raise UserError(f"{lock} is no file that this run may lock; remove it and run again")


def _check_folder(place: Path) -> None:
    if place.is_symlink() and not place.exists():
        raise UserError(
            f"{place} is a link to {os.readlink(place)!r}, which is not there; make that folder or "
            "remove the link"
        )
    if os.path.lexists(place) and not place.is_dir():
        raise UserError(f"{place} is a file where a folder belongs; move it away")


# Files that say of which configuration the results are, and where it stands in each.
RECORDS = {"config.json": (), "provenance.json": ("config", "values")}
# What tells one model or corpus from another; all else may change from run to run.
SOURCES = {"model": ("wheel", "hub", "path"), "corpus": ("wheel", "path", "train", "eval")}
PINNED = ("requirement", "sha256", "file", "id", "revision")


def check_same_study(folder: str | Path, config: Mapping[str, Any]) -> None:
    """Raise UserError if `folder` holds results of another model or corpus than `config` names.

    config: the settings of the run that is to write there, as in config.json. Paths in both are
    from the current folder.
    """
    records = [Path(folder, name) for name in RECORDS if Path(folder, name).is_file()]
    if not records:
        return
    held = read_json(records[0])
    for key in RECORDS[records[0].name]:
        held = held[key]
    for part in SOURCES:
        if _source(held, part) != _source(config, part):
            raise UserError(
                f"{folder} holds results of the {part} {held[part]['name']!r} from "
                f"{_shown(held, part)}, and this run is of {config[part]['name']!r} from "
                f"{_shown(config, part)}; give --directory runs/NAME, or delete "
                f"{' and '.join(map(str, records))} to overwrite"
            )


def _source(config: Mapping[str, Any], part: str) -> dict[str, Any]:
    """Where a model or corpus comes from; equal for two ways to write the same."""
    found: dict[str, Any] = {}
    for key in SOURCES[part]:
        value = config[part].get(key)
        if isinstance(value, Mapping):
            found[key] = {name: value.get(name) for name in PINNED}
        elif value:
            found[key] = os.path.realpath(value)
    return found


def _shown(config: Mapping[str, Any], part: str) -> str:
    for key in SOURCES[part]:
        value = config[part].get(key)
        if isinstance(value, Mapping):
            pinned = value.get("revision") or value.get("file")
            return f"{value.get('id') or value.get('requirement')} ({pinned})"
        if value:
            return str(value)
    return "nowhere"
