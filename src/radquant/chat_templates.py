"""Chat templates: which one a model has, and what it makes of a conversation, today and tomorrow.

A template is a program that comes with a model. So it is not trusted to end, to write the report's
text, or to write the same on another day.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from radquant.bounded import TooLong, TooMuch, bounded
from radquant.errors import UserError

# The date that a template is told if it asks for one, unless the settings say another.
DATE = "2025-01-01"
# How templates are told that the model shall answer without thinking: Qwen and others; DeepSeek.
WITHOUT_THINKING = {"enable_thinking": False, "thinking": False}
# How models mark thinking that is not part of their answer.
THINKING = (
    ("<think>", "</think>"),  # Qwen, DeepSeek, SmolLM3 and many others
    ("<unused94>", "<unused95>"),  # MedGemma
    ("[THINK]", "[/THINK]"),  # Magistral
    ("<thought>", "</thought>"),  # EXAONE Deep
    ("<thinking>", "</thinking>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("<longcat_think>", "</longcat_think>"),
    ("◁think▷", "◁/think▷"),  # Kimi-VL
    ("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A
    ("<|channel>thought", "<channel|>"),  # Gemma 4
    ("<|begin_of_thought|>", "<|end_of_thought|>"),  # OpenThinker, Sky-T1
    ("<|think|>", "<|/think|>"),
)
# The template that is used if there are several with names.
DEFAULT = "default"
SECONDS = 10  # a template takes less than a thousandth of it
BYTES = 2**30
LONGEST = 1_000_000  # characters that a template may write of its own
# What a prompt may end with that an answer would have to close, unless it names who speaks.
OPEN_END = re.compile(r"(<[^<>/|\s]+>|\[[^\[\]/\s]+\]|[\"'“„«‹({\[]|```\w*)\s*$")
# The same of marks that look like a speaker's: what opens thinking or reasoning.
OPEN_THOUGHT = re.compile(
    r"(<\|(?!/|end|no)[^<>|]*(?:thought|think|reason|analy|scratch|reflect)[^<>|]*\|>"
    r"|analysis<\|message\|>)\s*$",
    re.IGNORECASE,
)
SPEAKER = re.compile(r"\W(assistant|model|bot|ai|gpt)\W", re.IGNORECASE)
MARK = re.compile(r"<[^<>\s]+>|\[/?[A-Z_]+\]")
QUESTION, ANSWER = "Yonder question", "Zebra"  # what no chat template writes itself

Turn = Mapping[str, Any]


class Runaway(UserError):
    """A template that takes more time or memory, or writes more, than any could need."""


def place_of(tokenizer: Any) -> str:
    """Where a tokenizer comes from, for errors."""
    return str(getattr(tokenizer, "name_or_path", "") or "the model")


def template_of(tokenizer: Any) -> str | None:
    """The chat template that counts; None if there is none, as base models have none.

    Raises UserError if one is empty, or if several have names of which none is the default.
    """
    found = getattr(tokenizer, "chat_template", None)
    if isinstance(found, Sequence) and not isinstance(found, str):
        found = {each["name"]: each["template"] for each in found}
    if isinstance(found, Mapping):
        named = found
        if not named:
            return None
        if len(named) > 1 and DEFAULT not in named:
            raise UserError(
                f"{place_of(tokenizer)} has the chat templates {', '.join(sorted(named))} and none "
                f"of the name {DEFAULT}; put the one to use into its chat_template.jinja"
            )
        found = named[DEFAULT] if DEFAULT in named else next(iter(named.values()))
    if found is None:
        return None
    if not isinstance(found, str) or not found.strip():
        raise UserError(
            f"{place_of(tokenizer)} has an empty chat template; put the model's own into its "
            "chat_template.jinja, or remove the empty one if the model is not for chats"
        )
    return found


def has_chat_template(tokenizer: Any) -> bool:
    return template_of(tokenizer) is not None


@contextmanager
def stopped_clock(date: str) -> Iterator[None]:
    """Let "now" be the start of a day, given as YYYY-MM-DD, in what templates call strftime_now.

    Transformers gives them its own, and no other function that one hands over.
    """
    from transformers.utils import chat_template_utils

    class Stopped(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Stopped":
            return cls.fromisoformat(date)

    running = chat_template_utils.datetime
    chat_template_utils.datetime = Stopped  # type: ignore[misc]
    try:
        yield
    finally:
        chat_template_utils.datetime = running  # type: ignore[misc]


def apply_chat(tokenizer: Any, turns: Sequence[Turn], generation: bool, date: str = DATE) -> str:
    """The conversation as the chat template writes it on `date`.

    turns: {role, content}, a content being a text or a list of parts. generation: whether an
    answer is to follow. Raises UserError if the template cannot, or not on every day alike.
    """
    template = template_of(tokenizer)
    named = f"the chat template of {place_of(tokenizer)}"
    instead = "correct it, or put another one into the model's chat_template.jinja"
    assert template is not None
    check_repeats(template, named)
    try:
        with stopped_clock(date), bounded(SECONDS, BYTES):
            text = tokenizer.apply_chat_template(
                list(turns),
                chat_template=template,
                tokenize=False,
                add_generation_prompt=generation,
                **WITHOUT_THINKING,
            )
    except TooLong:
        raise Runaway(f"{named} did not end within {SECONDS} seconds; {instead}") from None
    except TooMuch:
        raise Runaway(f"{named} takes more than {BYTES >> 30} GiB; {instead}") from None
    except Exception as error:  # a template's fault may be any, and its message hold the report
        raise UserError(f"{named} {fault(error, template)}; {instead}") from None
    if len(text) > LONGEST + sum(len(str(turn["content"])) for turn in turns):
        raise Runaway(f"{named} writes more than {LONGEST} characters of its own; {instead}")
    if re.search(r" at 0x[0-9a-f]{6,}>", text):
        raise UserError(f"{named} writes where in memory something lies; {instead}")
    return str(text)


def fault(error: Exception, template: str) -> str:
    """What went wrong in a template, without what it may say of a report."""
    line = getattr(error, "lineno", None)
    kind = type(error).__name__
    if line is not None:
        return f"has an error in its line {line} ({kind}: {error})"
    if str(error) and str(error) in template:
        return f"refuses the conversation ({error})"
    return f"fails ({kind})"


def check_repeats(template: str, named: str) -> None:
    """Raise UserError if a template draws at random: the same prompt would not come again."""
    drawn = re.search(r"\|\s*random\b|\blipsum\b", template)
    if drawn:
        raise UserError(
            f"{named} writes at random ({drawn[0].strip('| ')}), so no prompt would come again; "
            "write out what is to be there"
        )


# ------------------------------------------------------------------------------- where text stands


def locate(text: str, wanted: Sequence[str]) -> list[int] | None:
    """Where each of the `wanted` texts begins in `text`, one behind the other; None if one is not.

    A text may have lost white space at its ends, which templates trim; it then begins where it
    would without that.
    """
    places, at = [], 0
    for each in wanted:
        begin = text.find(each, at)
        kept = each
        if begin < 0:
            kept = each.strip()
            begin = text.find(kept, at)
            if begin < 0:
                return None
        places.append(begin - (len(each) - len(each.lstrip()) if kept != each else 0))
        at = begin + len(kept)
    return places


# ---------------------------------------------------------------------- how a template is talked to


def as_parts(turn: Turn) -> Turn:
    """A turn whose content is a list of parts."""
    if not isinstance(turn["content"], str):
        return turn
    return {**turn, "content": [{"type": "text", "text": turn["content"]}]}


def takes_parts(tokenizer: Any, date: str = DATE) -> bool:
    """Whether the template reads content as a list of parts, and would not see plain text.

    Raises UserError if it writes the text in neither form.
    """
    question = {"role": "user", "content": QUESTION}
    refusals: list[UserError] = []
    for turn, parts in ((question, False), (as_parts(question), True)):
        try:
            if QUESTION in apply_chat(tokenizer, [turn], True, date):
                return parts
        except Runaway:
            raise
        except UserError as error:  # some templates stop at the form that they do not know
            refusals.append(error)
    if len(refusals) == 2:
        raise refusals[0]
    raise UserError(
        f"the chat template of {place_of(tokenizer)} leaves out or changes what the user says, as "
        "text or parts; put the model's own into its chat_template.jinja"
    )


def chat_text(tokenizer: Any, turns: Sequence[Turn], frame: "Frame", date: str = DATE) -> str:
    """A prompt: the conversation up to where the answer begins."""
    shaped = [as_parts(turn) for turn in turns] if frame.parts else turns
    return apply_chat(tokenizer, shaped, True, date) + frame.closing


@dataclass(frozen=True)
class Frame:
    """What a template puts around an answer, and how it is talked to."""

    parts: bool = False  # content is a list of parts
    closing: str = ""  # closes what the prompt opens, so that the answer itself comes next
    lead: str = ""  # white space between prompt and answer
    after: str = ""  # follows an answer: its end mark, and what comes behind it
    marks: tuple[str, ...] = ()  # what it writes between turns: [INST], <|im_start|> and the like


def frame_of(tokenizer: Any, date: str = DATE) -> Frame:
    """How the tokenizer's template frames an answer; raises UserError if it leaves one open.

    A prompt goes as far as the template itself would place an answer. So what thinking models open
    is closed: with what the template writes for an answer without thinking, else with its end mark.
    """
    return _frame(tokenizer, template_of(tokenizer), date)


@lru_cache(maxsize=8)
def _frame(tokenizer: Any, template: str, date: str) -> Frame:
    parts = takes_parts(tokenizer, date)
    shape = as_parts if parts else dict
    question = shape({"role": "user", "content": QUESTION})
    answer = shape({"role": "assistant", "content": ANSWER})
    opened = apply_chat(tokenizer, [question], True, date)
    try:
        closed = apply_chat(tokenizer, [question, answer], False, date)
    except Runaway:
        raise
    except UserError:  # it takes no answers, which few-shot examples will be told
        closed = ""
    before, found, after = closed.rpartition(ANSWER)
    if not found:
        closed = before = after = ""
    gap = before[len(opened) :] if found and before.startswith(opened) else ""
    lead = gap if not gap.strip() else ""
    own = opened.rpartition(QUESTION)[2] + gap  # what follows the question
    closing = gap.removeprefix(lead) + closing_of(own, closed, place_of(tokenizer))
    marks = sorted(set(MARK.findall(opened) + MARK.findall(after)))
    return Frame(parts, closing, "" if closing else lead, after, tuple(marks))


def closing_of(own: str, closed: str, place: str) -> str:
    """What closes the thinking that the end of a prompt, `own`, leaves open; "" if it does not.

    closed: the same question with an answer. Raises UserError for anything else that is open.
    """
    for start, end in THINKING:
        _, opened, rest = own.rpartition(start)
        if opened and end not in rest:
            return ("" if rest.endswith("\n") else "\n") + f"\n{end}\n\n"
    left = OPEN_END.search(own) or OPEN_THOUGHT.search(own)
    if left and closed and left[1] not in closed and not SPEAKER.fullmatch(left[1]):
        raise UserError(
            f"the prompts of the chat template of {place} end with {left[1]}, which an answer "
            "would have to close; take it out of the model's chat_template.jinja"
        )
    return ""
