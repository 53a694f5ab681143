"""What a model with images gets beside tokens.

A model family (`radquant.families`) says how its models are shown images. Some let the tokens of
an image see each other in both directions; which these are is told to them by token types: 1 for an
image's tokens, 0 for others.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from radquant.errors import UserError
from radquant.families.images import check_takes_images
from radquant.families.lookup import family_of
from radquant.generation.batching import pad_left
from radquant.image_files import read_image
from radquant.prompts import Prompt


def load_processor(directory: str | Path, tokenizer: Any) -> Any:
    """The model's own processor, with the image code that works in Pillow.

    That is said, because transformers would take another where torchvision is installed, which
    resizes a little differently. `tokenizer` gets the processor's chat template, which some models
    have there alone.
    """
    from transformers import AutoProcessor

    check_takes_images(directory)
    try:
        processor = AutoProcessor.from_pretrained(directory, backend="pil", local_files_only=True)
    except Exception as error:  # any: its values go through code of each model type
        raise UserError(
            f"{directory} has no image processor that can be loaded ({type(error).__name__}); put "
            "the original's preprocessor_config.json and processor_config.json there"
        ) from None
    if not processor.chat_template:
        raise UserError(
            f"{directory} has no chat template, which says where in a prompt an image goes; take "
            "the model that is tuned for chats"
        )
    tokenizer.chat_template = processor.chat_template
    return processor


def model_inputs(
    processor: Any, prompts: Sequence[Prompt], lengths: Sequence[int], prefix: int, model: Any
) -> dict[str, torch.Tensor]:
    """What `model` gets of the images of a batch; nothing if there are none.

    lengths: tokens of each whole sequence. prefix: tokens that all begin with, in a cache already;
    none is an image's. Returns pixel_values [images, 3, height, width] in the model's dtype. If the
    family takes token types, token_type_ids int64 [B, T] come with them, for the layout of
    `pad_left`, prefix included: masks look them up by place in the whole sequence.
    """
    files = [image for prompt in prompts for image in prompt.images]
    if not files:
        return {}
    shown = family_of(model.config.model_type).images
    assert shown is not None  # load_processor refuses other models
    pixels = processor.image_processor(
        [read_image(file) for file in files], **shown.processing, return_tensors="pt"
    )["pixel_values"]
    device = torch.device(model.device)
    inputs = {"pixel_values": pixels.to(device, model.dtype)}
    if shown.token_types:
        types = [
            prompt.types + (0,) * (length - len(prompt.types))
            for prompt, length in zip(prompts, lengths, strict=True)
        ]
        inputs["token_type_ids"] = pad_left(types, prefix, 0, device)[0]
    return inputs
