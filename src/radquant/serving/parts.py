"""What is told of an answer that is being written: its text, and how likely its tokens were.

A chat's answer is read as the evaluation reads it: without thinking, and without white space around
it. A completion is the text that follows its prompt, as it is.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any

from radquant.generation.outputs import read_output
from radquant.generation.running import Chance, Row
from radquant.serving.streaming import PIECE, held_back, settled
from radquant.serving.token_strings import bytes_of, decoded, special_tokens

CONTEXT = 4  # tokens of a prompt, which decide how the text behind it begins


@dataclass(frozen=True)
class Token:
    """A token as a client is told it."""

    spelled: bytes
    logprob: float | None  # None: the first of a prompt, which nothing foretells
    likeliest: tuple[tuple[bytes, float], ...]  # falling
    hidden: bool  # whether texts do not show it


@dataclass(frozen=True)
class Part:
    """What is new of an answer."""

    text: str
    tokens: tuple[Token, ...] = ()  # if they were asked for
    finish: str | None = None  # of the last part, what ended it: "stop" or "length"
    shown: int = 0  # with the last part: how many tokens were written to show all of the text


@dataclass(eq=False, kw_only=True)
class Answer(Row):
    """An answer that a client waits for."""

    stop: tuple[str, ...]
    # Gets one `Part` after the other, or what went wrong. It is called in the desk's thread.
    tell: Callable[[Part | BaseException], None]
    stream: bool = False  # whether there are parts before the last
    chat: bool = False
    own: Sequence[int] = ()  # of its prompt, without what the checkpoint adds
    before: str = ""  # the prompt's text, if it is told before the answer
    silent: bool = False  # whether no token was asked for: the one that is written is not told
    sent: str = ""
    told: int = 0  # of the tokens written
    begun: bool = False  # whether a part was told
    gone: bool = False  # nobody waits for it any more


@dataclass(frozen=True)
class Reading:
    """An answer's text so far, as it is sure to stay."""

    text: str
    finish: str | None  # None: it goes on
    whole: bool = False  # whether no token was written that is none of the answer's


def next_part(tokenizer: Any, answer: Answer, ends: AbstractSet[int]) -> Part | None:
    """What is to be told of an answer that has got a token; None: nothing yet.

    ends: tokens that end an answer. Raises RuntimeError if a text that was told turns out not to
    begin the answer.
    """
    if answer.silent:
        return behind_prompt(tokenizer, answer, Part("", (), "length"))
    now = read_chat(tokenizer, answer, ends) if answer.chat else read_on(tokenizer, answer, ends)
    begins = now.text.startswith(answer.sent)
    if now.finish is None and not (answer.stream and begins and now.text != answer.sent):
        return None
    if not begins:
        raise RuntimeError("a text that was sent does not begin the answer")
    tokens: tuple[Token, ...] = ()
    last = 0
    if now.finish is not None or answer.top is not None:
        first, last = shown(tokenizer, answer, now.text)
        first = answer.told if answer.begun else first
        answer.told = max(first, len(answer.written) if now.whole else last)
        if answer.top is not None:
            tokens = written_tokens(tokenizer, answer, first, answer.told)
    part = Part(now.text[len(answer.sent) :], tokens, now.finish, last if now.finish else 0)
    answer.sent = now.text
    return behind_prompt(tokenizer, answer, part)


def behind_prompt(tokenizer: Any, answer: Answer, part: Part) -> Part:
    """The part and, if it is the first, what is told of the prompt before it."""
    if answer.begun:
        return part
    answer.begun = True
    if not answer.before:
        return part
    tokens = part.tokens if answer.top is None else prompt_tokens(tokenizer, answer) + part.tokens
    return replace(part, text=answer.before + part.text, tokens=tokens)


# ------------------------------------------------------------------------------------------- texts


def read_on(tokenizer: Any, answer: Answer, ends: AbstractSet[int]) -> Reading:
    """A completion: nothing is taken from it but what ends it."""
    ended, full = answer.written[-1] in ends, len(answer.written) == answer.count
    if not (ended or full or answer.stop or answer.stream):
        return Reading("", None)
    ids = answer.written[:-1] if ended else answer.written
    text = behind(tokenizer, answer.ids, ids)
    cut = min((text.find(mark) for mark in answer.stop if mark in text), default=-1)
    if cut >= 0:
        return Reading(text[:cut], "stop")
    if ended or full:
        return Reading(text, "stop" if ended else "length", whole=True)
    return Reading(held_back(text, answer.stop), None)


def read_chat(tokenizer: Any, answer: Answer, ends: AbstractSet[int]) -> Reading:
    ended = answer.written[-1] in ends or len(answer.written) == answer.count
    if not ended and answer.stop:
        text = decoded(tokenizer, answer.written)
        ended = any(mark in text for mark in answer.stop)
    if ended:
        output = read_output(tokenizer, answer.written, set(ends), answer.stop)
        return Reading(output.text, output.finish)
    if not answer.stream:
        return Reading("", None)
    return Reading(settled(tokenizer, answer.ids, answer.written, answer.stop), None)


def behind(tokenizer: Any, prompt: Sequence[int], ids: Sequence[int]) -> str:
    """The text of `ids` behind a prompt, with the space between them, which decoding may drop."""
    context = list(prompt[-CONTEXT:])
    before = decoded(tokenizer, context).rstrip(PIECE)
    both = decoded(tokenizer, [*context, *ids])
    return both[len(before) :] if both.startswith(before) else decoded(tokenizer, ids)


# ------------------------------------------------------------------------------------------ tokens


def shown(tokenizer: Any, answer: Answer, text: str) -> tuple[int, int]:
    """From and to which of the tokens written show a text, which is the answer or begins it."""

    def spelled(count: int) -> str:
        ids = answer.written[:count]
        return decoded(tokenizer, ids) if answer.chat else behind(tokenizer, answer.ids, ids)

    def length(count: int) -> int:
        return len(spelled(count))

    def whole_length(count: int) -> int:  # without a part of a character at the end
        return len(spelled(count).rstrip(PIECE))

    count, at = len(answer.written), 0
    if answer.chat:
        all_text = spelled(count)
        at = len(all_text) - len(all_text.lstrip())
        if not all_text.startswith(text, at):  # there is thinking before it
            at = all_text.rfind(text)
    if at < 0:  # or within it
        return 0, count
    last = bisect_left(range(count), at + len(text), key=whole_length)
    first = bisect_right(range(count + 1), at, key=length) - 1 if answer.chat else 0
    return min(first, last), last


def written_tokens(tokenizer: Any, answer: Answer, begin: int, end: int) -> tuple[Token, ...]:
    before = [answer.ids[-1], *answer.written][begin:end]
    chances = answer.chances[begin:end]
    return tuple(told_as(tokenizer, each, last) for each, last in zip(chances, before, strict=True))


def prompt_tokens(tokenizer: Any, answer: Answer) -> tuple[Token, ...]:
    """The tokens of the prompt; the first has no probability."""
    begin = len(answer.ids) - len(answer.own)
    found = []
    for place, (token, last) in enumerate(zip(answer.own, (None, *answer.own), strict=False)):
        chance = answer.prompt_chances.get(begin + place)
        if chance is None:
            hidden = token in special_tokens(tokenizer)
            found.append(Token(bytes_of(tokenizer, token, last), None, (), hidden))
        else:
            found.append(told_as(tokenizer, chance, last))
    return tuple(found)


def told_as(tokenizer: Any, chance: Chance, last: int | None) -> Token:
    """last: the token before it."""
    likeliest = ((bytes_of(tokenizer, token, last), value) for token, value in chance.likeliest)
    hidden = chance.token in special_tokens(tokenizer)
    return Token(bytes_of(tokenizer, chance.token, last), chance.logprob, tuple(likeliest), hidden)
