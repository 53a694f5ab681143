"""What requests become: answers for the desk to write."""

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from radquant import memory_plan, prompts
from radquant.errors import UserError
from radquant.failures import is_out_of_memory
from radquant.generation.engines.kind import Engine, Opened
from radquant.generation.memory import NotEnoughMemory
from radquant.generation.prefix import behind_stored
from radquant.generation.tasks import check_ends
from radquant.serving.desk import Desk
from radquant.serving.parts import Answer
from radquant.serving.reading import Given, Reader, lengths
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
    reader: Reader


def served(engine: Engine, opened: Opened, name: str, max_tokens: int, most: int = 32) -> Served:
    """A model in an engine's hands under a name; raises UserError if nothing would end answers.

    most: answers that are written at once.
    """
    check_ends(max_tokens, opened.end_ids)
    room = None if opened.context is None else opened.context - len(opened.stored)
    cache = int(CACHE_SHARE * memory_plan.free_bytes(mapped=opened.on_disk))
    desk = Desk(engine, opened, most, cache)
    reader = Reader(opened.tokenizer, opened.wanted.date)
    return Served(name, opened, desk, room, max_tokens, int(time.time()), reader)


def models(model: Served) -> dict[str, Any]:
    """The answer to GET /v1/models."""
    return {"object": "list", "data": [described(model)]}


def described(model: Served) -> dict[str, Any]:
    """The answer to GET /v1/models/NAME."""
    return {
        "id": model.name,
        "object": "model",
        "created": model.started,
        "owned_by": "radquant",
        "root": model.name,
        "parent": None,
        "max_model_len": model.room,
        "engine": model.opened.engine,
        "kernel": model.opened.kernel,
        "dtype": model.opened.dtype,
    }


def check_length(model: Served, asked: Asked) -> None:
    """Raise BadRequest for a prompt that cannot fit, however it is tokenized: that takes time."""
    texts = lengths(asked)
    most = sum(texts) if asked.messages else max(texts, default=0)
    if model.room is not None and most > model.room * model.reader.longest_token:
        raise BadRequest(f"the prompt has more than the {model.room} tokens that the model takes")


def answers_of(
    model: Served, asked: Asked, prompts: Sequence[Given], teller: Callable[[int], Any]
) -> list[Answer]:
    """What is to be written: to each prompt, one behind the other, as many answers as are asked.

    teller: what an answer is told with, by its number. Raises BadRequest if the model cannot do it.
    """
    if not model.desk.engine.SAMPLES and (asked.temperature or asked.top is not None):
        raise BadRequest(
            f"engine {model.opened.engine} answers with temperature 0 and without logprobs here; "
            "leave them out"
        )
    seed = secrets.randbits(63)  # another for each request
    return [
        answer_to(model, asked, prompt, seed, number, teller(place * asked.n + number))
        for place, prompt in enumerate(prompts)
        for number in range(asked.n)
    ]


def answer_to(
    model: Served, asked: Asked, given: Given, seed: int, number: int, tell: Any
) -> Answer:
    """An answer to a prompt, which is never cut.

    The prompt and a stored prefix are placed as in an evaluation. seed, number: as in
    `Asked.sampling`. tell: as in an `Answer`.
    """
    ids, count = given.ids, asked.max_tokens
    if count is None:  # what there is room for, if that is less
        left = model.max_tokens if model.room is None else model.room - len(ids)
        count = max(1, min(model.max_tokens, left))
    if not ids:
        raise BadRequest("the prompt holds no token")
    if model.room is not None and len(ids) + count > model.room:
        raise BadRequest(
            f"the prompt has {len(ids)} tokens and the answer may have {count}, and the model "
            f"takes {model.room} together; shorten the prompt or ask for fewer"
        )
    known = model.opened.vocabulary
    if known is not None and max(ids) >= known:
        raise BadRequest("the prompt holds a token that the model does not know")
    (placed,) = behind_stored([prompts.Prompt("request", "", ids, 0, "", [])], model.opened.stored)
    return Answer(
        placed.ids,
        max(1, count),
        sampling=asked.sampling(seed, number),
        top=asked.top,
        echo=asked.echo and asked.top is not None,
        stop=(*asked.stop, *model.opened.stop),
        tell=tell,
        stream=asked.stream,
        chat=bool(asked.messages),
        own=ids,
        before=given.text,
        silent=count == 0,
    )


def refusal(error: BaseException) -> BadRequest | None:
    """What a client is told of an answer that failed; None if the server is at fault."""
    if isinstance(error, BadRequest):
        return error
    if isinstance(error, NotEnoughMemory) or is_out_of_memory(error):
        return BadRequest("the request does not fit into memory; shorten it", 503)
    if isinstance(error, UserError):  # such as a stored prefix that would leave a sliding window
        return BadRequest(str(error))
    return None
