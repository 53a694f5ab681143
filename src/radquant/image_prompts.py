"""Where images stand in a prompt: the tokens that a model's own processor puts there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from radquant.errors import UserError

if TYPE_CHECKING:
    from radquant.image_files import ImageFile


def with_image_tokens(processor: Any, text: str, images: Sequence[ImageFile], named: str) -> str:
    """A prompt with all tokens of an image where its text says that one belongs.

    The processor does the same with the text of a whole prompt. named: the report, for messages.
    Raises UserError unless the text has as many such places as there are images, and none of the
    tokens that are put there.
    """
    mark, tokenizer = processor.image_token, processor.tokenizer
    ids = [each for each in processor.image_token_ids if each is not None]
    others = [each for each in tokenizer.convert_ids_to_tokens(ids) if each != mark]
    if text.count(mark) != len(images) or any(each in text for each in others):
        raise UserError(
            f"{named}: its prompt says {text.count(mark)} times that an image begins, and it has "
            f"{len(images)}; take {' and '.join([mark, *others])} out of the prompt and the "
            "report's columns"
        )
    parts = iter([image_text(processor, image) for image in images])
    return re.sub(re.escape(mark), lambda _: next(parts), text)


def image_text(processor: Any, image: ImageFile) -> str:
    """The tokens of an image, as text: how many they are depends on its size in most families."""
    same_for_all: str | None = getattr(processor, "full_image_sequence", None)
    if same_for_all is not None:
        return same_for_all
    made = processed(processor, image, return_text_replacement_offsets=True)
    replaced: str = made["text_replacement_offsets"][0][0]["replacement"]
    return replaced


def processed(processor: Any, image: ImageFile, **options: Any) -> Any:
    """What a model's own processor makes of an image and the text that stands for it.

    Raises UserError as `image_files.read_image` does, and for an image that the processor refuses.
    """
    from radquant.image_files import read_image

    read = read_image(image)
    try:
        return processor(images=[read], text=[processor.image_token], **options)
    except (ValueError, ZeroDivisionError) as error:  # such as of an image that is all but a line
        raise UserError(
            f"{image.place} is refused by the model's image processor ({type(error).__name__}; it "
            f"has {read.width} × {read.height} pixels); leave the report out or crop the image"
        ) from None
