"""What a model with images gets beside tokens: the images' features, and which tokens are theirs.

Some families let the tokens of an image see each other in both directions. Token types tell them
which these are: 1 for an image's tokens, 0 for others.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from radquant.checkpoints.loading import DTYPES, resolve_device
from radquant.errors import UserError
from radquant.families.lookup import family_of
from radquant.generation.batching import pad_left
from radquant.generation.engines.kind import Opened
from radquant.generation.tasks import Task
from radquant.prompts import Prompt
from radquant.vision.encoding import encode_here
from radquant.vision.features import Features, open_features
from radquant.vision.handing import handed
from radquant.vision.part import open_vision, vision_hash
from radquant.vision.processors import load_processor, processor_hash

__all__ = ["features_for", "load_processor", "model_inputs", "with_features"]


def with_features(opened: Opened, task: Task) -> Task:
    """The task with the features of its images, which every engine reads in their place."""
    return replace(task, features=features_for(opened, task.prompts))


def features_for(opened: Opened, prompts: Sequence[Prompt]) -> Features | None:
    """The features of the images of all prompts: those that are stored, or encoded here and now.

    None without images. Raises UserError for stored ones of another model, or where one is missing.
    """
    files = [image for prompt in prompts for image in prompt.images]
    wanted = opened.wanted
    if not files:
        return None
    if wanted.features is None:
        device, dtype = resolve_device(wanted.device), DTYPES[opened.dtype]
        vision = open_vision(
            wanted.model, device, dtype, wanted.trust_remote_code, opened.processor
        )
        return encode_here(vision, files, "encode images")
    features = open_features(wanted.features)
    check_features(features, opened)
    for file in files:
        features.require(file)
    return features


def check_features(features: Features, opened: Opened) -> None:
    """Raise UserError unless stored features are what the model itself would make of the images."""
    wanted = opened.wanted
    own = {
        "weights of the part that sees": vision_hash(wanted.model, wanted.trust_remote_code),
        "image processor": processor_hash(opened.processor),
        "dtype": opened.dtype,
    }
    stored = (features.vision, features.processor, features.dtype)
    for (name, value), other in zip(own.items(), stored, strict=True):
        if value != other:
            raise UserError(
                f"the features in {features.directory} were made by another {name} than that of "
                f"{wanted.model}; give the features that scripts/encode_images.py makes with it"
            )


def model_inputs(
    features: Features | None,
    prompts: Sequence[Prompt],
    lengths: Sequence[int],
    prefix: int,
    model: Any,
) -> dict[str, torch.Tensor]:
    """What `model` gets of the images of a batch; nothing if there are none.

    features: of all of them; the model hands them out in the place of its own
    (`vision.handing.hand_out`). lengths: tokens of each whole sequence. prefix: tokens that all
    begin with, in a cache already; none is an image's. If the family takes token types,
    token_type_ids int64 [B, T] come with what `vision.handing.handed` returns. They are for the
    layout of `pad_left`, prefix included: masks look them up by place in the whole sequence. (The
    argument's name is the family's.)
    """
    files = [image for prompt in prompts for image in prompt.images]
    if not files:
        return {}
    shown = family_of(model.config.model_type).images
    assert shown is not None  # load_processor refuses other models
    assert features is not None
    device = torch.device(model.device)
    inputs = handed([features.of(file) for file in files], device, model.dtype)
    if shown.token_types:
        types = [
            prompt.types + (0,) * (length - len(prompt.types))
            for prompt, length in zip(prompts, lengths, strict=True)
        ]
        inputs[shown.token_types] = pad_left(types, prefix, 0, device)[0]
    return inputs
