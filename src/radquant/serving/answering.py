"""Answering requests with a checkpoint as the evaluation computes with it: our own engine."""

import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from radquant import prompts
from radquant.errors import UserError
from radquant.failures import is_out_of_memory, withheld_panics
from radquant.generation.engines.kind import Engine, Opened
from radquant.generation.memory import NotEnoughMemory
from radquant.generation.prefix import behind_stored
from radquant.generation.tasks import Output, Task, check_ends
from radquant.serving.requests import Asked, BadRequest


@dataclass(frozen=True)
class Served:
    """A model that answers one request at a time: whoever calls this module holds the lock."""

    name: str
    engine: Engine
    opened: Opened
    room: int | None  # tokens of prompt and answer together; None: the model does not say
    max_tokens: int  # of an answer whose request does not say
    started: int  # seconds since 1970
    lock: threading.Lock = field(default_factory=threading.Lock)


def served(engine: Engine, opened: Opened, name: str, max_tokens: int) -> Served:
    """A model in an engine's hands under a name; raises UserError if nothing would end answers."""
    check_ends(max_tokens, opened.end_ids)
    room = None if opened.context is None else opened.context - len(opened.stored)
    return Served(name, engine, opened, room, max_tokens, int(time.time()))


def models(model: Served) -> dict[str, Any]:
    """The answer to GET /v1/models."""
    entry = {"id": model.name, "object": "model", "created": model.started, "owned_by": "radquant"}
    return {"object": "list", "data": [{**entry, "max_model_len": model.room}]}


def chat(model: Served, asked: Asked) -> dict[str, Any]:
    """The answer to POST /v1/chat/completions."""
    with withheld_panics():
        ids = chat_ids(model, asked.messages)
    output = write(model, ids, asked)
    message = {"role": "assistant", "content": output.text}
    choice = {"index": 0, "message": message, "finish_reason": output.finish, "logprobs": None}
    return _response(model, "chat.completion", [choice], len(ids), output.tokens)


def complete(model: Served, asked: Asked) -> dict[str, Any]:
    """The answer to POST /v1/completions; the prompts are taken as they are."""
    choices, read, written = [], 0, 0
    for index, text in enumerate(asked.prompts):
        with withheld_panics():
            ids = prompts.started_ids(model.opened.tokenizer, text)
        output = write(model, ids, asked)
        about = {"finish_reason": output.finish, "logprobs": None}
        choices.append({"index": index, "text": output.text, **about})
        read, written = read + len(ids), written + output.tokens
    return _response(model, "text_completion", choices, read, written)


def chat_ids(model: Served, messages: Sequence[dict[str, str]]) -> list[int]:
    """The prompt of a chat by the model's own template; it holds all that the messages say."""
    tokenizer = model.opened.tokenizer
    if not prompts.has_chat_template(tokenizer):
        raise BadRequest("this model has no chat template; use /v1/completions")
    try:
        return prompts.conversation_ids(tokenizer, messages, model.opened.wanted.date)
    except UserError as error:
        raise BadRequest(str(error)) from None


def write(model: Served, ids: list[int], asked: Asked) -> Output:
    """What the model writes behind the prompt `ids`, which is never cut.

    The prompt, a stored prefix and rounding of the cache are placed as in an evaluation.
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
    prompt = behind_stored([prompts.Prompt("request", "", ids, 0, "", [])], model.opened.stored)
    try:
        return decode(model, prompt, count, asked.stop)
    except NotEnoughMemory:
        pass
    except UserError as error:  # such as a stored prefix that would leave a sliding window
        raise BadRequest(str(error)) from None
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    raise BadRequest("the request does not fit into memory; shorten it", 503)


def decode(model: Served, prompt: list[prompts.Prompt], count: int, stop: Sequence[str]) -> Output:
    """What the model's engine writes behind one prompt, `count` tokens at most."""
    task = Task(
        label="",
        batches=[prompt],
        shared=[],
        longest=len(prompt[0].ids) + count,
        batch_size=1,
        max_new_tokens=count,
        end_ids=model.opened.end_ids,
        stop=(*stop, *model.opened.stop),
    )
    output: Output = model.engine.write(model.opened, task).work.results[0]
    return output


def _response(
    model: Served, kind: str, choices: list[dict[str, Any]], read: int, written: int
) -> dict[str, Any]:
    usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    return {
        "id": f"{'chatcmpl' if kind.startswith('chat') else 'cmpl'}-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": model.name,
        "choices": choices,
        "usage": usage,
    }
