"""What is known of a model family.

Each module that `registry.MODEL_FAMILIES` names has one `Family` as FAMILY. It holds what the
model's config.json and modules do not tell. How embeddings are scaled, whether the head is tied to
them, and how its scores are capped is read from there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from radquant.families.architectures import Architecture


@dataclass(frozen=True)
class Lean:
    """What the lean engine (`generation/lean_decoder.py`) must be told to run a family.

    A model with images has one if its language model reads an image as vectors that stand in the
    place of tokens' embeddings. Their positions count up. The text model inside has its own.
    """

    rotary_by_layer_type: bool = False  # whether layers of each type turn by angles of their own
    both_ways: bool = False  # whether an image's tokens see each other in both directions


@dataclass(frozen=True)
class Images:
    """How a model is shown images."""

    known_from: str  # a model that has this type, for messages
    # The argument by which it must be told which tokens are an image's, if it must.
    token_types: str = ""
    # Whether an image's tokens have positions by height and width, which the model makes of grids.
    # No sequence can then be begun before its images are known.
    positions: bool = False
    # The module and class of its processor, where transformers loads it with code for videos that
    # needs torchvision; by default transformers finds it.
    processor: tuple[str, str] | None = None
    processing: Mapping[str, Any] = field(default_factory=dict)  # options of the image processor
    # What the processor says beside `pixel_values`, and the model is told: grids, sizes. Each is a
    # tensor whose first dimension counts images.
    inputs: tuple[str, ...] = ()
    # Whether the model's get_image_features hands out one tensor; else a sequence of them, which
    # its forward joins.
    joined: bool = True
    # Whether vLLM, handed features in the place of pixels, was seen to write what transformers
    # writes (`tests/test_vllm_images.py`).
    vllm: bool = False


@dataclass(frozen=True)
class Family:
    """What is known of the model types that share a module; by default nothing is."""

    # The linear layers of a decoder layer, and the final norm. None: they are found by inspection,
    # or belong to the text model inside, which has a type of its own.
    architecture: Architecture | None = None
    overflows_float16: bool = False  # activations exceed its range
    lean: Lean | None = None  # None: the lean engine cannot run it
    # Other packages, by `tool` in a configuration, whose quantization of it was tried.
    tools: tuple[str, ...] = ()
    # By the format of scripts/export.py: the classes in config.json that its server can be given.
    layouts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    images: Images | None = None  # None: it is shown none
