"""What a client of the OpenAI-compatible endpoint may ask, and the refusal of everything else."""

from collections.abc import Mapping, Sized
from dataclasses import dataclass
from typing import Any

ROLES = ("system", "user", "assistant")
# Names that mean nothing to greedy decoding, whatever their value.
WITHOUT_EFFECT = ("user", "seed", "top_p", "top_k", "metadata", "store")
# Names that are taken with these values only: what is always done here.
FIXED = {
    "temperature": (0,),
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "logprobs": (False, 0),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
}
# Many more than a client needs; each token is looked through for every stop.
MOST_TOKENS, MOST_STOPS, MOST_PROMPTS, MOST_MESSAGES = 1_000_000, 100, 1000, 10_000
OWN = ("model", "max_tokens", "max_completion_tokens", "stop", "stream", "stream_options")


class BadRequest(Exception):
    """A request that cannot be answered: its status and a sentence for the client alone."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.message, self.status = message, status


@dataclass(frozen=True)
class Asked:
    """A checked request."""

    max_tokens: int | None
    stop: tuple[str, ...]
    stream: bool  # the text in pieces, as it is written
    usage: bool  # counts at a stream's end
    messages: tuple[dict[str, str], ...] = ()  # of a chat
    prompts: tuple[str, ...] = ()  # of a completion


def chat_request(body: Any, model: str) -> Asked:
    """The request in `body` for POST /v1/chat/completions."""
    asked = _common(body, model, "messages")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest("messages must be a list of at least one message")
    _at_most(messages, MOST_MESSAGES, "messages")
    return Asked(*asked, messages=tuple(map(_message, messages)))


def completion_request(body: Any, model: str) -> Asked:
    """The request in `body` for POST /v1/completions."""
    asked = _common(body, model, "prompt")
    prompt = body.get("prompt")
    prompts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(prompts, list) or not prompts or not all(map(_is_text, prompts)):
        raise BadRequest("prompt must be a text, or a list of texts, none of them empty")
    _at_most(prompts, MOST_PROMPTS, "prompts")
    return Asked(*asked, prompts=tuple(prompts))


def _at_most(values: Sized, most: int, what: str) -> None:
    if len(values) > most:
        raise BadRequest(f"{len(values)} {what} are more than the {most} that a request may have")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _common(body: Any, model: str, content: str) -> tuple[int | None, tuple[str, ...], bool, bool]:
    if not isinstance(body, Mapping):
        raise BadRequest("the body must be a JSON object")
    known = {*OWN, *FIXED, *WITHOUT_EFFECT, content}
    unknown = sorted(body.keys() - known)
    if unknown:
        raise BadRequest(f"{unknown[0][:100]!r} is not supported here; leave it out")
    if body.get("model") not in (None, model):
        raise BadRequest(f"there is no such model here; this is {model!r}", 404)
    for name, allowed in FIXED.items():
        if body.get(name) is not None and body[name] not in allowed:
            raise BadRequest(
                f"{name} can only be {allowed[0]!r} here: answers are greedy, one to a prompt"
            )
    return _max_tokens(body), _stop(body.get("stop")), *_stream(body)


def _stream(body: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether the answer is sent in pieces, and counts at their end."""
    stream, options = body.get("stream"), body.get("stream_options")
    if not isinstance(stream, bool | None):
        raise BadRequest("stream must be true or false")
    usage = options.get("include_usage") if isinstance(options, Mapping) else options
    if not isinstance(usage, bool | None) or (options is not None and not stream):
        raise BadRequest("stream_options go with stream: true, and say include_usage or nothing")
    return bool(stream), bool(usage)


def _max_tokens(body: Mapping[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        count = body.get(name)
        if count is None:
            continue
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise BadRequest(f"{name} must be a whole number, at least 1")
        if count > MOST_TOKENS:
            raise BadRequest(f"{name} may be {MOST_TOKENS} at most")
        return count
    return None


def _stop(stop: Any) -> tuple[str, ...]:
    stops = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or not all(map(_is_text, stops)):
        raise BadRequest("stop must be a text, or a list of texts, none of them empty")
    _at_most(stops, MOST_STOPS, "stop strings")
    return tuple(stops)


def _message(message: Any) -> dict[str, str]:
    if not isinstance(message, Mapping) or message.get("role") not in ROLES:
        raise BadRequest(f"each message needs a role: {', '.join(ROLES)}")
    content = message.get("content")
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, Mapping)]
        texts = [part.get("text") for part in parts if part.get("type") == "text"]
        if len(texts) != len(content) or not all(isinstance(text, str) for text in texts):
            raise BadRequest("only parts of type text are answered here; images are not")
        content = "".join(map(str, texts))
    if not isinstance(content, str):
        raise BadRequest("each message needs a content, which is a text or a list of text parts")
    return {"role": str(message["role"]), "content": content}
