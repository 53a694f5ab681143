"""Image files of reports as 8-bit RGB: PNG, JPEG and DICOM.

What is in a file, pixels or header, goes into no message: errors name the file, the column and the
report. Of a DICOM header nothing but what the pixels need is read.
"""

import hashlib
import io
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from radquant.errors import UserError
from radquant.files import sha256_file

COLUMN = "images"  # of data/train.csv and data/eval.csv
SEPARATOR = ";"
MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
# All that decoding and showing one grayscale image takes; nothing of it is about a person.
DICOM_TAGS = (
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("SamplesPerPixel", "PlanarConfiguration", "PhotometricInterpretation", "NumberOfFrames"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence", "PixelData"),
)


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
    """Return the files that a cell names, in their order."""
    return [name.strip() for name in cell.split(SEPARATOR) if name.strip()]


def image_files(row: Mapping[str, Any], column: str, root: Path) -> tuple[ImageFile, ...]:
    """Return the images of a report, of which there is at least one; the files are there.

    Raises UserError for a report without an image, for a name that leads out of `root`, and for a
    file that is missing or locked.
    """
    names = image_names(str(row[column]))
    if not names:
        raise UserError(
            f"report {row['id']} names no image in column {column!r}; leave such reports out"
        )
    for name in names:
        if os.path.isabs(name) or ".." in Path(name).parts:
            raise UserError(
                f"report {row['id']} names {name!r} in column {column!r}, which is not inside the "
                "image folder; give its path from there"
            )
    return tuple(_image_file(root / name, str(row["id"]), column) for name in names)


def _image_file(path: Path, report: str, column: str) -> ImageFile:
    file = ImageFile(path, report, column, "")
    if not path.is_file():
        raise UserError(
            f"{file.place} does not exist or is not a file; check the path and the image folder"
        )
    try:
        return ImageFile(path, report, column, sha256_file(path))
    except OSError as error:
        raise UserError(f"{file.place} cannot be read ({type(error).__name__})") from None


def read_image(file: ImageFile) -> Any:
    """Return the image as a PIL image of mode RGB.

    Raises UserError, with the file, the column and the report, if it is no image that can be read.
    """
    try:
        data = file.path.read_bytes()
        image = decode(data)
    except UserError as error:
        raise UserError(f"{file.place} cannot be used: {error}") from None
    # Decoders raise what they like, and some quote what they were reading.
    except Exception as error:
        raise UserError(
            f"{file.place} cannot be read as a PNG, JPEG or DICOM image ({type(error).__name__}); "
            "mend the file, or decompress it if it is a compressed DICOM"
        ) from None
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise UserError(f"{file.place} was changed while it was in use; run again")
    return image


def decode(data: bytes) -> Any:
    """Return the image in a file's bytes as a PIL image of mode RGB.

    16 bits of gray, which no file says how to show, are stretched over the image's own range.
    """
    from PIL import Image, ImageOps

    if data[128:132] == b"DICM":
        return _from_gray(dicom_gray(data))
    with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith(("I", "F")):  # Pillow would cut everything above 255 off
            return _from_gray(stretched(np.asarray(image, dtype=np.float64)))
        return image.convert("RGB")


def _from_gray(shares: np.ndarray) -> Any:
    """shares: [height, width] within 0 and 1, black and white."""
    from PIL import Image

    return Image.fromarray(np.rint(shares * 255).astype(np.uint8)).convert("RGB")


def dicom_gray(data: bytes) -> np.ndarray:
    """Return the image in a DICOM file, [height, width] float64 from 0 (black) to 1 (white).

    Stored values go through the modality LUT or rescale slope and intercept (PS3.3 C.11.1), then
    through the first VOI LUT or, without one, the first window (C.11.2); without either they are
    stretched over the image's own range. MONOCHROME1, in which low values are white, is inverted.
    """
    from pydicom import dcmread
    from pydicom.pixels import apply_modality_lut, apply_voi

    with _silent():
        header = dcmread(io.BytesIO(data), specific_tags=list(DICOM_TAGS))
        if int(header.get("NumberOfFrames") or 1) != 1:
            raise UserError("it holds several frames; store the one to be shown as a file")
        kind = str(header.get("PhotometricInterpretation", ""))
        if kind not in MONOCHROME:
            raise UserError(f"only grayscale DICOM images ({', '.join(MONOCHROME)}) are read")
        values = apply_modality_lut(header.pixel_array, header)
        if header.get("VOILUTSequence"):
            bits = int(header.VOILUTSequence[0].LUTDescriptor[2])
            shares = apply_voi(values, header) / (2.0**bits - 1)
        else:
            shares = _shown(values.astype(np.float64), header)
    return 1 - shares if kind == "MONOCHROME1" else shares


def _shown(values: np.ndarray, header: Any) -> np.ndarray:
    center, width = (_first(header.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if center is None or width is None:
        return stretched(values)
    return windowed(values, center, width, str(header.get("VOILUTFunction") or "LINEAR").upper())


def _first(value: Any) -> float | None:
    """The first of an element's values; None where it is absent or empty."""
    values = [value] if isinstance(value, (int, float, str)) else list(value or [])
    return float(values[0]) if values and values[0] != "" else None


def windowed(
    values: np.ndarray, center: float, width: float, function: str = "LINEAR"
) -> np.ndarray:
    """Return values as shares of a window, 0 below it and 1 above it (PS3.3 C.11.2.1.2 and .3).

    Raises ValueError for a function or a width that the standard does not have.
    """
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID") or width <= 0:
        raise ValueError("no such window")
    if function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (values - center) / width))
    if function == "LINEAR":
        if width < 1:
            raise ValueError("no such window")
        center, width = center - 0.5, width - 1
    if width == 0:
        return (values > center).astype(np.float64)
    return np.clip((values - center) / width + 0.5, 0, 1)


def stretched(values: np.ndarray) -> np.ndarray:
    """Return values as shares of their own range; a flat image is black."""
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low) if high > low else np.zeros(values.shape)


@contextmanager
def _silent() -> Iterator[None]:
    """Let pydicom say nothing: its warnings quote the values of a header."""
    logger = logging.getLogger("pydicom")
    before = logger.propagate
    logger.propagate = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.propagate = before
