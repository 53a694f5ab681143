"""What a client of the OpenAI-compatible endpoint may ask, and the refusal of everything else."""

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

from radquant.generation.running import Sampling

ROLES = ("system", "user", "assistant")
DEVELOPER = "developer"  # what newer clients call "system"
# Parameters that are taken with any value, and change nothing here.
WITHOUT_EFFECT = (
    *("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"),
)
# Parameters that are taken with these values only, as nothing else is done here.
FIXED: dict[str, tuple[Any, ...]] = {
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "suffix": ("",),
    "min_p": (0,),
}
# These are many more than a client needs. They are bounded because every stop is looked for after
# each token.
MOST_TOKENS, MOST_STOPS, MOST_PROMPTS, MOST_MESSAGES = 1_000_000, 100, 1000, 10_000
MOST_ANSWERS, MOST_LIKELIEST, HOTTEST = 128, 20, 2.0
OWN = (
    *("model", "max_tokens", "max_completion_tokens", "stop", "stream", "stream_options"),
    *("temperature", "top_p", "top_k", "seed", "n", "best_of", "logprobs"),
)
ALL = (-1, 0)  # values of top_k that leave no token out

Prompt = str | tuple[int, ...]  # a text, or its tokens


class BadRequest(Exception):
    """A request that cannot be answered: its status and a sentence for the client alone."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message, status)  # both, as another process may have to tell it
        self.message, self.status = message, status


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A checked request."""

    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    stream: bool = False  # the text in pieces, as it is written
    usage: bool = False  # counts at a stream's end
    n: int = 1  # answers to each prompt
    temperature: float = 0  # 0: the likeliest token, always
    top_p: float = 1
    seed: int | None = None
    top: int | None = None  # likeliest tokens told beside each token; None: no log-probabilities
    echo: bool = False  # the prompt before the answer
    messages: tuple[dict[str, str], ...] = ()  # of a chat
    prompts: tuple[Prompt, ...] = ()  # of a completion

    def sampling(self, seed: int, answer: int) -> Sampling | None:
        """How tokens of an answer are drawn; None: the likeliest is taken.

        seed: for a request that names none. answer: its number among those to its prompt.
        """
        if self.temperature == 0:
            return None
        own = seed if self.seed is None else self.seed
        return Sampling(self.temperature, self.top_p, own, answer)


def chat_request(body: Any, model: str) -> Asked:
    """The request in `body` for POST /v1/chat/completions."""
    given = _given(body, model, ("messages", "top_logprobs"))
    messages = given.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest("messages must be a list of at least one message")
    _at_most(messages, MOST_MESSAGES, "messages")
    wanted = _flag(given, "logprobs")
    top = _whole(given, "top_logprobs", 0, MOST_LIKELIEST)
    if top is not None and not wanted:
        raise BadRequest("top_logprobs go with logprobs: true")
    told = (top or 0) if wanted else None
    return Asked(**_common(given), top=told, messages=tuple(map(_message, messages)))


def completion_request(body: Any, model: str) -> Asked:
    """The request in `body` for POST /v1/completions."""
    given = _given(body, model, ("prompt", "echo"))
    if given.get("logprobs") is False:
        del given["logprobs"]
    top, echo = _whole(given, "logprobs", 0, MOST_LIKELIEST), _flag(given, "echo")
    common = _common(given, least=0 if echo else 1)
    return Asked(**common, top=top, echo=echo, prompts=_prompts(given.get("prompt")))


def _prompts(prompt: Any) -> tuple[Prompt, ...]:
    prompts = [prompt] if _is_text(prompt) or _is_tokens(prompt) else prompt
    if isinstance(prompts, list) and prompts:
        _at_most(prompts, MOST_PROMPTS, "prompts")
        if all(map(_is_text, prompts)):
            return tuple(prompts)
        if all(map(_is_tokens, prompts)):
            return tuple(map(tuple, prompts))
    raise BadRequest(
        "prompt must be a text or a list of token numbers, or a list of either; none may be empty"
    )


def _at_most(values: Sized, most: int, what: str) -> None:
    if len(values) > most:
        raise BadRequest(f"{len(values)} {what} are more than the {most} that a request may have")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_tokens(value: Any) -> bool:
    return isinstance(value, list) and value != [] and all(type(each) is int for each in value)


def _given(body: Any, model: str, more: Sequence[str]) -> dict[str, Any]:
    """What the body says; names whose value is null count as absent. more: that it may say."""
    if not isinstance(body, Mapping):
        raise BadRequest("the body must be a JSON object")
    given = {name: value for name, value in body.items() if value is not None}
    unknown = sorted(given.keys() - {*OWN, *FIXED, *WITHOUT_EFFECT, *more})
    if unknown:
        raise BadRequest(f"{unknown[0][:100]!r} is not supported here; leave it out")
    if given.get("model", model) != model:
        raise no_such_model(model)
    for name, allowed in FIXED.items():
        if name in given and given[name] not in allowed:
            raise BadRequest(f"{name} can only be {allowed[0]!r} here; leave it out")
    return given


def no_such_model(model: str) -> BadRequest:
    """model: the one that is there."""
    return BadRequest(f"there is no such model here; this is {model!r}", 404)


def _common(given: Mapping[str, Any], least: int = 1) -> dict[str, Any]:
    """What chats and completions say alike. least: tokens that an answer may be asked to have."""
    temperature = _number(given, "temperature", HOTTEST, 0)
    n = _whole(given, "n", 1, MOST_ANSWERS) or 1
    if _whole(given, "best_of", 1, MOST_ANSWERS) not in (None, n):
        raise BadRequest("best_of can only be as n here; leave it out")
    if temperature and _whole(given, "top_k", -1, MOST_TOKENS) not in (None, *ALL):
        raise BadRequest("top_k can only be -1, which leaves no token out; use top_p")
    stream, usage = _stream(given)
    return {
        "max_tokens": _max_tokens(given, least),
        "stop": _stop(given.get("stop")),
        "stream": stream,
        "usage": usage,
        "n": n,
        "temperature": temperature,
        "top_p": _number(given, "top_p", 1, 1),
        "seed": _whole(given, "seed", -(2**63), 2**63 - 1),
    }


def _flag(given: Mapping[str, Any], name: str) -> bool:
    value = given.get(name, False)
    if not isinstance(value, bool):
        raise BadRequest(f"{name} must be true or false")
    return value


def _whole(given: Mapping[str, Any], name: str, least: int, most: int) -> int | None:
    value = given.get(name)
    if value is not None and (type(value) is not int or not least <= value <= most):
        raise BadRequest(f"{name} must be a whole number from {least} to {most}")
    return value


def _number(given: Mapping[str, Any], name: str, most: float, default: float) -> float:
    value = given.get(name, default)
    if type(value) not in (int, float) or not 0 <= value <= most:
        raise BadRequest(f"{name} must be a number from 0 to {most:g}")
    return float(value)


def _stream(given: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether the answer is sent in pieces, and counts at their end."""
    stream, options = _flag(given, "stream"), given.get("stream_options")
    usage = options.get("include_usage") if isinstance(options, Mapping) else options
    if not isinstance(usage, bool | None) or (options is not None and not stream):
        raise BadRequest("stream_options go with stream: true, and say include_usage or nothing")
    return stream, bool(usage)


def _max_tokens(given: Mapping[str, Any], least: int) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        if name in given:
            return _whole(given, name, least, MOST_TOKENS)
    return None


def _stop(stop: Any) -> tuple[str, ...]:
    stops = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or not all(map(_is_text, stops)):
        raise BadRequest("stop must be a text, or a list of texts, none of them empty")
    _at_most(stops, MOST_STOPS, "stop strings")
    return tuple(stops)


def _message(message: Any) -> dict[str, str]:
    role = message.get("role") if isinstance(message, Mapping) else None
    role = "system" if role == DEVELOPER else role
    if role not in ROLES:
        raise BadRequest(f"each message needs a role: {', '.join((*ROLES, DEVELOPER))}")
    content = message.get("content")
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, Mapping)]
        texts = [part.get("text") for part in parts if part.get("type") == "text"]
        if len(texts) != len(content) or not all(isinstance(text, str) for text in texts):
            raise BadRequest("only parts of type text are answered here; images are not")
        content = "".join(map(str, texts))
    if not isinstance(content, str):
        raise BadRequest("each message needs a content, which is a text or a list of text parts")
    return {"role": role, "content": content}
