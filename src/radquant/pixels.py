"""The image in a file's bytes as 8-bit RGB, and what was done to it: PNG, JPEG and DICOM.

What the bytes hold decides what they are.
"""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from radquant.dicom import MAX_PIXELS, dicom_gray, is_dicom
from radquant.errors import UserError
from radquant.grayscale import Steps, stretched

# Files that people name in place of an image, by their first bytes.
OTHER_KINDS = {
    b"GIF8": "a GIF",
    b"II*\0": "a TIFF",
    b"MM\0*": "a TIFF",
    b"RIFF": "a WebP or another RIFF file",
    b"\0\0\0\x0cjP": "a JPEG 2000",
    b"\x1f\x8b": "gzip-compressed",
    b"PK\3\4": "a zip archive",
    b"%PDF": "a PDF",
    b"version https://git-lfs": "a Git LFS pointer",
    b"": "no image, or a damaged one",
}


@dataclass(frozen=True)
class Shown:
    """An image as a model is shown it."""

    image: Any  # PIL, mode RGB
    steps: Steps  # what was done to get there


def kind_of(data: bytes) -> str:
    """What a file is that cannot be read, in words."""
    if not data:
        return "empty"
    if is_dicom(data):
        return "a damaged DICOM"
    return next(kind for start, kind in OTHER_KINDS.items() if data.startswith(start))


def shown(data: bytes) -> Shown:
    """Return the image in a file's bytes and what was done to it.

    16 bits of gray, which no PNG says how to show, are stretched over the image's own range.
    Raises UserError for an image that is not read, and whatever a decoder raises for a damaged one.
    """
    if is_dicom(data):
        shares, steps, aspect = dicom_gray(data)
        image, more = _square(_from_gray(shares), aspect)
        return Shown(image, (*steps, *more, "8 bits"))
    return _png_or_jpeg(data)


def _png_or_jpeg(data: bytes) -> Shown:
    from PIL import Image, ImageOps

    try:
        opened = Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
        too_large = opened.width * opened.height > MAX_PIXELS
    except Image.DecompressionBombError:
        too_large = True
    # A broken download may be filled up with zeros. They are decoded into gray at the lower edge.
    if data.startswith(b"\xff\xd8") and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
        raise UserError("it ends before its picture does; fetch it again")
    if too_large:
        raise UserError(f"it has more than {MAX_PIXELS:,} pixels; store a smaller image")
    with opened:
        if opened.format == "PNG" and getattr(opened, "n_frames", 1) > 1:
            raise UserError("it holds several frames; store the one to be shown as a file")
        image = ImageOps.exif_transpose(opened)
        turned = ("turned as EXIF says",) if opened.getexif().get(0x0112, 1) != 1 else ()
        if image.mode.startswith(("I", "F")):  # Pillow would cut everything above 255 off
            gray = _from_gray(stretched(np.asarray(image, dtype=np.float64)))
            return Shown(gray, (*turned, "16 bits stretched over its own range", "8 bits"))
        if image.has_transparency_data and any(image.convert("RGBA").histogram()[3 * 256 : -1]):
            raise UserError(
                "it is transparent in places, and what lies behind is not said; store it without "
                "transparency"
            )
        converted = () if image.mode in ("L", "RGB") else (f"from mode {image.mode}",)
        return Shown(image.convert("RGB"), (*turned, *converted, "as it is"))


def _from_gray(shares: np.ndarray) -> Any:
    """shares: [height, width] within 0 and 1, black and white."""
    from PIL import Image

    return Image.fromarray(np.rint(shares * 255).astype(np.uint8)).convert("RGB")


def _square(image: Any, aspect: float) -> tuple[Any, Steps]:
    """Enlarge an image whose pixels are not square. aspect: a pixel's height by its width."""
    if aspect == 1:
        return image, ()
    width, height = image.size
    size = (width, round(height * aspect)) if aspect > 1 else (round(width / aspect), height)
    return image.resize(size), ("made square",)
