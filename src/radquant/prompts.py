"""Prompts: what one report puts into a model, as text and as tokens.

Instructions and examples are from `instructions`, a chat's form from `chat_templates`, and tokens
from `token_texts`. Only the standard library is imported, because the workflow checks its prompts
at every start.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from radquant.chat_templates import (
    DATE,
    THINKING,
    Frame,
    apply_chat,
    chat_text,
    frame_of,
    has_chat_template,
    locate,
    place_of,
)
from radquant.errors import UserError
from radquant.instructions import (
    Part,
    Row,
    check_template,
    columns_of,
    draw_examples,
    fixed_texts,
    joined,
    read_template,
    render,
    rendered_parts,
    seeded_order,
)
from radquant.token_texts import (
    Span,
    control_tokens,
    end_token_ids,
    endings,
    lost_tokens,
    plain_ids,
    prompt_ids,
    started_ids,
    unknown_tokens,
)

__all__ = [
    "DATE",
    "THINKING",
    "Prompt",
    "Row",
    "apply_chat",
    "chat_prompt",
    "check_template",
    "columns_of",
    "conversation_ids",
    "draw_examples",
    "end_token_ids",
    "endings",
    "fixed_texts",
    "has_chat_template",
    "plain_ids",
    "prompt_ids",
    "read_template",
    "remove_thinking",
    "render",
    "seeded_order",
    "started_ids",
    "unknown_tokens",
]


@dataclass(frozen=True)
class Prompt:
    """What one report puts into the model."""

    id: str
    text: str  # as rendered, before tokens were dropped
    ids: list[int]  # prompt tokens, BOS included where the model has one
    truncated: int  # leading prompt tokens that were dropped to fit
    lead: str  # white space that stands between prompt and answer in the model's chat template
    answer_ids: list[int]  # tokens of the reference as they follow the prompt; [] if not asked for
    stored: int = 0  # how many more `ids` are than the prompt's own, where a checkpoint adds some
    images: tuple[Any, ...] = ()  # the report's image_files.ImageFile, in the order of their tokens
    unknown: int = 0  # what of the reports' own texts, in tokens, the tokenizer does not know
    types: tuple[int, ...] = ()  # 1 for each of `ids` that is an image's, else 0; () without images

    @property
    def length(self) -> int:
        """Return the number of the prompt's own tokens."""
        return len(self.ids) - self.stored

    @property
    def hash(self) -> str:
        """Return the sha256 of the rendered text and, if there are images, of their files' own."""
        parts = [self.text, *(image.sha256 for image in self.images)]
        return hashlib.sha256("\0".join(parts).encode("utf-8")).hexdigest()


def chat_prompt(
    tokenizer: Any,
    template: str,
    row: Row,
    examples: Sequence[Row],
    target: str,
    limit: int | None = None,
    with_answer: bool = False,
    images: Sequence[Any] = (),
    processor: Any = None,
    date: str = DATE,
) -> Prompt:
    """Return the prompt of one report.

    With a chat template, the rendered prompt is the user's turn and examples are earlier turns.
    Without one, examples and prompt are blocks of plain text. `limit` is the largest number of
    tokens of prompt and answer together, except that the answer is never cut. Of a longer prompt
    the tail is kept, behind the BOS token if it began with one. `images` are shown before the
    prompt's text, their tokens by `processor`, the model's own; such a prompt is never cut. `date`
    is what a chat template is told that asks for it, as YYYY-MM-DD.

    Raises UserError unless text and tokens hold all that the model is to read.
    """
    said = [*_said_by(examples, template, target), rendered_parts(template, row)]
    frame = frame_of(tokenizer, date) if has_chat_template(tokenizer) else Frame()
    text = prompt_text(tokenizer, [joined(parts) for parts in said], frame, date, len(images))
    named = f"report {row['id']}"
    read = text
    if images:
        from radquant.image_prompts import with_image_tokens

        read = with_image_tokens(processor, text, images, named)
    reports = _spans_of_reports(tokenizer, read, said, named)
    _check_marks(tokenizer, said, frame, named)
    ids = prompt_ids(tokenizer, read, reports)
    unknown = _check_held(tokenizer, ids, read, said, named)
    answer_ids: list[int] = []
    if with_answer:
        answer = frame.lead + str(row[target])
        answer_ids = _answer_tokens(tokenizer, read, reports, ids, answer)
        whole = [[Part(answer, True)]]
        unknown += _check_held(tokenizer, answer_ids, answer, whole, f"{named}, column {target!r}")
    room = None if limit is None else limit - len(answer_ids)
    if images and room is not None and len(ids) > room:
        raise UserError(
            f"report {row['id']}: its prompt has {len(ids)} tokens with {len(images)} images, and "
            f"the model's context leaves room for {room}; name fewer images"
        )
    ids, truncated = _keep_tail(ids, room, tokenizer.bos_token_id)
    types = tuple(processor.create_mm_token_type_ids([ids])[0]) if images else ()
    return Prompt(
        *(str(row["id"]), text, ids, truncated, frame.lead, answer_ids),
        images=tuple(images),
        types=types,
        unknown=unknown,
    )


def _said_by(examples: Sequence[Row], template: str, target: str) -> list[list[Part]]:
    """What user and model say in turn before the report, in pieces."""
    said = []
    for example in examples:
        said.append(rendered_parts(template, example))
        said.append([Part(str(example[target]), True)])
    return said


def prompt_text(
    tokenizer: Any, said: Sequence[str], frame: Frame, date: str = DATE, images: int = 0
) -> str:
    """Return the prompt as text: what user and model said in turn, up to the answer.

    `images`: how many are shown before the prompt's own text; they need a chat template.
    """
    *shots, final = said
    if not has_chat_template(tokenizer):
        pairs = zip(shots[::2], shots[1::2], strict=True)
        return "".join(f"{prompt}\n{answer}\n\n" for prompt, answer in pairs) + final + "\n"
    turns: list[dict[str, Any]] = [
        {"role": "assistant" if place % 2 else "user", "content": text}
        for place, text in enumerate(said)
    ]
    if images:
        turns[-1]["content"] = [{"type": "image"}] * images + [{"type": "text", "text": final}]
    return chat_text(tokenizer, turns, frame, date)


def conversation_ids(
    tokenizer: Any, turns: Sequence[dict[str, str]], date: str = DATE
) -> list[int]:
    """The tokens of a conversation up to the model's answer, by its chat template.

    turns: {role, content}. Raises UserError unless they hold all that the turns say.
    """
    said = [[Part(turn["content"], True)] for turn in turns]
    text = chat_text(tokenizer, turns, frame_of(tokenizer, date), date)
    ids = prompt_ids(tokenizer, text, _spans_of_reports(tokenizer, text, said, "the conversation"))
    _check_held(tokenizer, ids, text, said, "the conversation")
    return ids


def _spans_of_reports(
    tokenizer: Any, text: str, said: Sequence[Sequence[Part]], named: str
) -> list[Span]:
    """Where the texts of reports stand in a prompt's text; raises UserError if they do not."""
    places = locate(text, [joined(parts) for parts in said])
    if places is None:
        more = " or its few-shot examples (generation.examples: 0 asks for none)"
        raise UserError(
            f"{named}: the chat template of {place_of(tokenizer)} leaves out or changes text of "
            f"the report{more if len(said) > 1 else ''}; correct it, or put another one into the "
            "model's chat_template.jinja"
        )
    spans = []
    for at, parts in zip(places, said, strict=True):
        for part in parts:
            if part.of_report:
                spans.append((at, at + len(part.text)))
            at += len(part.text)
    return spans


def _check_marks(tokenizer: Any, said: Sequence[Sequence[Part]], frame: Frame, named: str) -> None:
    """Raise UserError if a report holds what separates turns and is no token but mere text.

    Of a token it is read as the text that it is; of text nobody could tell the two apart.
    """
    marks = [mark for mark in frame.marks if mark not in control_tokens(tokenizer)]
    for mark in marks:
        if any(mark in part.text for parts in said for part in parts if part.of_report):
            raise UserError(
                f"{named}: it or a few-shot example holds {mark}, with which the chat template of "
                f"{place_of(tokenizer)} separates turns; take the report out, or write it otherwise"
            )


def _check_held(
    tokenizer: Any, ids: Sequence[int], text: str, said: Sequence[Sequence[Part]], named: str
) -> int:
    """How many tokens of reports' texts stand for something unknown.

    Raises UserError unless `ids`, the tokens of `text`, say all the rest.
    """
    lost = lost_tokens(tokenizer, ids, text, [joined(parts) for parts in said])
    if lost is None:
        raise UserError(
            f"{named}: the tokenizer of {place_of(tokenizer)} loses some of the text without a "
            "mark; take the report out, write it otherwise, or fetch the tokenizer again"
        )
    reports = [part.text for parts in said for part in parts if part.of_report]
    return sum(unknown_tokens(tokenizer, each) for each in reports) if lost else 0


def _answer_tokens(
    tokenizer: Any, text: str, reports: Sequence[Span], ids: list[int], answer: str
) -> list[int]:
    """Return the tokens of `answer` as they follow the prompt `text`, whose tokens are `ids`."""
    whole = text + answer
    joint = prompt_ids(tokenizer, whole, [*reports, (len(text), len(whole))])
    if joint[: len(ids)] == ids:
        return joint[len(ids) :]
    # Prompt and answer melt into one token; the model answers after whole prompt tokens.
    return plain_ids(tokenizer, answer, [(0, len(answer))])


def _keep_tail(ids: list[int], room: int | None, bos: int | None) -> tuple[list[int], int]:
    if room is None or len(ids) <= room:
        return ids, 0
    head = ids[:1] if ids[0] == bos else []
    if room <= len(head):
        raise UserError("the model's context leaves no room for a prompt; ask for fewer new tokens")
    dropped = len(ids) - room
    return head + ids[len(head) + dropped :], dropped


def remove_thinking(text: str) -> str:
    """Return `text` without what a model marked as thinking, closed or cut off."""
    for start, end in THINKING:
        text = re.sub(f"{re.escape(start)}.*?(?:{re.escape(end)}|$)", "", text, flags=re.DOTALL)
        text = text.rpartition(end)[2]  # thinking that began in the prompt
    return text.strip()
