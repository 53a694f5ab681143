"""What requests become, and answers: prompts for the desk, and JSON as OpenAI's clients read it."""

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from radquant import memory_plan, prompts
from radquant.errors import UserError
from radquant.failures import is_out_of_memory, withheld_panics
from radquant.generation.engines.kind import Engine, Opened
from radquant.generation.memory import NotEnoughMemory
from radquant.generation.prefix import behind_stored
from radquant.generation.tasks import Output, check_ends
from radquant.serving.desk import Answer, Desk
from radquant.serving.requests import Asked, BadRequest

CACHE_SHARE = 0.5  # of the memory that is free when serving begins, for keys and values


@dataclass(frozen=True)
class Served:
    """A model that answers, under a name."""

    name: str
    opened: Opened
    desk: Desk
    room: int | None  # tokens of prompt and answer together; None: the model does not say
    max_tokens: int  # of an answer whose request does not say
    started: int  # seconds since 1970

    @cached_property
    def longest_token(self) -> int:
        """Characters of the longest token, as the vocabulary spells it."""
        return max(map(len, self.opened.tokenizer.get_vocab()), default=1)


def served(engine: Engine, opened: Opened, name: str, max_tokens: int, most: int = 32) -> Served:
    """A model in an engine's hands under a name; raises UserError if nothing would end answers.

    most: answers that are written at once.
    """
    check_ends(max_tokens, opened.end_ids)
    room = None if opened.context is None else opened.context - len(opened.stored)
    cache = int(CACHE_SHARE * memory_plan.free_bytes())
    desk = Desk(engine, opened, most, cache)
    return Served(name, opened, desk, room, max_tokens, int(time.time()))


def models(model: Served) -> dict[str, Any]:
    """The answer to GET /v1/models."""
    entry = {"id": model.name, "object": "model", "created": model.started, "owned_by": "radquant"}
    return {"object": "list", "data": [{**entry, "max_model_len": model.room}]}


def prompts_of(model: Served, asked: Asked) -> list[list[int]]:
    """The tokens of each prompt of a request; those of a completion are taken as they are."""
    texts = [*asked.prompts, *(message["content"] for message in asked.messages)]
    most = sum(map(len, texts)) if asked.messages else max(map(len, texts))
    # Reading a text of megabytes takes seconds, in which nobody would be answered.
    if model.room is not None and most > model.room * model.longest_token:
        raise BadRequest(f"the prompt has more than the {model.room} tokens that the model takes")
    with model.desk.tokenizing, withheld_panics():
        if asked.messages:
            return [chat_ids(model, asked.messages)]
        return [prompts.started_ids(model.opened.tokenizer, text) for text in asked.prompts]


def chat_ids(model: Served, messages: Sequence[dict[str, str]]) -> list[int]:
    """The prompt of a chat by the model's own template; it holds all that the messages say."""
    tokenizer = model.opened.tokenizer
    if not prompts.has_chat_template(tokenizer):
        raise BadRequest("this model has no chat template; use /v1/completions")
    try:
        return prompts.conversation_ids(tokenizer, messages, model.opened.wanted.date)
    except UserError as error:
        raise BadRequest(str(error)) from None


def answer_to(model: Served, ids: list[int], asked: Asked, tell: Any) -> Answer:
    """What is to be written behind the prompt `ids`, which is never cut.

    The prompt and a stored prefix are placed as in an evaluation. tell: as in an `Answer`.
    """
    count = asked.max_tokens
    if count is None:  # what there is room for, if that is less
        left = model.max_tokens if model.room is None else model.room - len(ids)
        count = max(1, min(model.max_tokens, left))
    if not ids:
        raise BadRequest("the prompt holds no token")
    if model.room is not None and len(ids) + count > model.room:
        raise BadRequest(
            f"the prompt has {len(ids)} tokens and the answer may have {count}, together more than "
            f"the {model.room} that the model takes; shorten the prompt or ask for fewer"
        )
    known = model.opened.vocabulary
    if known is not None and max(ids) >= known:
        raise BadRequest("the prompt holds a token that the model does not know")
    (prompt,) = behind_stored([prompts.Prompt("request", "", ids, 0, "", [])], model.opened.stored)
    stop = (*asked.stop, *model.opened.stop)
    return Answer(prompt.ids, count, stop=stop, tell=tell, stream=asked.stream)


def refusal(error: BaseException) -> BadRequest | None:
    """What a client is told of an answer that failed; None if the server is at fault."""
    if isinstance(error, BadRequest):
        return error
    if isinstance(error, NotEnoughMemory) or is_out_of_memory(error):
        return BadRequest("the request does not fit into memory; shorten it", 503)
    if isinstance(error, UserError):  # such as a stored prefix that would leave a sliding window
        return BadRequest(str(error))
    return None


@dataclass(frozen=True)
class Form:
    """What all JSON of one response says."""

    id: str
    created: int
    model: str
    chat: bool

    def about(self, piece: bool) -> dict[str, Any]:
        kind = "text_completion"
        if self.chat:
            kind = "chat.completion.chunk" if piece else "chat.completion"
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def choice(self, index: int, output: Output) -> dict[str, Any]:
        told = {"index": index, "finish_reason": output.finish, "logprobs": None}
        if self.chat:
            return {**told, "message": {"role": "assistant", "content": output.text}}
        return {**told, "text": output.text}

    def piece(self, index: int, text: str, finish: str | None, first: bool) -> dict[str, Any]:
        """A chunk of a stream. first: nothing of this choice was sent before."""
        told = {"index": index, "finish_reason": finish, "logprobs": None}
        if self.chat:
            role = {"role": "assistant"} if first else {}
            content = {"content": text} if text or first else {}
            return {**self.about(True), "choices": [{**told, "delta": {**role, **content}}]}
        return {**self.about(True), "choices": [{**told, "text": text}]}


def form_of(model: Served, asked: Asked) -> Form:
    chat = bool(asked.messages)
    name = f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}"
    return Form(name, int(time.time()), model.name, chat)


def whole(form: Form, read: int, outputs: Sequence[Output]) -> dict[str, Any]:
    """The answer to a request that is sent whole. read: tokens of its prompts."""
    choices = [form.choice(index, output) for index, output in enumerate(outputs)]
    written = sum(output.tokens for output in outputs)
    return {**form.about(False), "choices": choices, "usage": usage(read, written)}


def usage(read: int, written: int) -> dict[str, int]:
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


@dataclass
class Sent:
    """What of the choices of a stream was sent."""

    texts: dict[int, str]
    written: int = 0  # tokens of those that have ended
    ended: int = 0


def chunks(form: Form, sent: Sent, index: int, told: str | Output) -> Iterator[dict[str, Any]]:
    """The chunks that tell what a choice's `Answer` told, and that note it in `sent`.

    Raises RuntimeError if what was sent turns out not to begin the answer.
    """
    before = sent.texts.get(index)
    if isinstance(told, str):
        sent.texts[index] = (before or "") + told
        yield form.piece(index, told, None, before is None)
        return
    if not told.text.startswith(before or ""):
        raise RuntimeError("a text that was sent does not begin the answer")
    sent.written, sent.ended = sent.written + told.tokens, sent.ended + 1
    if rest := told.text[len(before or "") :]:
        yield form.piece(index, rest, None, before is None)
    yield form.piece(index, "", told.finish, before is None and not rest)
