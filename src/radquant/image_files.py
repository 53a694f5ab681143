"""The image files of reports: which they are, and each as 8-bit RGB that can be looked at.

What is in a file, pixels or header, goes into no message: errors name the file, the column and the
report.
"""

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from radquant.dicom import MAX_BYTES
from radquant.errors import UserError
from radquant.files import read_table, sha256_file
from radquant.image_roots import require_folder
from radquant.pixels import Shown, kind_of, shown

COLUMN = "images"  # of data/train.csv and data/eval.csv
# Of calibration samples that show images, beside COLUMN, which names the files.
HASHES, TYPES, WEIGHT = "image_sha256", "token_types", "image_weight"
SEPARATOR = ";"
# Of 255 levels of gray. Twelve bits of a pixel in a range of sixteen end in the lowest 16, thirteen
# in the lowest 32. No X-ray that is shown as it was meant lies there, not even one of a finger on a
# black plate.
DARK = 32
BAND = 8  # levels that JPEG's noise makes of one
NEARLY = 0.99  # share of the pixels
ENDINGS = (".dcm", ".dicom", ".ima", ".png", ".jpg", ".jpeg")
BREAKS = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # end a message's line
LONGEST_NAME = 1000  # characters; of a path, whose parts may have 255 bytes each


@dataclass(frozen=True)
class ImageFile:
    """One image of a report."""

    path: Path
    report: str  # id
    column: str  # of the table that names the file
    sha256: str  # of the file's bytes

    @property
    def place(self) -> str:
        return f"{self.path}, named in column {self.column!r} of report {self.report},"


def image_names(cell: str) -> list[str]:
    """Return the files that a cell names, in their order; ./a//b.png is a/b.png."""
    names = (name.strip() for name in cell.split(SEPARATOR))
    return [str(PurePosixPath(name)) for name in names if name]


def image_files(row: Mapping[str, Any], column: str, root: Path) -> tuple[ImageFile, ...]:
    """Return the images of a report, of which there is at least one; the files are there.

    Raises UserError for a report without an image, for a name that leads out of `root`, and for a
    file that is missing or locked.
    """
    report, names = str(row["id"]), image_names(str(row[column]))
    if not names:
        raise UserError(
            f"report {report} names no image in column {column!r}; leave such reports out"
        )
    for name in names:
        if not _is_file_name(name):
            raise UserError(
                f"column {column!r} of report {report} holds no file's name but {len(name)} "
                "characters, not shown as they may be a report's; name the column of images"
            )
        if os.path.isabs(name) or ".." in Path(name).parts:
            raise UserError(
                f"report {report} names {name!r} in column {column!r}, which is not inside the "
                "image folder; give its path from there"
            )
    return tuple(_image_file(root, name, report, column) for name in names)


def listed_images(reports: Path, image_root: str | None) -> list[ImageFile]:
    """The images of all reports of a table (.csv), in its order; the files are there.

    Raises UserError as `image_files` does, and without a folder, a column or a report. It also does
    if the table has the files' hashes (of calibration samples) and a file is another now.
    """
    if image_root is None:
        raise UserError("--image-root is missing; give the folder that the images lie in")
    root = Path(image_root)
    require_folder(root)
    table = read_table(reports, require=["id"])
    if COLUMN not in table.columns:
        raise UserError(f"{reports} has no column {COLUMN!r}, which --image-root needs")
    rows = [
        {"id": name, COLUMN: cell} for name, cell in zip(table["id"], table[COLUMN], strict=True)
    ]
    found = [image_files(row, COLUMN, root) for row in rows]
    if HASHES in table.columns:
        for files, hashes in zip(found, table[HASHES], strict=True):
            _check_hashes(files, hashes.split(SEPARATOR), reports)
    return [file for files in found for file in files]


def _check_hashes(files: Sequence[ImageFile], hashes: Sequence[str], table: Path) -> None:
    for file, before in zip(files, hashes, strict=True):
        if file.sha256 != before:
            raise UserError(
                f"{file.place} is another than when {table} was made, with calibration samples for "
                f"the earlier one; delete {table} and run again, and they are made anew"
            )


def _is_file_name(name: str) -> bool:
    """Whether a message may show a name: a wrong column holds a report's text."""
    likely = name.lower().endswith(ENDINGS) or not any(map(str.isspace, name))
    return likely and not BREAKS.search(name) and len(name) <= LONGEST_NAME


def _image_file(root: Path, name: str, report: str, column: str) -> ImageFile:
    path = root / name
    file = ImageFile(path, report, column, "")
    try:
        if not path.is_file():
            raise UserError(
                f"{file.place} does not exist or is not a file; check the path and the image folder"
            )
        if not path.resolve().is_relative_to(root.resolve()):
            raise UserError(
                f"{file.place} is a link that leads out of the image folder; copy the file there, "
                "or give the folder that the files themselves lie in"
            )
        if path.stat().st_size > MAX_BYTES:
            raise UserError(
                f"{file.place} has more than {MAX_BYTES:,} bytes, which is no X-ray's; check it"
            )
        return ImageFile(path, report, column, sha256_file(path))
    except OSError as error:
        raise UserError(f"{file.place} cannot be read ({type(error).__name__})") from None


def decode(data: bytes) -> Any:
    """Return the image in a file's bytes as a PIL image of mode RGB, whatever it shows."""
    return shown(data).image


def read_image(file: ImageFile) -> Any:
    """Return the image as a PIL image of mode RGB. Raises UserError as `read_shown`."""
    return read_shown(file).image


def read_shown(file: ImageFile) -> Shown:
    """Return the image and what was done to get it.

    Raises UserError, with the file, the column and the report, if it is no image that can be read.
    It also does for an image in which nothing can be seen.
    """
    try:
        data = file.path.read_bytes()
    except OSError as error:
        raise UserError(f"{file.place} cannot be read ({type(error).__name__})") from None
    try:
        found = shown(data)
    except UserError as error:
        raise UserError(f"{file.place} cannot be used: {error}") from None
    except MemoryError:
        raise
    # Decoders raise what they like, and some quote what they were reading.
    except Exception as error:
        raise UserError(
            f"{file.place} cannot be read as a PNG, JPEG or DICOM image ({type(error).__name__}, "
            f"it is {kind_of(data)}); mend the file, or leave it out of the column"
        ) from None
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise UserError(f"{file.place} was changed while it was in use; run again")
    if fault := nothing_seen(found.image):
        raise UserError(
            f"{file.place} ends {fault} (steps: {', '.join(found.steps)}); look at it in a viewer, "
            "and correct its header or pixels or leave it out of the column"
        )
    return found


def nothing_seen(image: Any) -> str:
    """What is wrong with an image in which nothing can be seen; empty for any other.

    image: PIL, of mode RGB.
    """
    counts = np.array(image.convert("L").histogram())
    enough = NEARLY * counts.sum()
    if counts[: DARK + 1].sum() >= enough:
        return "nearly black"
    if counts[-DARK - 1 :].sum() >= enough:
        return "nearly white"
    bands = np.convolve(counts, np.ones(BAND), "valid")
    if bands.max() >= enough:
        return "nearly one gray"
    apart = np.abs(np.subtract.outer(np.arange(bands.size), np.arange(bands.size))) >= BAND
    if (np.add.outer(bands, bands) * apart).max() >= enough:
        return "nearly in two grays alone"
    return ""
