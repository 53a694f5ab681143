"""DICOM's tables, bits, padding and encodings, against the standard's rules in plain Python."""

import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
    RLELossless,
)
from tiny_images import write_dicom

from radquant import dicom
from radquant.dicom import dicom_gray
from radquant.errors import UserError
from radquant.pixels import shown

VALUES = np.array([[0, 1000, 2000], [3000, 4000, 4095]], dtype=np.uint16)


def levels(path: Path) -> list[list[int]]:
    image = np.asarray(shown(path.read_bytes()).image)
    assert (image == image[..., :1]).all()
    found: list[list[int]] = image[..., 0].tolist()
    return found


def steps(path: Path) -> tuple[str, ...]:
    return shown(path.read_bytes()).steps


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        shown(path.read_bytes())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def table(
    entries: Any, bits: int, first: int = 0, vr: str = "US", count: int | None = None
) -> Sequence:
    """A lookup table. vr: of its data, of which OW takes bytes as they are; first: SS if below 0.

    count: what the descriptor says; how many there are for None.
    """
    item = Dataset()
    count = len(entries) if count is None else count
    kind = "SS" if first < 0 else "US"
    signed = count - (1 << 16) if first < 0 and count >= 1 << 15 else count
    item.add_new("LUTDescriptor", kind, [signed, first, bits])
    item.add_new("LUTData", vr, entries if vr == "OW" else [int(each) for each in entries])
    return Sequence([item])


def by_hand(value: float, entries: Any, first: int, white: int) -> int:
    """C.11.1.1: below the first value mapped the first entry, above the last one the last."""
    place = min(max(int(value) - first, 0), len(entries) - 1)
    return round(255 * int(entries[place]) / white)


RAMP12, RAMP8 = np.arange(4096), np.arange(256)
# What a table holds and says, and what is white.
DEPTHS = {
    "12 in 12": (RAMP12, 12, 4095),
    "12 in 16": (RAMP12, 16, 4095),
    "12 in 10": (RAMP12, 10, 4095),
    "12 in 8": (RAMP12, 8, 4095),
    "16 in 16": (RAMP12 * 16, 16, 65535),
    "16 in 12": (RAMP12 * 16, 12, 65520),
    "8 in 8": (RAMP12 // 16, 8, 255),
    "8 in 16": (RAMP12 // 16, 16, 255),
    "9 in 9": (RAMP12 // 8, 9, 511),
    "9 in 16": (RAMP12 // 8, 16, 511),
    "downwards": (4095 - RAMP12, 16, 4095),
    "part of its range": (RAMP12 * 3 // 4, 12, 4095),
    "none that it can be": (RAMP12, 0, 4095),
}


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_tables_own_data_say_what_is_white(tmp_path: Path, depth: str) -> None:
    entries, bits, white = DEPTHS[depth]
    words = entries.astype("<u2").tobytes()
    for vr, data in (("US", entries), ("OW", words)):
        voi = table(data, bits, vr=vr, count=len(entries))
        path = write_dicom(tmp_path / "a.dcm", VALUES, VOILUTSequence=voi)
        expected = [[by_hand(v, entries, 0, white) for v in row] for row in VALUES]
        assert np.abs(np.subtract(levels(path), expected)).max() <= 1
        needed = max(entries.tolist()).bit_length()
        said = f"{bits} bits" if needed == bits else f"{needed} bits, {bits} declared"
        assert steps(path) == (f"VOI LUT ({said})", "8 bits")


@pytest.mark.parametrize("count", [256, 255, 5])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_entries_of_8_bits_fill_words_or_halves(tmp_path: Path, count: int, syntax: str) -> None:
    entries = ((RAMP8[:count] * 7 + 130) % 256).astype(np.uint8)
    values = np.arange(count - 3, count + 3, dtype=np.uint8).reshape(2, 3)
    expected = [[by_hand(v, entries, 0, 255) for v in row] for row in values.tolist()]
    halves = np.append(entries, np.zeros(count % 2, np.uint8)).view("<u2")
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    for words in (entries, halves):
        for vr in ("US", "OW"):
            data = words.astype(f"{order}u2").tobytes() if vr == "OW" else words
            path = write_dicom(tmp_path / "a.dcm", values, 8)
            header = dcmread(path)
            header.VOILUTSequence = table(data, 8, vr=vr, count=count)
            header.file_meta.TransferSyntaxUID = syntax
            header["PixelData"].VR = "OB"
            dcmwrite(path, header, enforce_file_format=True)
            assert levels(path) == expected


@pytest.mark.parametrize("implicit", [True, False])
def test_the_first_value_mapped_may_be_negative(tmp_path: Path, implicit: bool) -> None:
    """Written signed, or unsigned because the stored values are."""
    values = np.array([[0, 24], [1024, 4000]], dtype=np.uint16)
    entries = RAMP12.tolist()
    expected = [[by_hand(v - 1024, entries, -1024, 4095) for v in row] for row in values.tolist()]
    for first in (-1024, 65536 - 1024):
        voi = table(entries, 12, first)
        path = write_dicom(
            *(tmp_path / "a.dcm", values),
            RescaleSlope=1,
            RescaleIntercept=-1024,
            VOILUTSequence=voi,
        )
        if implicit:
            header = dcmread(path)
            header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
            dcmwrite(path, header, enforce_file_format=True)
        assert levels(path) == expected
    signed = np.array([[-2000, -1000], [0, 2047]], dtype=np.int16)
    path = write_dicom(tmp_path / "b.dcm", signed, VOILUTSequence=table(entries, 12, -2048))
    assert levels(path) == [[by_hand(v, entries, -2048, 4095) for v in r] for r in signed.tolist()]
    high = np.array([[40000, 41000], [43000, 44095]], dtype=np.uint16)
    for first in (40000, 40000 - 65536):
        voi = table(entries, 12, first)
        path = write_dicom(tmp_path / "c.dcm", high, 16, VOILUTSequence=voi)
        expected = [[by_hand(v, entries, 40000, 4095) for v in r] for r in high.tolist()]
        assert levels(path) == expected


def test_tables_of_other_lengths_than_declared(tmp_path: Path) -> None:
    whole = np.arange(65536, dtype="<u2").tobytes()
    voi = table(whole, 16, vr="OW", count=0)  # 0 says 65,536
    high = np.array([[0, 32768], [60000, 65535]], dtype=np.uint16)
    assert levels(write_dicom(tmp_path / "a.dcm", high, 16, VOILUTSequence=voi)) == [
        [0, 128],
        [233, 255],
    ]
    more = table([*range(4096), 0, 0], 12, count=4096)  # what is beyond was never declared
    path = write_dicom(tmp_path / "b.dcm", VALUES * 2, 16, VOILUTSequence=more)
    assert levels(path) == [[0, 125, 249], [255, 255, 255]]
    fewer = table(range(3000), 12, count=4096)
    path = write_dicom(tmp_path / "c.dcm", np.minimum(VALUES, 2999), VOILUTSequence=fewer)
    assert levels(path)[1] == [187, 187, 187]
    path = write_dicom(tmp_path / "d.dcm", VALUES, VOILUTSequence=fewer)
    assert "VOILUTSequence has 3000 entries of the 4096 that it declares" in refused(path)
    half = table(range(2048), 12, count=4096)
    path = write_dicom(tmp_path / "g.dcm", VALUES // 4, VOILUTSequence=half)
    assert "VOILUTSequence has as many bytes as entries" in refused(path)
    path = write_dicom(tmp_path / "e.dcm", VALUES, VOILUTSequence=table([0] * 4096, 12))
    assert "VOILUTSequence holds nothing but 0" in refused(path)
    path = write_dicom(tmp_path / "f.dcm", VALUES, ModalityLUTSequence=Sequence([Dataset()]))
    assert "ModalityLUTSequence has no whole table" in refused(path)


def test_a_modality_table_is_no_depth(tmp_path: Path) -> None:
    """Its output is what a window is in; pydicom's agrees where a table is as declared."""
    entries = RAMP12 * 10
    window = {"WindowCenter": 20000, "WindowWidth": 10000}
    for bits in (16, 12, 8):
        modality = {"ModalityLUTSequence": table(entries, bits)}
        path = write_dicom(tmp_path / f"{bits}.dcm", VALUES, **modality, **window)
        x = VALUES * 10.0
        expected = np.rint(255 * np.clip((x - 19999.5) / 9999 + 0.5, 0, 1))
        assert levels(path) == expected.tolist()
    header = dcmread(tmp_path / "16.dcm")
    theirs = apply_voi_lut(apply_modality_lut(header.pixel_array, header), header) / 65535
    assert levels(tmp_path / "16.dcm") == np.rint(theirs * 255).tolist()


def test_pydicoms_whole_chain_agrees(tmp_path: Path) -> None:
    """For ordinary files, of which each has another chain."""
    rng = np.random.default_rng(0)
    for seed in range(12):
        signed, bits = bool(seed % 2), (8, 10, 12, 16)[seed % 4]
        low, high = (-(1 << bits - 1), 1 << bits - 1) if signed else (0, 1 << bits)
        values = rng.integers(low, high, (6, 5)).astype(np.int16 if signed else np.uint16)
        if bits == 8:
            values = values.astype(np.int8 if signed else np.uint8)
        slope, intercept = (1, 2, 0.5)[seed % 3], (0, -100, 7)[seed % 3]
        header: dict[str, Any] = {"RescaleSlope": slope, "RescaleIntercept": intercept}
        header |= {
            "WindowCenter": slope * (high + low) / 2,
            "WindowWidth": slope * (high - low) / 3,
        }
        header["VOILUTFunction"] = ("LINEAR", "LINEAR_EXACT", "SIGMOID")[seed // 4]
        path = tmp_path / f"{seed}.dcm"
        write_dicom(path, values, bits, **header)
        if signed and bits == 8:
            read = dcmread(path)
            read.PixelData = values.tobytes()
            read.save_as(path)
        read = dcmread(path)
        theirs = apply_voi_lut(apply_modality_lut(read.pixel_array, read), read)
        bottom, top = slope * low + intercept, slope * (high - 1) + intercept
        expected = np.rint(255 * (theirs - bottom) / (top - bottom))
        assert np.abs(np.subtract(levels(path), expected)).max() <= 0


# ------------------------------------------------------------------------------ bits of a word


def words(path: Path, pixels: np.ndarray, **elements: Any) -> Path:
    """12 bits of 16, with a window of all they can be."""
    signed = pixels.dtype == np.int16
    window = {"WindowCenter": 0 if signed else 2048, "WindowWidth": 4096}
    return write_dicom(path, pixels, **{**window, **elements})


def test_the_high_bit_says_where_values_are(tmp_path: Path) -> None:
    plain = levels(words(tmp_path / "a.dcm", VALUES))
    assert plain == np.rint(255 * np.clip(VALUES / 4095, 0, 1)).tolist()
    assert levels(words(tmp_path / "b.dcm", VALUES << 4, HighBit=15)) == plain
    assert steps(tmp_path / "b.dcm")[0] == "from bit 4 on"
    # Values cannot be where these say.
    assert levels(words(tmp_path / "c.dcm", VALUES, HighBit=15)) == plain
    assert levels(words(tmp_path / "d.dcm", VALUES, HighBit=7)) == plain
    assert levels(words(tmp_path / "e.dcm", VALUES, HighBit=None)) == plain
    low = (VALUES << 4) | np.array([0, 5, 9], dtype=np.uint16)
    assert levels(words(tmp_path / "f.dcm", low, HighBit=15)) == plain  # 12 of 16


def test_what_lies_in_other_bits_is_not_shown(tmp_path: Path) -> None:
    plain = levels(words(tmp_path / "a.dcm", VALUES))
    overlay = VALUES | np.array([[0x8000, 0, 0], [0, 0x8000, 0]], dtype=np.uint16)
    assert levels(words(tmp_path / "b.dcm", overlay)) == plain
    assert steps(tmp_path / "b.dcm")[0] == "other bits cleared"
    for bit in (12, 15):
        drawn = VALUES | np.array([1 << bit, 0, 0], dtype=np.uint16)
        header = dcmread(words(tmp_path / "c.dcm", drawn))
        header.add_new(0x60000100, "US", 16)
        header.add_new(0x60000102, "US", bit)
        header.save_as(tmp_path / "c.dcm")
        assert levels(tmp_path / "c.dcm") == plain
    # Half of a picture is drawn over, next to where its values begin.
    smooth = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    drawn = smooth | np.tile(np.array([0, 1 << 12], dtype=np.uint16), 32)
    assert levels(words(tmp_path / "e.dcm", drawn)) == levels(words(tmp_path / "f.dcm", smooth))
    for pixels in (VALUES, smooth, smooth.reshape(1, -1)[:, 1500:1600]):
        path = words(tmp_path / "d.dcm", pixels, BitsStored=10, HighBit=9)
        assert "its pixels use more than the 10 bits that BitsStored names" in refused(path)
    path = words(tmp_path / "g.dcm", VALUES | np.uint16(0x1000))
    assert "its pixels use more than the 12 bits that BitsStored names" in refused(path)


def test_signed_values_need_no_sign_beyond_their_bits(tmp_path: Path) -> None:
    signed = np.array([[-2048, -1000, -1], [0, 1000, 2047]], dtype=np.int16)
    plain = levels(words(tmp_path / "a.dcm", signed))
    assert plain[0][0] == 0
    assert plain[1][2] == 255
    assert "other bits cleared" not in steps(tmp_path / "a.dcm")
    bare = (signed.view(np.uint16) & 0x0FFF).view(np.int16)
    assert levels(words(tmp_path / "b.dcm", bare)) == plain
    shifted = ((signed.view(np.uint16) & 0x0FFF) << 4).view(np.int16)
    assert levels(words(tmp_path / "c.dcm", shifted, HighBit=15)) == plain


def test_other_depths(tmp_path: Path) -> None:
    header = dcmread(write_dicom(tmp_path / "a.dcm", np.zeros((2, 8), np.uint8), 8))
    header.BitsAllocated = header.BitsStored = 1
    header.HighBit, header.PixelData = 0, bytes([0b00110101, 0b11110000])
    header.save_as(tmp_path / "a.dcm")
    assert levels(tmp_path / "a.dcm")[0] == [255, 0, 255, 0, 255, 255, 0, 0]
    header.BitsAllocated = header.BitsStored = 32
    header.Rows, header.Columns, header.HighBit = 1, 3, 31
    header.PixelData = np.array([0, 1 << 31, (1 << 32) - 1], dtype="<u4").tobytes()
    header.save_as(tmp_path / "b.dcm")
    assert levels(tmp_path / "b.dcm") == [[0, 128, 255]]
    for name, kind in (("FloatPixelData", "<f4"), ("DoubleFloatPixelData", "<f8")):
        del header.PixelData
        header.BitsAllocated = 8 * np.dtype(kind).itemsize
        setattr(header, name, np.array([-1.5, 0, 1.5], dtype=kind).tobytes())
        header.PixelData = None
        del header.PixelData
        header.save_as(tmp_path / "c.dcm")
        assert levels(tmp_path / "c.dcm") == [[0, 128, 255]]
        setattr(header, name, np.array([-1.5, np.nan, 1.5], dtype=kind).tobytes())
        header.save_as(tmp_path / "c.dcm")
        assert "pixels are no numbers" in refused(tmp_path / "c.dcm")
        delattr(header, name)
        header.PixelData = b""


# ------------------------------------------------------------------- windows, padding, polarity


def test_the_first_window_that_is_one(tmp_path: Path) -> None:
    plain = levels(write_dicom(tmp_path / "a.dcm", VALUES, WindowCenter=2048, WindowWidth=4096))
    several: dict[str, Any] = {"WindowCenter": [0, 2048], "WindowWidth": [0, 4096]}
    path = write_dicom(tmp_path / "b.dcm", VALUES, **several, VOILUTFunction=" linear ")
    assert levels(path) == plain
    assert steps(path)[0] == "window (LINEAR, 2 of 2)"
    sharp = {"WindowCenter": 2001, "WindowWidth": 1}
    shown_ = levels(write_dicom(tmp_path / "c.dcm", VALUES, **sharp))
    assert shown_ == [[0, 0, 0], [255, 255, 255]]
    for width, function in ((0, "LINEAR"), (-1, "SIGMOID"), (0.5, "LINEAR"), (0, "LINEAR_EXACT")):
        window: dict[str, Any] = {
            "WindowCenter": 1,
            "WindowWidth": width,
            "VOILUTFunction": function,
        }
        said = refused(write_dicom(tmp_path / "d.dcm", VALUES, **window))
        assert f"its window is {width} wide, and {function} needs" in said
    said = refused(write_dicom(tmp_path / "e.dcm", VALUES, WindowCenter=[1, 2], WindowWidth=9))
    assert "2 window centers and 1 widths" in said
    window = {"WindowCenter": 1, "WindowWidth": 2, "VOILUTFunction": "CUBIC"}
    assert "VOILUTFunction is none of" in refused(write_dicom(tmp_path / "f.dcm", VALUES, **window))
    # A table goes before a window, unless it is none.
    voi = {"VOILUTSequence": table(4095 - RAMP12, 12), **several}
    assert levels(write_dicom(tmp_path / "g.dcm", VALUES, **voi))[0][0] == 255
    voi["VOILUTSequence"] = Sequence([Dataset()])
    assert levels(write_dicom(tmp_path / "h.dcm", VALUES, **voi)) == plain


@pytest.mark.parametrize(("slope", "intercept"), [(-1, 4095), (2, None), (None, -5), ("", "")])
def test_rescaling(tmp_path: Path, slope: Any, intercept: Any) -> None:
    window = {"WindowCenter": 2048, "WindowWidth": 4096}
    given = {"RescaleSlope": slope, "RescaleIntercept": intercept}
    path = write_dicom(tmp_path / "a.dcm", VALUES, **window, **given)
    x = VALUES * float(slope or 1) + float(intercept or 0)
    assert levels(path) == np.rint(255 * np.clip((x - 2047.5) / 4095 + 0.5, 0, 1)).tolist()


def test_a_slope_of_nothing_is_refused(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", VALUES, RescaleSlope=0, RescaleIntercept=1)
    assert "RescaleSlope is 0" in refused(path)


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_stretches_nothing(tmp_path: Path, kind: str) -> None:
    signed = np.array([[-2000, -2000], [0, 100], [50, 150]], dtype=np.int16)
    inside = [[0, 170], [85, 255]] if kind == "MONOCHROME2" else [[255, 85], [170, 0]]
    for value in (-2000, 65536 - 2000):
        header = dcmread(
            write_dicom(tmp_path / "a.dcm", signed, 16, PhotometricInterpretation=kind)
        )
        header.add_new("PixelPaddingValue", "SS" if value < 0 else "US", value)
        header.save_as(tmp_path / "a.dcm")
        assert levels(tmp_path / "a.dcm") == [[0, 0], *inside]
        assert "padding black" in steps(tmp_path / "a.dcm")
    several = np.array([[65535, 60000], [100, 200], [150, 250]], dtype=np.uint16)
    for ends in ((60000, 65535), (65535, 60000)):
        header = dcmread(
            write_dicom(tmp_path / "b.dcm", several, 16, PhotometricInterpretation=kind)
        )
        header.add_new("PixelPaddingValue", "US", ends[0])
        header.add_new("PixelPaddingRangeLimit", "US", ends[1])
        header.save_as(tmp_path / "b.dcm")
        assert levels(tmp_path / "b.dcm") == [[0, 0], *inside]
    header.PixelPaddingValue, header.PixelPaddingRangeLimit = 0, 65535
    header.save_as(tmp_path / "b.dcm")
    assert "all of its pixels are padding" in refused(tmp_path / "b.dcm")


@pytest.mark.parametrize(
    ("kind", "shape", "inverted"),
    [
        ("MONOCHROME1", None, True),
        ("MONOCHROME1", "INVERSE", True),
        ("MONOCHROME1", "IDENTITY", True),
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME2", "IDENTITY", False),
    ],
)
def test_polarity(tmp_path: Path, kind: str, shape: str | None, inverted: bool) -> None:
    elements: dict[str, Any] = {"PhotometricInterpretation": kind, "PresentationLUTShape": shape}
    path = write_dicom(tmp_path / "a.dcm", VALUES, **elements)
    assert (levels(path)[0][0] == 255) == inverted
    assert any("inverted" in step for step in steps(path)) == inverted


def test_an_enhanced_image_of_one_frame(tmp_path: Path) -> None:
    """What is said of the frame goes before what all frames share, and both before the header."""

    def group(center: int) -> Sequence:
        window, rescale, whole = Dataset(), Dataset(), Dataset()
        window.WindowCenter, window.WindowWidth = center, 1001
        rescale.RescaleSlope, rescale.RescaleIntercept = 1, -1000
        whole.FrameVOILUTSequence = Sequence([window])
        whole.PixelValueTransformationSequence = Sequence([rescale])
        return Sequence([whole])

    elements: dict[str, Any] = {"WindowCenter": 9, "WindowWidth": 9, "NumberOfFrames": 1}
    for name, center in (("Shared", 1000), ("PerFrame", 2000)):
        elements[f"{name}FunctionalGroupsSequence"] = group(center)
        path = write_dicom(tmp_path / f"{name}.dcm", VALUES, **elements)
        x = VALUES - 1000.0
        expected = np.rint(255 * np.clip((x - center + 0.5) / 1000 + 0.5, 0, 1))
        assert levels(path) == expected.tolist()


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    given: list[dict[str, Any]] = [
        {"PixelAspectRatio": ["2", "1"]},
        {"ImagerPixelSpacing": [0.3, 0.15]},
    ]
    for elements in given:
        path = write_dicom(tmp_path / "a.dcm", VALUES, **elements)
        assert shown(path.read_bytes()).image.size == (3, 4)
        assert "made square" in steps(path)
    values: list[list[float]] = [[0.143, 0.1431], [0, 0], [0.1]]
    for value in values:
        path = write_dicom(tmp_path / "b.dcm", VALUES, PixelSpacing=value)
        assert shown(path.read_bytes()).image.size == (3, 2)
    path = write_dicom(tmp_path / "c.dcm", VALUES, PixelSpacing=[0.001, 1])
    assert "PixelSpacing says that pixels are 0.001 times as high as wide" in refused(path)


# ------------------------------------------------------------------------------- files


def test_encodings_show_the_same(tmp_path: Path) -> None:
    path = words(tmp_path / "a.dcm", VALUES, PhotometricInterpretation="MONOCHROME1")
    plain, data = levels(path), path.read_bytes()
    for syntax in (ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian):
        header = dcmread(path)
        if syntax == ExplicitVRBigEndian:
            header.PixelData = VALUES.astype(">u2").tobytes()
        header.file_meta.TransferSyntaxUID = syntax
        dcmwrite(tmp_path / "b.dcm", header, enforce_file_format=True)
        assert levels(tmp_path / "b.dcm") == plain
        if syntax != DeflatedExplicitVRLittleEndian:
            buffer = io.BytesIO()
            order = {"implicit_vr": syntax == ImplicitVRLittleEndian}
            del header.file_meta
            little = syntax != ExplicitVRBigEndian
            dcmwrite(buffer, header, little_endian=little, **order)
            (tmp_path / "c.dcm").write_bytes(buffer.getvalue())  # no preamble, no meta
            assert levels(tmp_path / "c.dcm") == plain
    header = dcmread(path)
    header.compress(RLELossless)
    header.save_as(tmp_path / "d.dcm")
    assert levels(tmp_path / "d.dcm") == plain
    for cut in (128, 132):  # no preamble; nor the prefix
        (tmp_path / "e.dcm").write_bytes(data[cut:])
        assert levels(tmp_path / "e.dcm") == plain


def bomb(path: Path) -> Path:
    """A header whose deflated rest is a thousand times its size."""
    write_dicom(path, VALUES)
    header = dcmread(path)
    header.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dcmwrite(path, header, enforce_file_format=True)
    data = path.read_bytes()
    start = 144 + int.from_bytes(data[140:144], "little")
    packer = zlib.compressobj(wbits=-15)
    path.write_bytes(data[:start] + packer.compress(bytes(4 << 20)) + packer.flush())
    return path


def test_a_file_that_unpacks_to_more_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicom, "MAX_BYTES", 3 << 20)
    assert "it unpacks to more than" in refused(bomb(tmp_path / "a.dcm"))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "too large": ({"Rows": 65535, "Columns": 65535}, "asks for 65535 × 65535 pixels"),
    "no rows": ({"Rows": None}, "has no Rows"),
    "no columns": ({"Columns": 0}, "has no Columns"),
    "no bits": ({"BitsAllocated": None}, "has no BitsAllocated"),
    "bits": ({"BitsStored": 17}, "17 of 16 bits hold a pixel"),
    "no sign": ({"PixelRepresentation": None}, "whether pixels are signed"),
    "more rows": ({"Rows": 3}, "holds 12 bytes of pixels, and its header says 18"),
    "fewer": ({"Rows": 1}, "holds 12 bytes of pixels, and its header says 6"),
    "frames": ({"NumberOfFrames": 2}, "several frames"),
    "palette": ({"PhotometricInterpretation": "PALETTE COLOR"}, "only grayscale"),
    "color": ({"SamplesPerPixel": 3}, "only grayscale"),
    "no kind": ({"PhotometricInterpretation": None}, "only grayscale"),
    "not finite": ({"WindowCenter": "NaN", "WindowWidth": "1"}, "is no finite number"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", REFUSED)
def test_headers_that_are_refused_before_a_pixel_is_read(tmp_path: Path, case: str) -> None:
    elements, said = REFUSED[case]
    assert said in refused(write_dicom(tmp_path / "a.dcm", VALUES, **elements))


def test_compressed_without_a_decoder(tmp_path: Path) -> None:
    header = dcmread(write_dicom(tmp_path / "a.dcm", VALUES))
    header.compress(RLELossless)
    header.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    header.save_as(tmp_path / "a.dcm")
    said = refused(tmp_path / "a.dcm")
    assert said.startswith("its pixels are compressed (JPEG Lossless")
    assert "pylibjpeg" in said
    other = ExplicitVRLittleEndian.encode().ljust(len(JPEGLosslessSV1), b"\0")
    data = (tmp_path / "a.dcm").read_bytes().replace(JPEGLosslessSV1.encode(), other)
    (tmp_path / "a.dcm").write_bytes(data)
    assert "compressed, and it does not say how" in refused(tmp_path / "a.dcm")


def test_the_array_has_no_order_of_its_own(tmp_path: Path) -> None:
    """Levels are computed once each; pixels of equal values are equal, others keep their order."""
    values = np.random.default_rng(1).integers(0, 4096, (20, 30)).astype(np.uint16)
    shares, done, aspect = dicom_gray(write_dicom(tmp_path / "a.dcm", values).read_bytes())
    low, high = int(values.min()), int(values.max())
    np.testing.assert_allclose(shares, (values - low) / (high - low), atol=1e-6)
    assert done == ("stretched over its own range",)
    assert aspect == 1
