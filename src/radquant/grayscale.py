"""DICOM's grayscale transformations (PS3.3 C.11) on the distinct stored values of an image.

They work value by value, so each is computed once for each value, not for each pixel.
"""

import math
from typing import Any

import numpy as np

from radquant.errors import UserError

Steps = tuple[str, ...]  # what was done to an image, in words without numbers of its own


def distinct(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct values, [n] ascending, and where each pixel's is among them.

    Raises UserError for values that are no numbers.
    """
    if words.dtype.kind == "f":
        if not np.isfinite(words).all():
            raise UserError("some of its pixels are no numbers; store it with finite values")
    else:
        low = int(words.min())
        if int(words.max()) - low < 1 << 16:  # a table is quicker than sorting
            offsets = words.astype(np.int32 if words.itemsize < 4 else np.int64) - low
            there = np.bincount(offsets.ravel()) > 0
            rank = (np.cumsum(there) - 1).astype(np.int32)
            return (np.flatnonzero(there) + low).astype(words.dtype), rank[offsets]
    values, places = np.unique(words, return_inverse=True)
    return values, places.reshape(words.shape)


def as_shown(values: np.ndarray, header: Any) -> tuple[np.ndarray, Steps]:
    """Return stored values as shares from black (0) to white (1), and what was done.

    values: [n], distinct. They go through the modality LUT or rescale slope and intercept (C.11.1),
    then through the first VOI LUT or, without one, the first window (C.11.2). Without either they
    are stretched over the image's own range, padding left out. MONOCHROME1, in which low values are
    white, is inverted. Padding is black.
    """
    padding = _padding(values, header)
    inside = values[~padding]
    if not inside.size:
        raise UserError("all of its pixels are padding; leave it out")
    found, steps = _modality(inside, header)
    shown, more = _contrast(found, header)
    shown, steps = np.clip(shown, 0, 1), steps + more
    if inverse := _inverse(header):
        shown, steps = 1 - shown, (*steps, f"inverted ({inverse})")
    shares = np.zeros(values.shape)
    shares[~padding] = shown
    return shares, (*steps, "padding black") if padding.any() else steps


def _inverse(header: Any) -> str:
    """Why low values are white; empty where they are not. MONOCHROME1 with INVERSE is one."""
    if header.PhotometricInterpretation == "MONOCHROME1":
        return "MONOCHROME1"
    shape = str(header.get("PresentationLUTShape") or "").strip().upper()
    return "Presentation LUT Shape" if shape == "INVERSE" else ""


def _padding(values: np.ndarray, header: Any) -> np.ndarray:
    """Which of the stored values stand for no pixel (C.7.5.1.1.2): [n] bool."""
    ends = [number(header, name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    if ends[0] is None:
        return np.zeros(values.shape, dtype=bool)
    kept = [end for end in ends if end is not None]
    if values.dtype.kind != "f":
        kept = [_in_words(end, header) for end in kept]
    return (values >= min(kept)) & (values <= max(kept))


def _in_words(value: float, header: Any) -> int:
    """A whole number as the pixels' words hold it, whether it was written signed or not."""
    bits = int(header.BitsAllocated)
    word = int(value) % (1 << bits)
    return word - (1 << bits) if header.PixelRepresentation and word >> (bits - 1) else word


def _modality(values: np.ndarray, header: Any) -> tuple[np.ndarray, Steps]:
    if items := header.get("ModalityLUTSequence"):
        shown, _, note = looked_up(values, items[0], header, "ModalityLUTSequence")
        return shown, (f"modality LUT ({note})",)
    slope, intercept = (number(header, name) for name in ("RescaleSlope", "RescaleIntercept"))
    if slope == 0:
        raise UserError(
            "its RescaleSlope is 0, which makes all pixels one; correct it or take it out"
        )
    slope, intercept = 1.0 if slope is None else slope, intercept or 0.0
    if (slope, intercept) == (1.0, 0.0):
        return values, ()
    return values.astype(np.float64) * slope + intercept, ("rescaled",)


def _contrast(values: np.ndarray, header: Any) -> tuple[np.ndarray, Steps]:
    for item in header.get("VOILUTSequence") or []:
        if "LUTDescriptor" in item and "LUTData" in item:
            shown, top, note = looked_up(values, item, header, "VOILUTSequence")
            return shown / top, (f"VOI LUT ({note})",)
    values = values.astype(np.float64)
    centers, widths = (numbers(header, name) for name in ("WindowCenter", "WindowWidth"))
    if not centers and not widths:
        return stretched(values), ("stretched over its own range",)
    if len(centers) != len(widths):
        raise UserError(
            f"it has {len(centers)} window centers and {len(widths)} widths; correct them"
        )
    function = str(header.get("VOILUTFunction") or "LINEAR").strip().upper()
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise UserError(
            "its VOILUTFunction is none of LINEAR, LINEAR_EXACT and SIGMOID; correct it"
        )
    smallest = 1.0 if function == "LINEAR" else math.nextafter(0, 1)
    usable = [k for k, width in enumerate(widths) if width >= smallest]
    if not usable:
        raise UserError(
            f"its window is {widths[0]:g} wide, and {function} needs "
            f"{'at least 1' if function == 'LINEAR' else 'more than 0'}; correct WindowWidth, or "
            "take out WindowWidth and WindowCenter to stretch it over its own range"
        )
    which = f", {usable[0] + 1} of {len(widths)}" if usable[0] else ""
    shown = windowed(values, centers[usable[0]], widths[usable[0]], function)
    return shown, (f"window ({function}{which})",)


def windowed(
    values: np.ndarray, center: float, width: float, function: str = "LINEAR"
) -> np.ndarray:
    """Return values as shares of a window, 0 below it and 1 above it (PS3.3 C.11.2.1.2 and .3).

    Raises ValueError for a function or a width that the standard does not have.
    """
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID") or width <= 0:
        raise ValueError("no such window")
    if function == "SIGMOID":
        with np.errstate(over="ignore"):
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


def looked_up(
    values: np.ndarray, item: Any, header: Any, name: str
) -> tuple[np.ndarray, float, str]:
    """Return what a lookup table makes of values, its white, and its depth in words (C.11.1.1).

    Its white is the greatest number of the declared bits. Its data may need more bits, or leave
    some of them unused. The declared depth is then that of a word or wrong, and the data's own
    greatest value is white. Raises UserError for a table that is none, or that lacks entries which
    the image needs.
    """
    told = numbers(item, "LUTDescriptor")
    if len(told) != 3 or "LUTData" not in item:
        raise UserError(f"its {name} has no whole table; correct it or take it out")
    count, bits = int(told[0]) % (1 << 16) or 1 << 16, int(told[2])
    table = _entries(item["LUTData"].value, count, bits, header)
    if bits > 8 and table.size == -(-count // 2) < count:
        raise UserError(
            f"its {name} has as many bytes as entries, which are of 8 bits then, and declares "
            f"{bits} bits; correct it or take it out"
        )
    first = _first_mapped(int(told[1]), count, values)
    wanted = np.clip(np.rint(values - float(first)), 0, count - 1).astype(np.int64)
    if int(wanted.max()) >= table.size:
        raise UserError(
            f"its {name} has {table.size} entries of the {count} that it declares, and pixels need "
            "those that are not there; correct it or take it out"
        )
    greatest = int(table.max())
    if not greatest:
        raise UserError(f"its {name} holds nothing but 0; correct it or take it out")
    needed = greatest.bit_length()
    if needed == bits:
        return table[wanted].astype(np.float64), float((1 << bits) - 1), f"{bits} bits"
    note = f"{needed} bits, {bits} declared"
    return table[wanted].astype(np.float64), float(greatest), note


def _entries(data: Any, count: int, bits: int, header: Any) -> np.ndarray:
    """The table's entries, at most `count`: [n] uint8 or uint16.

    Entries of 8 bits may fill a word each or lie two in a word, the first in its lower half. The
    data's length says which.
    """
    if isinstance(data, bytes):
        order = "<" if header.original_encoding[1] in (True, None) else ">"
        words = np.frombuffer(data + bytes(len(data) % 2), dtype=f"{order}u2")
    else:
        words = np.atleast_1d(np.asarray(data, dtype=np.int64)) & 0xFFFF
    if bits <= 8 and words.size < count:
        return np.asarray(words, dtype="<u2").view(np.uint8)[:count]
    return words[:count].astype(np.uint16)


def _first_mapped(given: int, count: int, values: np.ndarray) -> int:
    """The first value mapped. Written unsigned where it is negative, or the other way round, it
    leads to a table that no value of the image lies in."""
    other = given - (1 << 16) if given >= 1 << 15 else given + (1 << 16)
    for first in (given, other):
        if ((values >= first) & (values < first + count)).any():
            return first
    return given


def number(header: Any, name: str | int) -> float | None:
    """The first of an element's numbers; None where it is absent or empty."""
    found = numbers(header, name)
    return found[0] if found else None


def numbers(header: Any, name: str | int) -> list[float]:
    """An element's numbers, none where it is absent or empty.

    Raises UserError for anything else, which is not said.
    """
    label = name if isinstance(name, str) else "OverlayBitPosition"  # the one of 16 groups
    try:
        value = header[name].value if name in header else None
        values = [value] if isinstance(value, (int, float, str)) else list(value or [])
        found = [float(each) for each in values if each not in ("", None)]
    except (ValueError, TypeError, ArithmeticError, NotImplementedError):
        raise UserError(f"its {label} is no number; correct it or take it out") from None
    if not all(map(math.isfinite, found)):
        raise UserError(f"its {label} is no finite number; correct it or take it out")
    return found
