"""What says, at every start of the workflow, whether an image file of some reports has changed.

Image files are no inputs of a rule: there may be ten thousand, in a folder that is not mounted
where a run is planned. One hash of all their contents is a parameter instead. The size and time at
which a file was read last are kept beside the run. It is read again only if one of them differs.
"""

import json
from pathlib import Path

from radquant.errors import UserError
from radquant.files import read_table, sha256_file, sha256_text, write_text
from radquant.image_files import COLUMN, image_names

MISSING = "missing"


def images_digest(reports: Path, root: Path, kept: Path) -> str | None:
    """sha256 of the names and contents of all image files that a table names; None without it.

    kept: a file in which sizes, times and hashes are kept from one start to the next. A file that
    is not there counts as it was when it was last seen: what needs it says so.
    """
    if not reports.is_file():
        return None
    try:
        cells = read_table(reports, require=[COLUMN])[COLUMN]
    except UserError:  # the stage that reads it says so
        return None
    names = sorted({name for cell in cells for name in image_names(cell)})
    before = _read(kept)
    now = {name: _seen(root / name, before.get(name)) for name in names}
    if now != before:
        write_text(kept, json.dumps(now))
    # Names count, too. If two images change places, they belong to other reports.
    return sha256_text("\n".join(f"{now[name][-1]} {name}" for name in names))


def _read(kept: Path) -> dict[str, list[str]]:
    try:
        found: dict[str, list[str]] = json.loads(kept.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def _seen(path: Path, before: list[str] | None) -> list[str]:
    """[size and time, sha256] of a file."""
    try:
        status = path.stat()
        stamp = f"{status.st_size} {status.st_mtime_ns}"
        return before if before and before[0] == stamp else [stamp, sha256_file(path)]
    except OSError:
        return before or ["", MISSING]
