"""Image files as tests need them, and a tiny random Gemma 3 with images and its real processor."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid
from tiny_architectures import tiny_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    Gemma3ImageProcessorPil,
    Gemma3Processor,
    GenerationConfig,
    PreTrainedTokenizerFast,
)

SPECIAL = ["<start_of_image>", "<end_of_image>", "<start_of_turn>", "<end_of_turn>"]
IMAGE = "<image_soft_token>"
WORDS = ["<pad>", "<s>", "</s>", "<unk>", "user", "model", "describe", "this", "image", "findings"]
WORDS += ["no", "acute", "effusion", "the", "lungs", "are", "clear", "heart", "size", "is"]
WORDS += ["normal", "cough", "fever", "pain", "chest", ".", ":"]
# As Gemma's: an image where the content says so, one turn after the other.
TEMPLATE = (
    "{{ bos_token }}{% for turn in messages %}<start_of_turn>"
    "{{ 'model' if turn['role'] == 'assistant' else turn['role'] }}\n"
    "{% if turn['content'] is string %}{{ turn['content'] | trim }}{% else %}"
    "{% for part in turn['content'] %}{% if part['type'] == 'image' %}<start_of_image>"
    "{% else %}{{ part['text'] | trim }}{% endif %}{% endfor %}{% endif %}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def tiny_vision_model(directory: Path, **changed: Any) -> Path:
    """Save a Gemma3ForConditionalGeneration whose images are 4 tokens of 50, and its processor.

    changed: other values of its text configuration.
    """
    model = tiny_model("gemma3", **changed)
    with torch.no_grad():  # it is all zeros at first, and so is every image then
        model.model.multi_modal_projector.mm_input_projection_weight.normal_()
    model.generation_config = GenerationConfig(eos_token_id=[2], pad_token_id=0)
    model.save_pretrained(directory)
    fill = [f"w{n}" for n in range(50 - len(WORDS) - len(SPECIAL) - 1)]
    vocabulary = {word: n for n, word in enumerate([*WORDS, *fill, *SPECIAL, IMAGE])}
    assert vocabulary[IMAGE] == 49 == model.config.image_token_id
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        extra_special_tokens={
            "boi_token": SPECIAL[0],
            "eoi_token": SPECIAL[1],
            "image_token": IMAGE,
            "start_of_turn": SPECIAL[2],
            "end_of_turn": SPECIAL[3],
        },
    )
    processor = Gemma3Processor(
        image_processor=Gemma3ImageProcessorPil(size={"height": 28, "width": 28}),
        tokenizer=tokenizer,
        chat_template=TEMPLATE,
        image_seq_length=4,
    )
    processor.save_pretrained(directory)
    return directory


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


def plain_inputs(processor: Any, images: Sequence[Any], text: str) -> dict[str, torch.Tensor]:
    """What transformers' own code makes of one chat turn with images."""
    content = [{"type": "image", "image": image} for image in images]
    turn = {"role": "user", "content": [*content, {"type": "text", "text": text}]}
    made: dict[str, torch.Tensor] = processor.apply_chat_template(
        [turn],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    return made
