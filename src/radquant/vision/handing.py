"""Handing features to a model in the place of its own towers: all else stays transformers' code."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from radquant.families.lookup import family_of
from radquant.vision.features import ImageFeatures


def hand_out(model: Any) -> None:
    """Let a model take features, as `handed` returns them, where it would make them of pixels.

    Masks, positions and the tokens' places stay its own. The modules that see are not called and
    may be missing.
    """
    shown = family_of(model.config.model_type).images
    assert shown is not None  # families.images.check_takes_images refuses other models
    hidden = model.config.get_text_config().hidden_size

    def get_image_features(pixel_values: Tensor, *_: Any, **__: Any) -> Any:
        features, *layers = pixel_values.split(hidden, -1)
        return SimpleNamespace(
            pooler_output=features[None] if shown.joined else (features,),
            deepstack_features=[(each,) for each in layers],
        )

    model.model.get_image_features = get_image_features


def handed(
    images: Sequence[ImageFeatures], device: torch.device, dtype: torch.dtype
) -> dict[str, Tensor]:
    """The arguments of a model's forward or generate for images in the order of their tokens.

    pixel_values [tokens of all images, hidden · (1 + layers)] holds the features, those of further
    layers behind the embeddings. What else the family's models are told has its own name.
    """
    features = [torch.cat([each.embeddings, *each.layers], -1) for each in images]
    inputs = {
        name: torch.cat([each.inputs[name] for each in images]).to(device)
        for name in images[0].inputs
    }
    return {"pixel_values": torch.cat(features).to(device, dtype), **inputs}
