"""The prompts of a stage's reports, for a model that is open.

All prompts of an evaluation are made here, before anything is computed: whatever one of them lacks
stops the stage in its first seconds.
"""

from radquant import prompts
from radquant.generation.engines.kind import Opened
from radquant.generation.prefix import behind_stored
from radquant.generation.stage import Reading
from radquant.prompts import Prompt
from radquant.token_texts import check_known


def prompts_of(opened: Opened, reading: Reading, answer: int | None = None) -> list[Prompt]:
    """The prompts of all reports, behind the checkpoint's stored prefix, and no longer than fits.

    answer: tokens to leave for each answer; None: each prompt takes its reference along.
    """
    limit = opened.context
    if limit is not None:
        limit -= (answer or 0) + len(opened.stored)
    made = [
        prompts.chat_prompt(
            *(opened.tokenizer, reading.template, row, reading.examples, reading.target, limit),
            with_answer=answer is None,
            images=images,
            processor=opened.processor,
            date=opened.wanted.date,
        )
        for row, images in zip(reading.reports, reading.images, strict=True)
    ]
    for prompt in made:
        ids = (*prompt.ids, *prompt.answer_ids)
        check_known(opened.tokenizer, ids, opened.vocabulary, f"report {prompt.id}: its prompt")
    return behind_stored(made, opened.stored)
