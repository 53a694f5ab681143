"""Which models can be shown images; by config.json alone, before anything heavy is loaded."""

from pathlib import Path

from radquant.errors import UserError
from radquant.files import read_json

MODEL_TYPE = "gemma3"  # Gemma3ForConditionalGeneration, MedGemma's class


def check_takes_images(directory: str | Path) -> None:
    """Raise UserError unless the model in `directory` is one that can be shown images."""
    kind = read_json(Path(directory) / "config.json").get("model_type")
    if kind != MODEL_TYPE:
        raise UserError(
            f"{directory} holds a model of type {kind!r}, which is shown no images (only "
            f"{MODEL_TYPE!r}, MedGemma's type, is); remove task.image_column or take such a model"
        )
