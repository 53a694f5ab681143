"""The prompts of a stage's reports, for a model that is open."""

from radquant import prompts
from radquant.failures import withheld_panics
from radquant.generation.engines.kind import Opened
from radquant.generation.prefix import behind_stored
from radquant.generation.stage import Reading
from radquant.prompts import Prompt


def prompts_of(opened: Opened, reading: Reading, answer: int | None = None) -> list[Prompt]:
    """The prompts of all reports, behind the checkpoint's stored prefix, and no longer than fits.

    answer: tokens to leave for each answer; None: each prompt takes its reference along.
    """
    limit = opened.context
    if limit is not None:
        limit -= (answer or 0) + len(opened.stored)
    with withheld_panics():
        made = [
            prompts.chat_prompt(
                *(opened.tokenizer, reading.template, row, reading.examples, reading.target, limit),
                with_answer=answer is None,
                images=images,
                processor=opened.processor,
            )
            for row, images in zip(reading.reports, reading.images, strict=True)
        ]
    return behind_stored(made, opened.stored)
