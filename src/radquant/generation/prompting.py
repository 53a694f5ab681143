"""The prompts of a stage's reports, for a model that is open.

All prompts of an evaluation are made here, before anything is computed: whatever one of them lacks
stops the stage in its first seconds.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from radquant import prompts
from radquant.errors import UserError
from radquant.generation.engines.kind import Opened
from radquant.generation.prefix import behind_stored
from radquant.generation.stage import Reading
from radquant.prompts import Prompt
from radquant.token_texts import check_known, seen


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
    check_distinct(made)
    check_mostly_known(made, opened.wanted.model)
    return behind_stored(made, opened.stored)


def check_distinct(made: Sequence[Prompt]) -> None:
    """Raise UserError if two prompts whose texts differ are the same to the model."""
    known: dict[tuple[int, ...], Prompt] = {}
    for prompt in made:
        first = known.setdefault(tuple(prompt.ids), prompt)
        if prompt.truncated or prompt.images:
            continue
        if first.hash != prompt.hash and seen(first.text) != seen(prompt.text):
            raise UserError(
                f"reports {first.id} and {prompt.id} differ, and their prompts are the same "
                "tokens; the model's tokenizer does not know what they differ in"
            )


def check_mostly_known(made: Sequence[Prompt], model: Path) -> None:
    """Tell of prompts with words that the tokenizer does not know; too many raise UserError."""
    found = [prompt for prompt in made if prompt.unknown]
    tokens = sum(len(prompt.ids) + prompt.truncated + len(prompt.answer_ids) for prompt in made)
    if sum(prompt.unknown for prompt in found) > tokens / 2:
        raise UserError(
            f"the tokenizer of {model} knows less than half of the prompts, first that of report "
            f"{found[0].id}; it is made for another language or another model"
        )
    if found:
        print(
            f"warning: {len(found)} of {len(made)} reports hold what the tokenizer of {model} does "
            f"not know, first {found[0].id}; the model reads a mark in its place",
            file=sys.stderr,
            flush=True,
        )
