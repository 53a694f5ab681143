"""Where the image files of a run are: a folder, or an archive that is unpacked into its results."""

from pathlib import Path

ARCHIVES = (".tgz", ".tar.gz", ".tar", ".zip")
UNPACKED = "images"  # in the run's results


def is_archive(root: str | Path) -> bool:
    """Whether an image root is an archive, by its name alone: it may be on another machine."""
    return str(root).lower().endswith(ARCHIVES)


def image_folder(root: str | Path, results: str | Path) -> Path:
    """Return the folder of a run's image files: `root`, or where that archive was unpacked."""
    return Path(results, UNPACKED) if is_archive(root) else Path(root)
