"""One grayscale image of a DICOM file: its header, its stored values, how it is shown.

Nothing of a header is said but numbers that the pixels need; of its text, nothing at all.
"""

import io
import logging
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from radquant.errors import UserError
from radquant.grayscale import Steps, as_shown, distinct, number, numbers

MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
FRAME = ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")
# An overlay of the retired kind lies in bits that the image does not use; there can be 16.
OVERLAYS = [0x6000_0102 + at for at in range(0, 0x20_0000, 0x2_0000)]  # OverlayBitPosition
# All that decoding and showing one grayscale image takes; nothing of it is about a person.
DICOM_TAGS = (
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("SamplesPerPixel", "PlanarConfiguration", "PhotometricInterpretation", "NumberOfFrames"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence", "PresentationLUTShape"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("PixelAspectRatio", "ImagerPixelSpacing", "PixelSpacing"),
    *OVERLAYS,
    *FRAME,
    *PIXELS,
)
# Twice the largest mammograms, and below what Pillow warns of. A header may say 65,535 × 65,535.
MAX_PIXELS = 80_000_000
MAX_BYTES = 8 * MAX_PIXELS
MAX_MARKERS = 1 << 20  # bytes of a compressed image that are none of its pixels
MAX_ASPECT = 4.0
CLEARLY, ENOUGH = 8, 1000
DEFLATED = "1.2.840.10008.1.2.1.99"


def is_dicom(data: bytes) -> bool:
    """Whether bytes begin as a DICOM file does, be it without preamble, prefix or file meta."""
    if data[128:132] == b"DICM" or data[:4] == b"DICM":
        return True
    # The first element is of group 0002 or 0008, and its number is small.
    return data[:2] in (b"\x02\0", b"\x08\0", b"\0\x08") and 0 in data[2:4] and len(data) > 132


def dicom_gray(data: bytes) -> tuple[np.ndarray, Steps, float]:
    """Return the image in a DICOM file, what was done to it, and its pixels' height by width.

    The image is [height, width] float32 from 0 (black) to 1 (white).
    Raises UserError for what is not one grayscale frame, or is not as its header says.
    """
    from pydicom import dcmread

    if data[:4] == b"DICM":  # the prefix without the preamble
        data = bytes(128) + data
    _check_deflated(data)
    with _silent():
        header = dcmread(io.BytesIO(data), specific_tags=list(DICOM_TAGS), force=True)
        _check_header(header)
        words = _words(header)
        levels, places = distinct(words)
        del words
        values, steps = _stored(levels, places, header)
        shares, more = as_shown(values, _with_frame(header))
        return shares.astype(np.float32)[places], steps + more, _aspect(header)


def _check_header(header: Any) -> None:
    """Raise UserError, before any pixel is decoded, for an image that is not read."""
    held = [name for name in PIXELS if name in header and header[name].value]
    if not held:
        raise UserError("it holds no pixels; name the image's own file, or fetch it again")
    if (number(header, "NumberOfFrames") or 1) != 1:
        raise UserError("it holds several frames; store the one to be shown as a file")
    kind = str(header.get("PhotometricInterpretation") or "").strip().upper()
    if kind not in MONOCHROME or number(header, "SamplesPerPixel") not in (None, 1):
        raise UserError(
            f"only grayscale DICOM images ({', '.join(MONOCHROME)}) are read; store it as a PNG"
        )
    header.PhotometricInterpretation, header.SamplesPerPixel = kind, 1
    rows, columns = (_size(header, name) for name in ("Rows", "Columns"))
    if rows * columns > MAX_PIXELS:
        raise UserError(
            f"its header asks for {rows} × {columns} pixels, and at most {MAX_PIXELS:,} are read; "
            "store a smaller image"
        )
    allocated = _size(header, "BitsAllocated")
    if held[0] == "PixelData":
        stored = _size(header, "BitsStored")
        if stored > allocated or allocated not in (1, 8, 16, 32):
            raise UserError(
                f"its header says that {stored} of {allocated} bits hold a pixel, which is not "
                "read; correct BitsStored and BitsAllocated, or store 8 or 16 bits"
            )
        if number(header, "PixelRepresentation") not in (0, 1):
            raise UserError(
                "its header does not say by a PixelRepresentation of 0 or 1 whether pixels are "
                "signed; correct it"
            )
    _check_syntax(header)
    found, expected = len(header[held[0]].value), -(-rows * columns * allocated // 8)
    if not header.file_meta.TransferSyntaxUID.is_encapsulated:
        _check_length(found, expected)
    elif found > 2 * expected + MAX_MARKERS:  # run lengths would unpack to 64 times as much
        raise UserError(
            f"it holds {found:,} bytes of compressed pixels, and its header says {expected:,} "
            "before compression; correct Rows, Columns or NumberOfFrames"
        )


def _size(header: Any, name: str) -> int:
    found = number(header, name)
    if found is None or found < 1:
        raise UserError(f"its header has no {name}; the file is damaged, so fetch it again")
    return int(found)


def _check_length(found: int, expected: int) -> None:
    if found < expected:
        raise UserError(
            f"it holds {found} bytes of pixels, and its header says {expected}; the file is cut "
            "short, so fetch it again"
        )
    if found >= 2 * expected and found > expected + 1:
        raise UserError(
            f"it holds {found} bytes of pixels, and its header says {expected}; correct Rows, "
            "Columns, BitsAllocated or NumberOfFrames"
        )


def _check_syntax(header: Any) -> None:
    """Complete the transfer syntax of a header without one; raise UserError without a decoder."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.pixels import get_decoder
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if not hasattr(header, "file_meta"):
        header.file_meta = FileMetaDataset()
    syntax = header.file_meta.get("TransferSyntaxUID")
    packed = "PixelData" in header and header["PixelData"].is_undefined_length
    if packed and not (syntax and syntax.is_compressed):
        raise UserError(
            "its pixels are compressed, and it does not say how; correct its TransferSyntaxUID"
        )
    if not syntax:
        implicit, little = header.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
        return
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        available = False
    if not available:
        known = syntax.name if syntax.is_transfer_syntax else "in an unknown way"
        raise UserError(
            f"its pixels are compressed ({known}), for which no decoder is installed; decompress "
            "it, or install one (pylibjpeg with its plugins, for most)"
        )


def _check_deflated(data: bytes) -> None:
    """Raise UserError for a file that unpacks to more than any image takes."""
    if DEFLATED.encode() not in data[:2048] or data[132:136] != b"\x02\0\0\0":
        return
    rest = data[144 + int.from_bytes(data[140:144], "little") :]
    unpacker, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while rest and not unpacker.eof:
        size += len(unpacker.decompress(rest, 1 << 20))
        rest = unpacker.unconsumed_tail
        if size > MAX_BYTES:
            raise UserError(f"it unpacks to more than {MAX_BYTES:,} bytes; store it as it is")


def _words(header: Any) -> np.ndarray:
    """The pixels as the file holds them, [height, width], with bits that are none of theirs."""
    header.pixel_array_options(correct_unused_bits=False)
    try:
        array: np.ndarray = header.pixel_array
    except RuntimeError:
        raise UserError(
            "no installed decoder reads its compressed pixels "
            f"({header.file_meta.TransferSyntaxUID.name}); decompress it, install pylibjpeg with "
            "its plugins, or fetch it again if it is damaged"
        ) from None
    if array.ndim != 2:
        raise UserError("it holds more than one grayscale frame; store the one to be shown")
    return array


def _stored(levels: np.ndarray, places: np.ndarray, header: Any) -> tuple[np.ndarray, Steps]:
    """Return the values that are in the bits of a header, signed where it says so.

    levels: [n] distinct words; places: [height, width] among them. What is in other bits may be
    anything (PS3.5 8.1.1). Raises UserError where it is more of the values.
    """
    if levels.dtype.kind == "f":
        return levels, ()
    allocated, width = 8 * levels.dtype.itemsize, _size(header, "BitsStored")
    words = levels.astype(np.int64) & ((1 << allocated) - 1)
    lowest = _lowest_bit(words, allocated, width, header)
    steps = (f"from bit {lowest} on",) if lowest else ()
    whole = words >> lowest
    values, above = whole & ((1 << width) - 1), whole >> width
    if levels.dtype.kind == "i":
        values = np.where(values >> (width - 1), values - (1 << width), values)
    continued = (values & ((1 << (allocated - lowest)) - 1)) >> width  # of a negative value
    odd = np.where(above == continued, 0, above)
    if not odd.any():
        return values, steps
    odd &= ~(_overlay_bits(header) >> lowest >> width)
    if odd.any() and not _is_noise(odd[places.ravel()], values[places.ravel()], width):
        raise UserError(
            f"its pixels use more than the {width} bits that BitsStored names, without an overlay "
            "there; correct BitsStored and HighBit, or clear those bits"
        )
    return values, (*steps, "other bits cleared")


def _is_noise(above: np.ndarray, values: np.ndarray, width: int) -> bool:
    """Whether the bits above the values are none of theirs, by pixels that are neighbours.

    Suppose that those bits change from one pixel to the next. If they belong to the values, these
    wrap round, and the whole hardly changes. If they do not, the whole makes a jump, and the values
    hardly change. Of few pixels that is seen only where the numbers that those bits make leave some
    out.
    """
    edges = np.diff(above) != 0
    if edges.sum() < ENOUGH and np.unique(above).size == above.max() + 1:
        return False
    jumps = [np.abs(np.diff(each)[edges]).sum() for each in (values + (above << width), values)]
    return bool(jumps[0] > CLEARLY * jumps[1])


def _lowest_bit(words: np.ndarray, allocated: int, width: int, header: Any) -> int:
    """Where values begin in words: 0 if no value can be where HighBit says."""
    given = number(header, "HighBit")
    lowest = 0 if given is None else int(given) - width + 1
    used = int(np.bitwise_or.reduce(words))
    possible = 0 <= lowest <= allocated - width
    return lowest if possible and (used >> width or not used % (1 << lowest)) else 0


def _overlay_bits(header: Any) -> int:
    """The bits of a word that hold overlays, as one number."""
    bits = 0
    for position in OVERLAYS:
        if found := number(header, position):
            bits |= 1 << int(found)
    return bits


def _with_frame(header: Any) -> Any:
    """The header, with what an enhanced image says of its one frame in functional groups."""
    for name in reversed(FRAME):  # what is said of the frame goes before what all frames share
        for group in header.get(name) or []:
            for inner in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
                for item in group.get(inner) or []:
                    for element in item:
                        header[element.tag] = element
            for item in group.get("PixelMeasuresSequence") or []:
                if "PixelSpacing" in item:
                    header["PixelSpacing"] = item["PixelSpacing"]
    return header


def _aspect(header: Any) -> float:
    """A pixel's height by its width; 1 where that is not said, or for a difference below 1 %."""
    for name in ("PixelAspectRatio", "ImagerPixelSpacing", "PixelSpacing"):
        found = numbers(header, name)
        if len(found) != 2 or min(found) <= 0:  # a spacing of 0 stands for none
            continue
        ratio = found[0] / found[1]
        if not 1 / MAX_ASPECT <= ratio <= MAX_ASPECT:
            raise UserError(
                f"its {name} says that pixels are {ratio:g} times as high as wide; correct it"
            )
        return ratio if abs(ratio - 1) > 0.01 else 1.0
    return 1.0


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
