"""Encoding images: the model's own towers and projector make of each what its language model reads.

One image at a time, so that its features do not depend, to the bit, on what is encoded beside it.
"""

import hashlib
import json
import resource
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from radquant import code
from radquant.cli import progress
from radquant.errors import UserError
from radquant.failures import sentence_of
from radquant.families.lookup import family_of
from radquant.image_files import ImageFile
from radquant.image_prompts import processed
from radquant.vision.features import (
    Features,
    ImageFeatures,
    read_features,
    tokens_of,
    write_features,
)
from radquant.vision.part import Vision

COSTS = ("wall_seconds", "cpu_seconds", "peak_process_bytes")


def encode_image(vision: Vision, file: ImageFile) -> ImageFeatures:
    """What the language model reads of an image, on the CPU.

    Raises UserError as `image_files.read_image` does, for an image that the model cannot encode,
    and for features that are no numbers.
    """
    shown = family_of(vision.model.config.model_type).images
    assert shown is not None  # open_vision refuses other models
    made = processed(vision.processor, file, **shown.processing, return_tensors="pt")
    inputs = {name: made[name] for name in shown.inputs}
    try:
        found = seen(vision, made["pixel_values"], inputs)
    # An image may leave no more than one patch, or too many in a row.
    except (RuntimeError, IndexError, ValueError) as error:
        if sentence_of(error) is not None:
            raise
        raise UserError(
            f"{file.place} cannot be encoded by {vision.directory} ({type(error).__name__}), most "
            "likely because it is too small or too narrow; leave the report out or crop the image"
        ) from None
    layers = getattr(found, "deepstack_features", None) or ()
    features = ImageFeatures(
        rows(found.pooler_output), tuple(map(rows, layers)), {n: v.cpu() for n, v in inputs.items()}
    )
    if not all(bool(each.isfinite().all()) for each in (features.embeddings, *features.layers)):
        raise UserError(
            f"{file.place} makes features that are not finite in {vision.directory}; use "
            "compute.dtype bfloat16 or float32"
        )
    return features


@torch.inference_mode()
def seen(vision: Vision, pixels: Tensor, inputs: Mapping[str, Tensor]) -> Any:
    """What the towers and the projector make of an image, as transformers returns it."""
    return vision.model.model.get_image_features(
        pixels.to(vision.device, vision.dtype),
        **{name: each.to(vision.device) for name, each in inputs.items()},
        return_dict=True,
    )


def rows(found: Any) -> Tensor:
    """[tokens, hidden] on the CPU, of a tensor with more dimensions or of one for each image."""
    joined = found if isinstance(found, Tensor) else torch.cat(list(found))
    return joined.flatten(0, -2).cpu().clone()


def encode_here(vision: Vision, files: Iterable[ImageFile], label: str = "") -> Features:
    """The features of images, kept in memory."""
    chosen = list(distinct(files).values())
    work = progress(chosen, label, len(chosen), "images")
    held = {file.sha256: encode_image(vision, file) for file in work}
    return Features(vision.sha256, vision.processor_sha256, dtype_name(vision), held=held)


def distinct(files: Iterable[ImageFile]) -> dict[str, ImageFile]:
    """Each image once, by the bytes of its file, in the order in which they come first."""
    found: dict[str, ImageFile] = {}
    for file in files:
        found.setdefault(file.sha256, file)
    return found


def dtype_name(vision: Vision) -> str:
    return str(vision.dtype).removeprefix("torch.")


def identity_of(vision: Vision) -> dict[str, str]:
    """What features depend on beside the image. key: sha256 of all of it, code and machine too."""
    said = {
        "vision": vision.sha256,
        "processor": vision.processor_sha256,
        "dtype": dtype_name(vision),
    }
    more = {
        **said,
        "device": vision.device.type,
        "threads": torch.get_num_threads(),
        "code": code.digest("radquant.vision.encoding"),
        **code.surroundings(with_processor=True),
    }
    key = hashlib.sha256(json.dumps(more, sort_keys=True).encode()).hexdigest()
    return {**said, "key": key}


def encode_to(
    vision: Vision, files: Sequence[ImageFile], store: Path, label: str
) -> list[dict[str, Any]]:
    """Put the features of images, each given once, into `store`, but for those that are there.

    Returns these of each image, sorted: `image` and `features`, the sha256 of its file and of its
    features, and their `tokens`. The rest is what it took when it was encoded (COSTS).
    """
    found = []
    for file in progress(files, label, len(files), "images"):
        path = store / f"{file.sha256}.safetensors"
        known = known_features(path)
        if known is None:
            started, spent = time.perf_counter(), time.process_time()
            features = encode_image(vision, file)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            costs = (time.perf_counter() - started, time.process_time() - spent, peak)
            said = {name: repr(cost) for name, cost in zip(COSTS, costs, strict=True)}
            write_features(path, features, {**said, "sha256": features.sha256})
            known = features, said
        features, said = known
        found.append(
            {
                "image": file.sha256,
                "features": features.sha256,
                "tokens": tokens_of(features),
                **{name: float(said[name]) for name in COSTS},
            }
        )
    return sorted(found, key=lambda row: str(row["image"]))


def known_features(path: Path) -> tuple[ImageFeatures, dict[str, str]] | None:
    """What a file of the store holds; None without one, or where it was damaged."""
    try:
        features, said = read_features(path)
    except (FileNotFoundError, SafetensorError, KeyError):
        return None
    return (features, said) if said.get("sha256") == features.sha256 else None
