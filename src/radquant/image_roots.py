"""Where the image files of a run are: a folder, or an archive that is unpacked into its results."""

from pathlib import Path

from radquant.errors import UserError

ARCHIVES = (".tgz", ".tar.gz", ".tar", ".zip")
UNPACKED = "images"  # in the run's results


def is_archive(root: str | Path) -> bool:
    """Whether an image root is an archive, by its name alone: it may be on another machine."""
    return str(root).lower().endswith(ARCHIVES)


def require_folder(root: Path) -> None:
    """Raise UserError unless the image files can be read from `root`, which is no archive here."""
    if is_archive(root) and not root.is_dir():
        raise UserError(
            f"{root} is an archive, which fetch_corpus alone unpacks; give as --image-root the "
            f"folder that it unpacked it into (its --images, results/{UNPACKED} in a run)"
        )
    if not root.is_dir():
        raise UserError(f"the image folder {root} does not exist or is not a folder")


def image_folder(root: str | Path, results: str | Path) -> Path:
    """Return the folder of a run's image files: `root`, or where that archive was unpacked."""
    return Path(results, UNPACKED) if is_archive(root) else Path(root)
