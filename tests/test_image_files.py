"""Image files as 8-bit RGB: closed forms of DICOM's grayscale, Pillow's modes, what is refused."""

import io
import logging
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels import apply_windowing
from pydicom.sequence import Sequence
from tiny_images import random_gray, write_dicom, write_png

from radquant.errors import UserError
from radquant.files import sha256_file
from radquant.grayscale import stretched, windowed
from radquant.image_files import ImageFile, decode, image_files, image_names, read_image

RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def gray_of(path: Path) -> np.ndarray:
    pixels = np.asarray(decode(path.read_bytes()))
    assert pixels.dtype == np.uint8
    assert pixels.shape[-1] == 3
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


def test_a_12_bit_window_with_rescaling_inverted(tmp_path: Path) -> None:
    """x = 2 v − 1024; y = ((x − (c − 0.5)) / (w − 1) + 0.5) · 255 within the window."""
    header = {"RescaleSlope": "2", "RescaleIntercept": "-1024"}
    header |= {"WindowCenter": ["3000", "40"], "WindowWidth": ["2001", "400"]}
    shown = gray_of(write_dicom(tmp_path / "a.dcm", RAMP, **header))
    x = 2.0 * RAMP - 1024
    expected = np.rint(255 * np.minimum(1, np.maximum(0, (x - 2999.5) / 2000 + 0.5)))
    assert (shown == expected).all()
    assert (shown[x <= 1999.5] == 0).all()
    assert (shown[x > 3999.5] == 255).all()
    assert len(np.unique(shown)) == 256
    header["PhotometricInterpretation"] = "MONOCHROME1"
    inverted = gray_of(write_dicom(tmp_path / "b.dcm", RAMP, **header))
    exact = 255 - 255 * np.clip((x - 2999.5) / 2000 + 0.5, 0, 1)
    assert (inverted == np.rint(exact)).all()


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("center", "width"), [(2048, 4096), (700.5, 300), (100, 1.5), (5000, 10)])
def test_windows_are_pydicoms(tmp_path: Path, function: str, center: float, width: float) -> None:
    header = {"WindowCenter": center, "WindowWidth": width, "VOILUTFunction": function}
    path = write_dicom(tmp_path / "a.dcm", RAMP, **header)
    theirs = apply_windowing(RAMP, dcmread(path)) / 4095
    with np.errstate(over="ignore"):
        ours = windowed(RAMP.astype(float), center, width, function)
    np.testing.assert_allclose(ours, theirs, atol=1e-12)
    assert (gray_of(path) == np.rint(theirs * 255)).all()


def test_a_window_of_one_value_is_a_threshold() -> None:
    """PS3.3 C.11.2.1.2.1: width 1 is allowed, and nothing lies between."""
    assert windowed(np.array([9.0, 9.5, 10.0]), 10, 1).tolist() == [0, 0, 1]
    for width, function in ((0.5, "LINEAR"), (0, "SIGMOID"), (-1, "LINEAR_EXACT"), (9, "CUBIC")):
        with pytest.raises(ValueError, match="no such window"):
            windowed(np.zeros(1), 0, width, function)


@pytest.mark.parametrize("empty", [{}, {"WindowCenter": None, "WindowWidth": None}])
def test_without_a_window_the_own_range_is_shown(tmp_path: Path, empty: dict[str, Any]) -> None:
    values = np.array([[100, 300], [200, 140]], dtype=np.uint16)
    shown = gray_of(write_dicom(tmp_path / "a.dcm", values, **empty))
    assert shown.tolist() == [[0, 255], [128, 51]]
    signed = np.array([[-100, 100], [0, -60]], dtype=np.int16)
    assert gray_of(write_dicom(tmp_path / "b.dcm", signed)).tolist() == [[0, 255], [128, 51]]
    flat = np.full((2, 2), 7, dtype=np.uint8)
    assert not gray_of(write_dicom(tmp_path / "c.dcm", flat, 8)).any()
    assert stretched(np.array([3.0, 5.0, 4.0])).tolist() == [0, 1, 0.5]


def lut(first: int, bits: int, values: list[int]) -> Sequence:
    item = Dataset()
    item.LUTDescriptor, item.LUTData = [len(values), first, bits], values
    item["LUTDescriptor"].VR = item["LUTData"].VR = "US"
    return Sequence([item])


def test_lookup_tables(tmp_path: Path) -> None:
    """A modality LUT comes first, a VOI LUT then and instead of a window."""
    values = np.array([[0, 1], [2, 3]], dtype=np.uint8)
    modality = {"ModalityLUTSequence": lut(0, 16, [10, 20, 30, 110])}
    shown = gray_of(write_dicom(tmp_path / "a.dcm", values, 8, **modality))
    assert shown.tolist() == [[0, 26], [51, 255]]
    voi = {"VOILUTSequence": lut(1, 10, [0, 1023, 511]), "WindowCenter": 1, "WindowWidth": 2}
    shown = gray_of(write_dicom(tmp_path / "b.dcm", values, 8, **voi))
    assert shown.tolist() == [[0, 0], [255, 127]]


def test_pillows_modes(tmp_path: Path) -> None:
    gray = random_gray(0)
    assert (gray_of(write_png(tmp_path / "gray.png", gray)) == gray).all()
    deep = random_gray(1, levels=4096)  # 12 bits in 16
    shown = gray_of(write_png(tmp_path / "deep.png", deep))
    low, high = int(deep.min()), int(deep.max())
    assert (shown == np.rint((deep.astype(float) - low) / (high - low) * 255)).all()
    color = np.stack([gray, gray // 2, 255 - gray], -1)
    written = write_png(tmp_path / "color.png", color)
    assert (np.asarray(decode(written.read_bytes())) == color).all()
    alpha = np.dstack([color, np.full(gray.shape, 255, dtype=np.uint8)])
    written = write_png(tmp_path / "alpha.png", alpha)
    assert (np.asarray(decode(written.read_bytes())) == color).all()
    slope = (np.add.outer(np.arange(40), np.arange(32)) * 3).astype(np.uint8)
    near = gray_of(write_png(tmp_path / "gray.jpg", slope)).astype(int)
    assert np.abs(near - slope).max() < 8
    turned = Image.fromarray(gray)
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned by a quarter
    turned.save(tmp_path / "turned.jpg", exif=exif, quality=100, subsampling=0)
    assert gray_of(tmp_path / "turned.jpg").shape == gray.shape[::-1]


def test_cells_name_images_in_order(tmp_path: Path) -> None:
    for name in ("a b.png", "c/d.png"):
        write_png(tmp_path / name, random_gray(2))
    assert image_names(" a b.png; c/d.png ;;") == ["a b.png", "c/d.png"]
    # Spelt in two ways, an image would be in training and evaluation without being noticed.
    assert image_names("./c//d.png;c/./d.png") == ["c/d.png", "c/d.png"]
    files = image_files({"id": "r1", "images": "c/d.png;a b.png"}, "images", tmp_path)
    assert [file.path for file in files] == [tmp_path / "c" / "d.png", tmp_path / "a b.png"]
    assert {file.sha256 for file in files} == {sha256_file(tmp_path / "a b.png")}
    assert read_image(files[0]).mode == "RGB"
    with pytest.raises(UserError, match="report r1 names no image in column 'images'"):
        image_files({"id": "r1", "images": " ; "}, "images", tmp_path)
    with pytest.raises(UserError, match=r"x\.png, named in column 'images' of report r1, does not"):
        image_files({"id": "r1", "images": "a b.png;x.png"}, "images", tmp_path)
    write_png(files[0].path, random_gray(3))
    with pytest.raises(UserError, match=r"d\.png, named in .* was changed while it was in use"):
        read_image(files[0])


def broken(path: Path, case: str) -> Path:
    """A file that cannot be read as an image."""
    if case == "cut":
        buffer = io.BytesIO()
        noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
        Image.fromarray(noise).save(buffer, "PNG")
        path.write_bytes(buffer.getvalue()[:2000])
    elif case == "gif":
        buffer = io.BytesIO()
        Image.fromarray(random_gray(0)).save(buffer, "GIF")
        path.write_bytes(buffer.getvalue())
    elif case == "text":
        path.write_text("Doe^Jane has no acute effusion.")
    elif case == "short":
        write_dicom(path, RAMP)
        path.write_bytes(path.read_bytes()[:-4000])
    elif case == "no pixels":
        write_dicom(path, RAMP, PixelData=None)
    elif case == "window":
        write_dicom(path, RAMP, WindowCenter=5, WindowWidth=0)
    elif case == "frames":
        write_dicom(path, np.stack([RAMP, RAMP]), NumberOfFrames=2)
    else:
        write_dicom(path, RAMP, 16, PhotometricInterpretation="PALETTE COLOR")
    return path


CASES = {
    **dict.fromkeys(("cut", "gif", "text"), "cannot be read as a PNG, JPEG or DICOM image"),
    "short": "cannot be used: it holds 4192 bytes of pixels, and its header says 8192",
    "no pixels": "cannot be used: it holds no pixels",
    "window": "cannot be used: its window is 0 wide, and LINEAR needs at least 1",
    "frames": "cannot be used: it holds several frames",
    "palette": "cannot be used: only grayscale DICOM images (MONOCHROME1, MONOCHROME2) are read",
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_no_image_is_refused_by_name(tmp_path: Path, case: str) -> None:
    path = broken(tmp_path / "file", case)
    (file,) = image_files({"id": "r7", "images": "file"}, "images", tmp_path)
    with pytest.raises(UserError) as caught:
        read_image(file)
    message = str(caught.value)
    assert message.startswith(f"{path}, named in column 'images' of report r7, {CASES[case]}")
    assert "Doe" not in message
    assert "\n" not in message
    assert caught.value.__suppress_context__


def named(folder: Path, name: str) -> ImageFile:
    (file,) = image_files({"id": "r7", "images": name}, "images", folder)
    return file


def refused(folder: Path, name: str) -> str:
    with pytest.raises(UserError) as caught:
        read_image(named(folder, name))
    assert "\n" not in str(caught.value)
    return str(caught.value)


NOTHING_SEEN = {
    "mask": ("nearly in two grays alone", (RAMP > 2000) * 100 + 50),
    "mask in a JPEG": ("nearly in two grays alone", np.where(RAMP % 3, RAMP % 5, 250 + RAMP % 5)),
    "12 bits shown as 16": ("nearly black", RAMP // 257),
    "and inverted": ("nearly white", 255 - RAMP // 257),
    "flat": ("nearly one gray", 128 + RAMP % 5),
}


@pytest.mark.parametrize("case", NOTHING_SEEN)
def test_an_image_in_which_nothing_is_seen_is_refused_by_name(tmp_path: Path, case: str) -> None:
    fault, pixels = NOTHING_SEEN[case]
    write_png(tmp_path / "a.png", pixels.astype(np.uint8))
    said = refused(tmp_path, "a.png")
    place = f"{tmp_path / 'a.png'}, named in column 'images' of report r7,"
    assert said.startswith(f"{place} ends {fault} (steps: as it is); look at it in a viewer")
    pixels[0, :20] = np.arange(60, 200, 7)  # a few pixels of a marker change nothing
    write_png(tmp_path / "a.png", pixels.astype(np.uint8))
    assert f"ends {fault}" in refused(tmp_path, "a.png")


def test_dark_and_bright_x_rays_are_shown(tmp_path: Path) -> None:
    """A hand on a black plate, and a chest whose air is all that is not white."""
    hand = np.zeros((64, 64), dtype=np.uint8)
    hand[:4] = 60 + RAMP[:4] % 150
    chest = np.full((64, 64), 250, dtype=np.uint8)
    chest[:4] = 60 + RAMP[:4] % 100
    for name, pixels in (("hand.png", hand), ("chest.png", chest)):
        write_png(tmp_path / name, pixels)
        assert (np.asarray(read_image(named(tmp_path, name)))[..., 0] == pixels).all()


def test_a_window_beside_the_values_is_refused_by_name(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", RAMP, WindowCenter=60000, WindowWidth=100)
    said = refused(tmp_path, "a.dcm")
    assert "ends nearly black (steps: window (LINEAR), 8 bits)" in said


def test_pngs_and_jpegs_that_are_more_than_one_picture_or_less(tmp_path: Path) -> None:
    gray = Image.fromarray(random_gray(0))
    gray.save(tmp_path / "moving.png", save_all=True, append_images=[Image.new("L", gray.size)])
    assert "it holds several frames" in refused(tmp_path, "moving.png")
    for mode in ("LA", "RGBA"):
        half = gray.convert(mode)
        half.putalpha(Image.fromarray(255 - random_gray(0) // 2))
        half.save(tmp_path / "half.png")
        assert "it is transparent in places" in refused(tmp_path, "half.png")
    gray.convert("P").save(tmp_path / "palette.png", transparency=int(random_gray(0)[0, 0]))
    assert "it is transparent in places" in refused(tmp_path, "palette.png")
    gray.convert("P").save(tmp_path / "palette.png")
    assert (gray_of(tmp_path / "palette.png") == random_gray(0)).all()
    gray.convert("CMYK").save(tmp_path / "four.jpg", quality=100, subsampling=0)
    assert np.abs(gray_of(tmp_path / "four.jpg").astype(int) - random_gray(0)).max() < 8
    Image.new("L", (1, 1), 100).save(tmp_path / "one.png")
    assert "ends nearly one gray" in refused(tmp_path, "one.png")
    for width in (9_000, 60_000):
        one = (tmp_path / "one.png").read_bytes()
        head = b"IHDR" + width.to_bytes(4, "big") * 2 + one[24:29]
        bomb = one[:12] + head + zlib.crc32(head).to_bytes(4, "big") + one[33:]
        (tmp_path / "bomb.png").write_bytes(bomb)
        assert "it has more than 80,000,000 pixels" in refused(tmp_path, "bomb.png")
    gray.save(tmp_path / "image.dcm", "PNG")  # its content says what it is
    assert (gray_of(tmp_path / "image.dcm") == random_gray(0)).all()
    whole = (tmp_path / "four.jpg").read_bytes()
    for cut in (2, 50):
        for rest in (b"", bytes(cut)):  # a download that broke off, of a file as long as it is said
            (tmp_path / "cut.jpg").write_bytes(whole[:-cut] + rest)
            assert "it ends before its picture does" in refused(tmp_path, "cut.jpg")


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"", "empty"),
        (b"\x1f\x8b\x08", "gzip-compressed"),
        (b"version https://git-lfs", "a Git LFS"),
    ],
)
def test_what_people_name_in_place_of_an_image(tmp_path: Path, start: bytes, kind: str) -> None:
    (tmp_path / "a.dcm").write_bytes(start)
    assert f"it is {kind}" in refused(tmp_path, "a.dcm")


def test_no_link_leads_out_of_the_image_folder(tmp_path: Path) -> None:
    inside, outside = tmp_path / "images", tmp_path / "private"
    for folder in (inside, outside):
        write_png(folder / "a.png", random_gray(0))
    (inside / "out.png").symlink_to(outside / "a.png")
    (inside / "folder").symlink_to(outside)
    for name in ("out.png", "folder/a.png"):
        with pytest.raises(UserError, match="is a link that leads out of the image folder"):
            named(inside, name)
    (inside / "within.png").symlink_to("a.png")
    (tmp_path / "elsewhere").symlink_to(inside)  # the folder itself may be one
    assert read_image(named(tmp_path / "elsewhere", "within.png")).mode == "RGB"
    (inside / "round.png").symlink_to("round.png")
    with pytest.raises(UserError, match=r"round\.png, named in .* does not exist or is not a file"):
        named(inside, "round.png")


@pytest.mark.parametrize(
    "cell",
    ["No acute effusion in this patient.", "Doe\njane.png", "a" * 3000, "d" * 400 + ".png", "a\0b"],
    ids=["report", "lines", "long", "too long a name", "nul"],
)
def test_a_column_of_texts_is_not_repeated(tmp_path: Path, cell: str) -> None:
    with pytest.raises(UserError) as caught:
        named(tmp_path, cell)
    assert "report r7" in str(caught.value)
    assert "effusion" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_of_a_header_is_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """pydicom warns of values that the standard does not allow, and quotes them."""
    path = write_dicom(tmp_path / "a.dcm", RAMP, NumberOfFrames="123456")
    path.write_bytes(path.read_bytes().replace(b"123456", b"Doe, J"))
    with pytest.warns(UserWarning, match="Doe, J"):
        dcmread(path).get("NumberOfFrames")  # what is kept quiet
    caplog.clear()
    (file,) = image_files({"id": "r7", "images": "a.dcm"}, "images", tmp_path)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(UserError) as caught:
            read_image(file)
    said = f"{caught.value}{caplog.text}{''.join(capfd.readouterr())}{list(map(str, warned))}"
    assert "Doe" not in said
    assert logging.getLogger("pydicom").propagate
