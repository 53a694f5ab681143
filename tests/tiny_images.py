"""A tiny random Gemma 3 with images and its real processor; image files are from image_writers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from gemma import GEMMA_CHAT
from image_writers import random_gray, write_dicom, write_png
from tiny_architectures import tiny_model
from tiny_tokenizers import word_tokenizer
from transformers import Gemma3ImageProcessorPil, Gemma3Processor, GenerationConfig

__all__ = ["plain_inputs", "random_gray", "tiny_vision_model", "write_dicom", "write_png"]

SPECIAL = ["<start_of_image>", "<end_of_image>", "<start_of_turn>", "<end_of_turn>"]
IMAGE = "<image_soft_token>"
WORDS = ["<pad>", "<s>", "</s>", "<unk>", "user", "model", "describe", "this", "image", "findings"]
WORDS += ["no", "acute", "effusion", "the", "lungs", "are", "clear", "heart", "size", "is"]
WORDS += ["normal", "cough", "fever", "pain", "chest", ".", ":"]


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
    tokenizer = word_tokenizer(
        [*WORDS, *fill, *SPECIAL, IMAGE],
        extra_special_tokens={
            "boi_token": SPECIAL[0],
            "eoi_token": SPECIAL[1],
            "image_token": IMAGE,
            "start_of_turn": SPECIAL[2],
            "end_of_turn": SPECIAL[3],
        },
    )
    assert tokenizer.convert_tokens_to_ids(IMAGE) == 49 == model.config.image_token_id
    processor = Gemma3Processor(
        image_processor=Gemma3ImageProcessorPil(size={"height": 28, "width": 28}),
        tokenizer=tokenizer,
        chat_template=GEMMA_CHAT,
        image_seq_length=4,
    )
    processor.save_pretrained(directory)
    return directory


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
