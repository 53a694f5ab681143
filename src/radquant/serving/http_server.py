"""The OpenAI-compatible endpoint over HTTP. No text of a request or an answer is logged."""

import contextlib
import json
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from radquant.errors import UserError
from radquant.failures import is_panic, sentence_of
from radquant.serving import answering
from radquant.serving.answering import Served
from radquant.serving.requests import BadRequest, chat_request, completion_request

LARGEST_BODY = 4_000_000  # bytes
STALLED = 30  # seconds without a byte, after which a client is left
SLOWEST = 120  # seconds until a request must be there as a whole
GET_PATHS = ("/health", "/v1/models")
POST_PATHS = ("/v1/chat/completions", "/v1/completions")


def open_server(model: Served, host: str, port: int) -> ThreadingHTTPServer:
    """A server that listens; port 0 takes a free one. Requests wait for each other's answers."""

    class Handler(BaseHTTPRequestHandler):
        timeout = STALLED
        server_version, sys_version = "radquant", ""

        def setup(self) -> None:
            super().setup()
            # A byte now and then would keep a thread for ever, and the server from ending.
            self.patience = threading.Timer(SLOWEST, stop_reading, (self.connection,))
            self.patience.daemon = True
            self.patience.start()

        def finish(self) -> None:
            self.patience.cancel()
            super().finish()

        def do_GET(self) -> None:
            handle(self, lambda: get(model, self.path))

        def do_POST(self) -> None:
            handle(self, lambda: post(model, self.path, body_of(self)))

        def send_error(self, code: int, *args: Any, **kwargs: Any) -> None:
            """What the base class refuses by itself, such as an unknown method."""
            send(self, code, error_body("this is no request that is answered here", code))

        def log_message(self, format: str, *args: Any) -> None:
            """The base class would log the request's first line and what it is answered."""

    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        raise UserError(
            f"cannot listen on {host}:{port} ({error.strerror}); give another --host or --port"
        ) from None
    server.daemon_threads = False  # the end waits for the answer that is being written
    return server


def stop_reading(connection: socket.socket) -> None:
    """What is read from a connection from now on is its end."""
    with contextlib.suppress(OSError):  # it has ended by itself
        connection.shutdown(socket.SHUT_RD)


def get(model: Served, path: str) -> dict[str, Any]:
    if path == "/health":
        return {"status": "ok"}
    if path == "/v1/models":
        return answering.models(model)
    raise wrong_path(path, POST_PATHS)


def post(model: Served, path: str, body: Any) -> dict[str, Any]:
    if path == "/v1/chat/completions":
        chat = chat_request(body, model.name)
        with model.lock:
            return answering.chat(model, chat)
    if path == "/v1/completions":
        completion = completion_request(body, model.name)
        with model.lock:
            return answering.complete(model, completion)
    raise wrong_path(path, GET_PATHS)


def wrong_path(path: str, of_another_method: tuple[str, ...]) -> BadRequest:
    if path in of_another_method:
        return BadRequest("this path takes another method: GET or POST", 405)
    return BadRequest(f"there is nothing here; try {', '.join((*GET_PATHS, *POST_PATHS))}", 404)


def body_of(request: BaseHTTPRequestHandler) -> Any:
    """The JSON of a request's body.

    A web page may send other types of content to any address without being asked first, so only
    JSON is taken.
    """
    length = request.headers.get("Content-Length", "")
    if not length.isdecimal():
        raise BadRequest("the request must say its Content-Length", 411)
    if len(length) > 9 or int(length) > LARGEST_BODY:
        raise BadRequest(f"the body has more than {LARGEST_BODY} bytes", 413)
    data = request.rfile.read(int(length))
    if len(data) < int(length):
        raise BadRequest("the body ended before its Content-Length", 408)
    if request.headers.get_content_type() != "application/json":
        raise BadRequest("the body must be of Content-Type application/json", 415)
    try:
        body = json.loads(data)
        json.dumps(body, ensure_ascii=False).encode()  # halves of a character are no text
    except (ValueError, RecursionError):
        raise BadRequest("the body is not JSON in UTF-8") from None
    return body


def handle(request: BaseHTTPRequestHandler, answer: Callable[[], dict[str, Any]]) -> None:
    """Send what `answer` returns, or the error that it raises, as JSON; log one line."""
    started = time.perf_counter()
    status = 200
    try:
        found = answer()
    except BadRequest as error:
        status, found = error.status, error_body(error.message, error.status)
    except (TimeoutError, ConnectionError):
        request.close_connection = True
        return
    except BaseException as error:
        if not (isinstance(error, Exception) or is_panic(error)):
            raise
        status, found = 500, error_body("the server failed; its log says where", 500)
        log_failure(error)
    send(request, status, found)
    known = request.path if request.path in GET_PATHS + POST_PATHS else "another path"
    seconds = time.perf_counter() - started
    print(f"{request.command} {known}: {status}, {seconds:.2f} s", file=sys.stderr, flush=True)


def send(request: BaseHTTPRequestHandler, status: int, body: dict[str, Any]) -> None:
    data = json.dumps(body).encode()
    try:
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)
    except (TimeoutError, ConnectionError):
        print("a client left before its answer", file=sys.stderr, flush=True)


def error_body(message: str, status: int) -> dict[str, Any]:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}


def log_failure(error: BaseException) -> None:
    """Where it failed; the message may hold a request's text and is left out."""
    for frame in traceback.extract_tb(error.__traceback__):
        print(f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}', file=sys.stderr)
    known = sentence_of(error)
    what = f"{type(error).__name__} while answering" if known is None else known
    print(f"error: {what}", file=sys.stderr, flush=True)
