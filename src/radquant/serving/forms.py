"""The JSON of answers, as OpenAI's clients read it."""

import time
import uuid
from codecs import getincrementaldecoder
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from radquant.serving.answering import Served
from radquant.serving.parts import Part, Token
from radquant.serving.requests import Asked
from radquant.serving.token_strings import text_of

LEAST = -9999.0  # in the place of a logarithm of 0, as OpenAI has it: JSON knows no infinity


@dataclass(frozen=True)
class Form:
    """What all JSON of one response says."""

    id: str
    created: int
    model: str
    chat: bool
    logprobs: bool

    def about(self, piece: bool) -> dict[str, Any]:
        kind = "text_completion"
        if self.chat:
            kind = "chat.completion.chunk" if piece else "chat.completion"
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def choice(self, index: int, part: Part) -> dict[str, Any]:
        """An answer that was told as one part."""
        said = {"index": index, "finish_reason": part.finish, "logprobs": self.told(part.tokens)}
        if self.chat:
            message = {"role": "assistant", "content": part.text, "refusal": None}
            return {**said, "message": message}
        return {**said, "text": part.text}

    def piece(
        self, index: int, part: Part, finish: str | None, first: bool, offset: int
    ) -> dict[str, Any]:
        """A chunk of a stream.

        first: nothing of this choice was sent before. offset: characters that were.
        """
        told = self.told(part.tokens, offset) if finish is None else None
        said = {"index": index, "finish_reason": finish, "logprobs": told}
        if self.chat:
            role = {"role": "assistant"} if first else {}
            content = {"content": part.text} if part.text or first else {}
            return {**self.about(True), "choices": [{**said, "delta": {**role, **content}}]}
        return {**self.about(True), "choices": [{**said, "text": part.text}]}

    def told(self, tokens: Sequence[Token], offset: int = 0) -> dict[str, Any] | None:
        """What is said of tokens, if it was asked for."""
        if not self.logprobs:
            return None
        if self.chat:
            return {"content": list(map(entry, tokens)), "refusal": None}
        return listed(tokens, offset)


def form_of(model: Served, asked: Asked) -> Form:
    chat = bool(asked.messages)
    name = f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}"
    return Form(name, int(time.time()), model.name, chat, asked.top is not None)


def entry(token: Token) -> dict[str, Any]:
    """A token of a chat's answer."""
    likeliest = [spelled(*pair) for pair in token.likeliest]
    return {**spelled(token.spelled, token.logprob or 0.0), "top_logprobs": likeliest}


def spelled(text: bytes, logprob: float) -> dict[str, Any]:
    return {"token": text_of(text), "logprob": max(logprob, LEAST), "bytes": list(text)}


def listed(tokens: Sequence[Token], offset: int) -> dict[str, Any]:
    """The tokens of a completion. offset: characters of its text before the first of them."""
    offsets, decoder = [], getincrementaldecoder("utf-8")("replace")
    for token in tokens:
        offsets.append(offset)
        offset += 0 if token.hidden else len(decoder.decode(token.spelled))
    values = [token.logprob for token in tokens]
    return {
        "tokens": [text_of(token.spelled) for token in tokens],
        "token_logprobs": [None if value is None else max(value, LEAST) for value in values],
        "top_logprobs": [likeliest_of(token) for token in tokens],
        "text_offset": offsets,
    }


def likeliest_of(token: Token) -> dict[str, float] | None:
    """The likeliest tokens and the one that stands there; of two that read alike, the likelier."""
    if token.logprob is None:
        return None
    found: dict[str, float] = {}
    for text, logprob in (*token.likeliest, (token.spelled, token.logprob)):
        found.setdefault(text_of(text), max(logprob, LEAST))
    return found


def whole(form: Form, read: int, parts: Sequence[Part]) -> dict[str, Any]:
    """The answer to a request that is sent whole. read: tokens of its prompts."""
    choices = [form.choice(index, part) for index, part in enumerate(parts)]
    shown = sum(part.shown for part in parts)
    return {**form.about(False), "choices": choices, "usage": usage(read, shown)}


def usage(read: int, shown: int) -> dict[str, int]:
    return {"prompt_tokens": read, "completion_tokens": shown, "total_tokens": read + shown}


@dataclass
class Sent:
    """What of the choices of a stream was sent."""

    lengths: dict[int, int] = field(default_factory=dict)  # of texts, by their choice's index
    shown: int = 0  # tokens of those that have ended
    ended: int = 0


def chunks(form: Form, sent: Sent, index: int, part: Part) -> Iterator[dict[str, Any]]:
    """The chunks that tell a part, which is noted in `sent`."""
    first, offset = index not in sent.lengths, sent.lengths.get(index, 0)
    sent.lengths[index] = offset + len(part.text)
    if part.text or part.tokens:
        yield form.piece(index, part, None, first, offset)
        first = False
    if part.finish is not None:
        sent.shown, sent.ended = sent.shown + part.shown, sent.ended + 1
        yield form.piece(index, Part(""), part.finish, first, sent.lengths[index])
