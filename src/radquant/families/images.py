"""Which models can be shown images; by config.json alone, before anything heavy is loaded."""

from pathlib import Path

from radquant.errors import UserError
from radquant.families.kind import Images
from radquant.families.lookup import family_of, model_types
from radquant.files import read_json


def check_takes_images(directory: str | Path) -> Images:
    """How the model in `directory` is shown images; raises UserError if it cannot be."""
    kind = read_json(Path(directory) / "config.json").get("model_type")
    images = family_of(kind).images
    if images is None:
        raise UserError(
            f"{directory} holds a model of type {kind!r}, which is shown no images (only "
            f"{those_with_images()}); remove task.image_column or take such a model"
        )
    return images


def those_with_images() -> str:
    """The model types that are shown images, in words."""
    found = {kind: family_of(kind).images for kind in model_types(lambda f: f.images is not None)}
    named = [f"{kind!r}, {images.known_from}'s type," for kind, images in found.items() if images]
    if len(named) == 1:
        return f"{named[0]} is"
    return f"{' '.join(named[:-1])} and {named[-1]} are"
