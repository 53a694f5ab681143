"""A model's own processor: how images are made pixels, and prompts with images tokens."""

import hashlib
import importlib
import json
from copy import deepcopy
from pathlib import Path
from typing import Any

from radquant.errors import UserError
from radquant.families.images import check_takes_images


def load_processor(directory: str | Path, tokenizer: Any) -> Any:
    """The model's own processor, with the image code that works in Pillow.

    That is said, because transformers would take another where torchvision is installed, which
    resizes a little differently. `tokenizer` gets the processor's chat template, which some models
    have there alone.
    """
    from transformers import AutoProcessor

    shown = check_takes_images(directory)
    try:
        if shown.processor is not None:
            processor = without_videos(directory, tokenizer, *shown.processor)
        else:
            processor = AutoProcessor.from_pretrained(
                directory, backend="pil", local_files_only=True
            )
    except ModuleNotFoundError as error:
        raise UserError(
            f"the image processor of {directory} needs the package {error.name}, which is not "
            "installed; install the release of it that goes with your torch"
        ) from None
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


def without_videos(directory: str | Path, tokenizer: Any, module: str, name: str) -> Any:
    """A processor of a class that has parts for videos or sound, too, without these."""
    from transformers import AutoImageProcessor

    whole = getattr(importlib.import_module(module), name)

    def check(self: Any, part: str, given: Any) -> Any:
        return None if given is None else whole.check_argument_for_proper_class(self, part, given)

    of_images = type(name, (whole,), {"check_argument_for_proper_class": check})
    images = AutoImageProcessor.from_pretrained(directory, backend="pil", local_files_only=True)
    # Some classes add tokens to their tokenizer.
    parts = {"image_processor": images, "tokenizer": deepcopy(tokenizer)}
    said, _ = whole.get_processor_dict(directory, local_files_only=True)
    return of_images.from_args_and_dict([parts.get(each) for each in whole.get_attributes()], said)


def processor_hash(processor: Any) -> str:
    """sha256 of what decides the pixels that a model is shown: class and settings."""
    images = processor.image_processor
    said = {"class": type(images).__name__, **images.to_dict()}
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()
