"""The OpenAI-compatible endpoint over HTTP. No text of a request or an answer is logged."""

import asyncio
import contextlib
import hmac
import json
import socket
import sys
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from radquant.errors import UserError
from radquant.failures import is_panic, sentence_of
from radquant.serving import answering, forms
from radquant.serving.answering import Served
from radquant.serving.parts import Answer, Part
from radquant.serving.requests import (
    Asked,
    BadRequest,
    chat_request,
    completion_request,
    no_such_model,
)

LARGEST_BODY = 4_000_000  # bytes
MOST_HELD = 64_000_000  # bytes of the bodies of all requests that are being answered
MOST_CONNECTIONS = 500
STALLED = 30  # seconds in which a client takes nothing of what it is sent, after which it is left
SLOWEST = 120  # seconds until a request must be there as a whole
DEADLINE = 600  # seconds until an answer must be there as a whole, unless the server is told others
GET_PATHS = ("/health", "/v1/models")
POST_PATHS = ("/v1/chat/completions", "/v1/completions")
GONE = 499  # the status of a request whose client left, as nginx has it
FAILED = "the server failed; its log says where"
Events = asyncio.Queue[tuple[int, Part | BaseException]]


class Server(uvicorn.Server):
    """A server that listens; `run` answers until a signal, or until `should_exit` is set."""

    def __init__(
        self, model: Served, listening: socket.socket, key: str | None, deadline: float
    ) -> None:
        config = uvicorn.Config(
            application(model, key, deadline),
            http=Patient,
            log_config=None,
            log_level="critical",  # its tracebacks would tell texts
            access_log=False,
            limit_concurrency=MOST_CONNECTIONS,
            server_header=False,
            lifespan="off",
        )
        super().__init__(config)
        self.desk, self.reader, self.listening = model.desk, model.reader, listening
        self.port = listening.getsockname()[1]

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        self.desk.thread.start()
        try:
            super().run(sockets or [self.listening])
        finally:
            self.desk.close(at_once=True)
            self.desk.thread.join()
            self.reader.close()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        print("ending; answers that are being written are finished first", file=sys.stderr)
        self.desk.close()
        await super().shutdown(sockets)


class Patient(H11Protocol):
    """Leaves a client whose request has not begun in time, which sends a byte now and then."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.patience = self.loop.call_later(SLOWEST, self.leave)

    def leave(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()

    def on_response_complete(self) -> None:
        self.patience.cancel()
        self.patience = self.loop.call_later(SLOWEST, self.leave)
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self.patience.cancel()
        super().connection_lost(exc)


def open_server(
    model: Served, host: str, port: int, key: str | None = None, deadline: float = DEADLINE
) -> Server:
    """A server that listens; port 0 takes a free one.

    key: that clients must show; None: none. deadline: seconds that a request may take, from when
    its head is there until its answer is.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise UserError(
            f"cannot listen on {host}:{port} ({error.strerror}); give another --host or --port"
        ) from None
    return Server(model, listening, key, deadline)


def application(
    model: Served, key: str | None = None, deadline: float = DEADLINE
) -> Callable[..., Awaitable[None]]:
    """The endpoint as an ASGI application. key, deadline: as of `open_server`."""
    held = Held()

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def models(request: Request) -> Response:
        return JSONResponse(answering.models(model))

    async def one_model(request: Request) -> Response:
        if request.path_params["name"] != model.name:
            return refused(no_such_model(model.name))
        return JSONResponse(answering.described(model))

    async def chat(request: Request) -> Response:
        return await guarded(answered(model, request, held, chat_request, deadline))

    async def complete(request: Request) -> Response:
        return await guarded(answered(model, request, held, completion_request, deadline))

    routes = [
        Route("/health", health),
        Route("/v1/models", models),
        Route("/v1/models/{name:path}", one_model),
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/completions", complete, methods=["POST"]),
    ]
    starlette = Starlette(routes=routes, exception_handlers={HTTPException: wrong})
    return watched(starlette if key is None else locked(starlette, key))


def locked(application: Callable[..., Awaitable[None]], key: str) -> Callable[..., Awaitable[None]]:
    """The application, for those alone who show the key; its health is nobody's secret."""
    wanted = f"Bearer {key}".encode()

    async def check(scope: Any, receive: Any, send: Any) -> None:
        shown = dict(scope["headers"]).get(b"authorization", b"")
        # The comparison takes as long for every key, so its time tells nothing of the right one.
        if hmac.compare_digest(shown, wanted) or scope["path"] == "/health":
            await application(scope, receive, send)
        else:
            await refused(BadRequest("the API key is missing or wrong", 401))(scope, receive, send)

    return check


async def guarded(response: Awaitable[Response]) -> Response:
    """The response, or what stands for it where none can be made."""
    try:
        return await response
    except BadRequest as error:
        return refused(error)
    except ClientDisconnect:
        return Response(status_code=GONE)  # for the log alone
    except BaseException as error:
        if not (isinstance(error, Exception) or is_panic(error)):
            raise
        log_failure(error)
        return JSONResponse(error_body(FAILED, 500), 500)


class Held:
    """Bytes of the bodies that are in memory."""

    size = 0


async def answered(
    model: Served,
    request: Request,
    held: Held,
    checked: Callable[[Any, str], Asked],
    deadline: float,
) -> Response:
    """The response to a request that is to be written."""
    end = asyncio.get_running_loop().time() + deadline
    try:
        async with asyncio.timeout_at(end):
            return await begun(model, request, held, checked, end)
    except TimeoutError:
        raise too_late() from None


async def begun(
    model: Served,
    request: Request,
    held: Held,
    checked: Callable[[Any, str], Asked],
    end: float,
) -> Response:
    """The whole response, or a stream that has begun. end: when it must have ended."""
    loop = asyncio.get_running_loop()
    events: Events = asyncio.Queue()

    def teller(index: int) -> Callable[[Any], None]:
        def tell(what: Part | BaseException) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(events.put_nowait, (index, what))

        return tell

    async with held_body(request, held) as body:
        asked = checked(body, model.name)
        answering.check_length(model, asked)
        found = await model.reader.read(asked)
        answers = answering.answers_of(model, asked, found, teller)
        counted = sum(len(prompt.ids) for prompt in found)
        model.desk.take(answers)
    form = forms.form_of(model, asked)
    gone = asyncio.ensure_future(until_gone(request))
    try:
        if asked.stream:
            first = await next_event(events, gone)
            raise_failure(first[1])
            pieces = streamed(model, form, asked, counted, answers, first, events, end)
            answers = []  # which the stream sees to from now on
            return StreamingResponse(pieces, media_type="text/event-stream")
        parts: dict[int, Part] = {}
        while len(parts) < len(answers):
            index, told = await next_event(events, gone)
            raise_failure(told)
            assert isinstance(told, Part)
            parts[index] = told
        return JSONResponse(forms.whole(form, counted, [parts[i] for i in range(len(answers))]))
    finally:
        gone.cancel()
        model.desk.leave(answers)


def too_late() -> BadRequest:
    return BadRequest("the answer was not there in time; ask for fewer tokens, or ask later", 504)


async def streamed(
    model: Served,
    form: forms.Form,
    asked: Asked,
    counted: int,
    answers: list[Answer],
    first: tuple[int, Any],
    events: Events,
    end: float,
) -> AsyncIterator[str]:
    """Server-sent events of the choices of a request, as the first and those behind it come.

    counted: tokens of its prompts. end: when it must have ended.
    """
    sent = forms.Sent()
    try:
        index, told = first
        while True:
            raise_failure(told)
            for chunk in forms.chunks(form, sent, index, told):
                yield event(chunk)
            if sent.ended == len(answers):
                break
            async with asyncio.timeout_at(end):
                index, told = await events.get()
        if asked.usage:
            counts = forms.usage(counted, sent.shown)
            yield event({**form.about(True), "choices": [], "usage": counts})
        yield "data: [DONE]\n\n"
    except TimeoutError:
        yield event(error_body(too_late().message, 504))
    except BadRequest as error:
        yield event(error_body(error.message, error.status))
    except Exception as error:
        log_failure(error)
        yield event(error_body(FAILED, 500))
    finally:
        model.desk.leave(answers)


def event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body)}\n\n"


async def until_gone(request: Request) -> None:
    """Returns when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def next_event(events: Events, gone: asyncio.Future[None]) -> tuple[int, Any]:
    """What is told next; raises ClientDisconnect if the client leaves before."""
    coming = asyncio.ensure_future(events.get())
    either: set[asyncio.Future[Any]] = {coming, gone}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if coming.done():
        return coming.result()
    coming.cancel()
    raise ClientDisconnect


def raise_failure(told: Any) -> None:
    if isinstance(told, BaseException):
        raise answering.refusal(told) or told


@contextlib.asynccontextmanager
async def held_body(request: Request, held: Held) -> AsyncIterator[Any]:
    """The JSON of a request's body, which counts as held as long as it is used.

    A web page may send other types of content to any address without being asked first, so only
    JSON is taken. Of a body that is too large the rest is read, too: else its client would see a
    broken connection instead of why.
    """
    data, size = bytearray(), 0
    try:
        try:
            async with asyncio.timeout(SLOWEST):
                async for part in request.stream():
                    size += len(part)
                    if size <= LARGEST_BODY:
                        held.size += len(part)
                        data += part
                        if held.size > MOST_HELD:
                            raise BadRequest("too many long requests at once; ask later", 503)
        except TimeoutError:
            raise BadRequest("the request was not there in time", 408) from None
        if size > LARGEST_BODY:
            raise BadRequest(f"the body has more than {LARGEST_BODY} bytes", 413)
        yield json_of(request, bytes(data))
    finally:
        held.size -= len(data)


def json_of(request: Request, data: bytes) -> Any:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise BadRequest("the body must be of Content-Type application/json", 415)
    try:
        body = json.loads(data)
        json.dumps(body, ensure_ascii=False).encode()  # halves of a character are no text
    except (ValueError, RecursionError):
        raise BadRequest("the body is not JSON in UTF-8") from None
    return body


async def wrong(request: Request, error: Exception) -> Response:
    """The response where there is no such path, or it does not take this method."""
    if not (isinstance(error, HTTPException) and error.status_code == 405):
        paths = ", ".join((*GET_PATHS, *POST_PATHS))
        return refused(BadRequest(f"there is nothing here; try {paths}", 404))
    allow = {"Allow": ", ".join([(error.headers or {}).get("Allow", ""), "OPTIONS"])}
    if request.method == "OPTIONS":
        return Response(status_code=204, headers=allow)
    other = refused(BadRequest(f"this path takes another method: {allow['Allow']}", 405))
    other.headers.update(allow)
    return other


def refused(error: BadRequest) -> Response:
    headers = {"Retry-After": "5"} if error.status in (429, 503) else {}
    if error.status == 401:
        headers = {"WWW-Authenticate": "Bearer"}
    if error.status == 504:
        headers = {"X-Should-Retry": "false"}  # OpenAI's client would ask for the same twice more
    return JSONResponse(error_body(error.message, error.status), error.status, headers)


def error_body(message: str, status: int) -> dict[str, Any]:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}


def watched(application: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """The application, with one line logged a request and none of what it says in an error.

    A client that takes nothing of what it is sent is left.
    """

    async def watch(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        started, status = time.perf_counter(), 0

        async def send_on(message: Any) -> None:
            nonlocal status
            status = message.get("status", status)
            async with asyncio.timeout(STALLED):
                await send(message)

        left = ""
        try:
            await application(scope, receive, send_on)
        except OSError:  # TimeoutError is one
            left = ", and the client left"
        except Exception as error:
            log_failure(error)
        known = scope["path"]
        if known not in GET_PATHS + POST_PATHS:
            known = "/v1/models/…" if known.startswith("/v1/models/") else "another path"
        seconds = time.perf_counter() - started
        print(
            f"{scope['method']} {known}: {status}, {seconds:.2f} s{left}",
            file=sys.stderr,
            flush=True,
        )

    return watch


def log_failure(error: BaseException) -> None:
    """Where it failed; the message may hold a request's text and is left out."""
    for frame in traceback.extract_tb(error.__traceback__):
        print(f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}', file=sys.stderr)
    known = sentence_of(error)
    what = f"{type(error).__name__} while answering" if known is None else known
    print(f"error: {what}", file=sys.stderr, flush=True)
