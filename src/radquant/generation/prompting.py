"""The prompts of a stage's reports, for a model that is open.

All prompts of an evaluation are made here, before anything is computed: whatever one of them lacks
stops the stage in its first seconds.
"""

import sys
from collections.abc import Sequence

from radquant import prompts
from radquant.errors import UserError
from radquant.failures import withheld_panics
from radquant.generation.engines.kind import Opened
from radquant.generation.prefix import behind_stored
from radquant.generation.stage import Reading
from radquant.instructions import fixed_texts
from radquant.prompts import Prompt
from radquant.token_texts import check_known, seen, unknown_tokens


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
                *(opened.tokenizer, reading.template, row, examples, reading.target, limit),
                with_answer=answer is None,
                images=images,
                processor=opened.processor,
                date=opened.wanted.date,
            )
            for row, images, examples in zip(
                reading.reports, reading.images, reading.examples, strict=True
            )
        ]
    for prompt in made:
        ids = (*prompt.ids, *prompt.answer_ids)
        check_known(opened.tokenizer, ids, opened.vocabulary, f"report {prompt.id}: its prompt")
    check_distinct(made)
    check_words(made, reading.template, opened)
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


def check_words(made: Sequence[Prompt], template: str, opened: Opened) -> None:
    """Raise UserError for reports that the tokenizer knows in part; tell of such a template."""
    found = [prompt for prompt in made if prompt.unknown]
    if found:
        raise UserError(
            f"the tokenizer of {opened.wanted.model} has no token for something in {len(found)} of "
            f"{len(made)} reports, their examples or references, first in report {found[0].id}. "
            "The model would read a mark in its place; take these reports out, or write them "
            "otherwise"
        )
    fixed = [unknown_tokens(opened.tokenizer, text) for text in fixed_texts(template)]
    if sum(fixed):
        print(
            f"warning: the tokenizer of {opened.wanted.model} does not know all words of the "
            f"prompt; the model reads {sum(fixed)} marks in their place",
            file=sys.stderr,
            flush=True,
        )
