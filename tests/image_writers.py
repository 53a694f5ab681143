"""Image files as tests need them, without anything that needs a model."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid


def random_gray(seed: int, shape: tuple[int, int] = (40, 32), levels: int = 256) -> np.ndarray:
    """Blocks of random gray, which survive resizing."""
    blocks = np.random.default_rng(seed).integers(0, levels, (5, 4))
    kind = np.uint8 if levels <= 256 else np.uint16
    return np.kron(blocks, np.ones((shape[0] // 5, shape[1] // 4))).astype(kind)


def write_png(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write_dicom(path: Path, pixels: np.ndarray, bits: int = 12, **elements: Any) -> Path:
    """Write one grayscale image, with the name of a patient in its header.

    pixels: [height, width] of up to 16 bits, or signed. elements: more of the header, by keyword.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    data.PatientName = "Doe^Jane"
    data.Rows, data.Columns = pixels.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    wide = bits > 8
    data.BitsAllocated, data.BitsStored, data.HighBit = 16 if wide else 8, bits, bits - 1
    data.PixelRepresentation = int(np.issubdtype(pixels.dtype, np.signedinteger))
    kind = np.uint16 if wide else np.uint8
    data.PixelData = pixels.astype(np.int16 if data.PixelRepresentation else kind).tobytes()
    data["PixelData"].VR = "OW"
    for name, value in elements.items():
        setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)
    return path
