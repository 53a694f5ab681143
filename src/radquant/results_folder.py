"""Whether a run can write into its results folder, said before any job starts."""

import os
import shutil
from pathlib import Path

from radquant.errors import UserError

# The run's own locks, and the folders that its jobs write into.
LOCKS = (".lock", ".jobs.lock")
FOLDERS = (
    *("annotations", "calibration", "checkpoints", "data", "downloads", "features", "figures"),
    *("generations", "likelihood", "logs", "measures", "models", "scores", "venvs"),
    "verification",
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
