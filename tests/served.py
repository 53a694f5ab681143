"""A served tiny model, asked over loopback by a plain HTTP client."""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import quantize_tiny, tiny_llama

from radquant.checkpoints.loading import Loaded, load
from radquant.generation.engines.kind import Wanted
from radquant.generation.opening import open_precision
from radquant.kernels import cpu
from radquant.serving import answering
from radquant.serving.http_server import open_server

TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system turn') }}"
    "{% endif %}{{ m.role }} : {{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %}assistant :{% endif %}"
)
SECRET = "lungs are clear"
CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
TURN = {"messages": [{"role": "user", "content": SECRET}]}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    return quantize_tiny(tiny_llama(folder / "original"), folder, "rtn")


@pytest.fixture(scope="module")
def reference(checkpoint: Path) -> Loaded:
    return load(checkpoint)


@pytest.fixture(scope="module", params=["transformers", "lean"])
def model(
    checkpoint: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> answering.Served:
    if request.param == "lean" and cpu.unavailable() is not None:
        pytest.skip(str(cpu.unavailable()))
    template = tmp_path_factory.mktemp("template") / "template.jinja"
    template.write_text(TEMPLATE)
    wanted = Wanted(checkpoint, device="cpu", chat_template=template)
    return answering.served(*open_precision(request.param, wanted), "tiny", 5)


@pytest.fixture(scope="module")
def port(model: answering.Served) -> Iterator[int]:
    server = open_server(model, "127.0.0.1", 0)
    thread = threading.Thread(target=server.run)
    thread.start()
    yield server.port
    server.should_exit = True
    thread.join(10)
    assert not thread.is_alive()
    assert not model.desk.thread.is_alive()


def ask(
    port: int, path: str, body: Any = None, method: str = "", **headers: str
) -> tuple[int, Any]:
    """Status and JSON of the answer; a body that is no bytes is sent as JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **headers}
    connection.request(method or ("GET" if body is None else "POST"), path, data, headers)
    answer = connection.getresponse()
    found = json.loads(answer.read())
    connection.close()
    return answer.status, found


def greedy(reference: Loaded, text: str, count: int) -> list[int]:
    """Decode without cache, padding or generate()."""
    ids = reference.tokenizer(text, add_special_tokens=False).input_ids
    new: list[int] = []
    with torch.inference_mode():
        while len(new) < count and new[-1:] != [2]:
            logits = reference.model(torch.tensor([ids + new]), use_cache=False).logits
            new.append(int(logits[0, -1].argmax()))
    return new


def pieces_of(port: int, path: str, body: Any) -> tuple[list[Any], str]:
    """The chunks of a stream, and its last line."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    data = json.dumps({**body, "stream": True})
    connection.request("POST", path, data, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.getheader("Content-Type", "").startswith("text/event-stream")
    lines = [line.removeprefix("data: ") for line in answer.read().decode().split("\n\n") if line]
    connection.close()
    return [json.loads(line) for line in lines[:-1]], lines[-1]


def until(true: Callable[[], bool]) -> None:
    for _ in range(2000):
        if true():
            return
        time.sleep(0.005)
    raise AssertionError("it took too long")
