"""Requests' prompts as tokens, away from the thread that writes answers.

A tokenizer holds Python's lock while it reads a text, and so holds up every other thread: of
megabytes for many seconds. So long prompts are read by a process of their own. Nothing here needs
PyTorch, which that process would load.
"""

import asyncio
import contextlib
import multiprocessing
import pickle
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from radquant import prompts
from radquant.errors import UserError
from radquant.failures import withheld_panics
from radquant.serving.requests import Asked, BadRequest
from radquant.serving.token_strings import decoded

LONG = 50_000  # characters that are read by the process, which takes seconds to start


@dataclass(frozen=True)
class Given:
    """A prompt of a request."""

    ids: list[int]
    text: str = ""  # if it is told before the answer


class Reader:
    """A tokenizer of its own, as none is to be used by two threads, and who reads with it."""

    def __init__(self, tokenizer: Any, date: str) -> None:
        """date: that a chat template is told."""
        # Pickling a tokenizer holds up all threads, so it is done here, once.
        self.stored, self.date = pickle.dumps(tokenizer), date
        self.tokenizer = pickle.loads(self.stored)  # noqa: S301, of the line above
        self.thread = ThreadPoolExecutor(1, "reader")

    @cached_property
    def longest_token(self) -> int:
        """Characters of the longest token, as the vocabulary spells it."""
        return max(map(len, self.tokenizer.get_vocab()), default=1)

    @cached_property
    def process(self) -> Any:
        """The process that reads long prompts, started when the first one comes."""
        return multiprocessing.get_context("spawn").Pool(1, begin_process, (self.stored, self.date))

    async def read(self, asked: Asked) -> list[Given]:
        """The prompts of a request; raises BadRequest for what cannot be read."""
        loop = asyncio.get_running_loop()
        if length(asked) <= LONG:
            return await loop.run_in_executor(
                self.thread, prompts_of, asked, self.tokenizer, self.date
            )
        found: asyncio.Future[list[Given]] = loop.create_future()

        def tell(given: Any) -> None:
            if not found.done():  # its client may have left
                failed = isinstance(given, BaseException)
                found.set_exception(given) if failed else found.set_result(given)

        def told(given: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(tell, given)

        process = await loop.run_in_executor(self.thread, lambda: self.process)
        process.apply_async(read_there, (asked,), callback=told, error_callback=told)
        return await found

    def close(self) -> None:
        """End the process, if there is one."""
        if "process" in self.__dict__:
            self.process.terminate()
            del self.__dict__["process"]


there: list[Any] = []  # in the process: the stored tokenizer and the date


def begin_process(stored: bytes, date: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's
    there.extend((stored, date))  # nothing fails here, or the process would be started for ever


def read_there(asked: Asked) -> list[Given]:
    if isinstance(there[0], bytes):
        there[0] = pickle.loads(there[0])  # noqa: S301, the server wrote it
    return prompts_of(asked, *there)


def length(asked: Asked) -> int:
    """Characters of a request's prompts."""
    return sum(lengths(asked))


def lengths(asked: Asked) -> list[int]:
    """Characters of each message or prompt that is a text."""
    texts = [message["content"] for message in asked.messages]
    texts += [prompt for prompt in asked.prompts if isinstance(prompt, str)]
    return list(map(len, texts))


def prompts_of(asked: Asked, tokenizer: Any, date: str) -> list[Given]:
    """The prompts of a request; those of a completion are taken as they are."""
    with withheld_panics():
        if asked.messages:
            return [Given(chat_ids(tokenizer, asked.messages, date))]
        return [given(tokenizer, prompt, asked.echo) for prompt in asked.prompts]


def given(tokenizer: Any, prompt: str | Sequence[int], echo: bool) -> Given:
    if isinstance(prompt, str):
        return Given(prompts.started_ids(tokenizer, prompt), prompt if echo else "")
    if not 0 <= min(prompt) <= max(prompt) < len(tokenizer):
        raise BadRequest("the prompt holds a token that the model does not know")
    return Given(list(prompt), decoded(tokenizer, prompt) if echo else "")


def chat_ids(tokenizer: Any, messages: Sequence[dict[str, str]], date: str) -> list[int]:
    """The prompt of a chat by the model's own template; it holds all that the messages say."""
    if not prompts.has_chat_template(tokenizer):
        raise BadRequest("this model has no chat template; use /v1/completions")
    try:
        return prompts.conversation_ids(tokenizer, messages, date)
    except UserError as error:
        raise BadRequest(str(error)) from None
