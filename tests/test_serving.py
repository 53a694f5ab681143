"""Our endpoint over loopback with a tiny model, by a plain HTTP client; scripts/serve.py itself."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_memory import MORE_THAN_ANY_MACHINE_HAS
from tiny_models import SCRIPTS, quantize_tiny, tiny_llama
from tokenizers import processors

from radquant.checkpoints.loading import Loaded, load
from radquant.generation import lean_writing
from radquant.generation.engines.kind import Wanted
from radquant.generation.opening import open_precision
from radquant.generation.tasks import Output
from radquant.kernels import cpu
from radquant.serving import answering, http_server
from radquant.serving.http_server import LARGEST_BODY, open_server
from radquant.serving.requests import BadRequest, chat_request, completion_request

TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system turn') }}"
    "{% endif %}{{ m.role }} : {{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %}assistant :{% endif %}"
)
SECRET = "lungs are clear"


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
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join(10)
    assert not thread.is_alive()


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


def check_choice(reference: Loaded, text: str, count: int, choice: Any, usage: Any) -> None:
    tokenizer = reference.tokenizer
    expected = greedy(reference, text, count)
    written = choice["message"]["content"] if "message" in choice else choice["text"]
    assert written == tokenizer.decode(expected, skip_special_tokens=True).strip()
    assert choice["finish_reason"] == ("stop" if expected[-1] == 2 else "length")
    read = len(tokenizer(text, add_special_tokens=False).input_ids)
    total = read + len(expected)
    assert usage == dict(prompt_tokens=read, completion_tokens=len(expected), total_tokens=total)


def test_a_chat_is_answered_greedily_by_the_models_template(reference, port) -> None:
    messages = [
        {"role": "user", "content": "the heart ?"},
        {"role": "assistant", "content": "normal ."},
        {"role": "user", "content": [{"type": "text", "text": SECRET}]},
    ]
    status, found = ask(
        port, "/v1/chat/completions", {"model": "tiny", "messages": messages, "temperature": 0}
    )
    assert (status, found["object"], found["model"]) == (200, "chat.completion", "tiny")
    text = f"user : the heart ? assistant : normal . user : {SECRET} assistant :"
    check_choice(reference, text, 5, found["choices"][0], found["usage"])
    assert found["choices"][0]["message"]["role"] == "assistant"


def test_completions_take_prompts_as_they_are(reference, port) -> None:
    status, found = ask(port, "/v1/completions", {"prompt": SECRET, "max_tokens": 9})
    assert (status, found["object"]) == (200, "text_completion")
    check_choice(reference, SECRET, 9, found["choices"][0], found["usage"])
    several = [SECRET, "the heart size is"]
    _, both = ask(port, "/v1/completions", {"prompt": several, "max_tokens": 9})
    assert [choice["index"] for choice in both["choices"]] == [0, 1]
    assert both["choices"][0]["text"] == found["choices"][0]["text"]
    words = found["choices"][0]["text"].split()
    _, cut = ask(port, "/v1/completions", {"prompt": SECRET, "max_tokens": 9, "stop": words[2]})
    place = words.index(words[2])
    assert cut["choices"][0]["text"].split() == words[:place]
    assert cut["choices"][0]["finish_reason"] == "stop"
    assert cut["usage"]["completion_tokens"] == place + 1


def test_requests_at_once_get_their_own_answers(reference, port) -> None:
    prompts = [f"{'the lungs ' * n}are" for n in range(1, 7)]
    found: dict[str, Any] = {}

    def one(prompt: str) -> None:
        found[prompt] = ask(port, "/v1/completions", {"prompt": prompt, "max_tokens": 6})

    threads = [threading.Thread(target=one, args=(prompt,)) for prompt in prompts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for prompt, (status, answer) in found.items():
        assert status == 200
        check_choice(reference, prompt, 6, answer["choices"][0], answer["usage"])


def test_what_can_be_asked_without_a_prompt(port) -> None:
    assert ask(port, "/health") == (200, {"status": "ok"})
    status, found = ask(port, "/v1/models")
    assert status == 200
    assert [(entry["id"], entry["max_model_len"]) for entry in found["data"]] == [("tiny", 128)]


CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
TURN = {"messages": [{"role": "user", "content": SECRET}]}


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        (CHAT, b"{", 400, "not JSON"),
        (CHAT, b'{"messages": [{"role": "user", "content": "\\ud800"}]}', 400, "not JSON in UTF-8"),
        (CHAT, b"[" * 100_000, 400, "not JSON"),
        (CHAT, [], 400, "must be a JSON object"),
        (CHAT, {}, 400, "messages must be"),
        (CHAT, {"messages": [{"role": "doctor", "content": "x"}]}, 400, "needs a role"),
        (CHAT, {"messages": [{"role": "user", "content": 3}]}, 400, "needs a content"),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "images"),
        (CHAT, {"messages": [{"role": "system", "content": "x"}]}, 400, "no system turn"),
        (CHAT, {**TURN, "temperature": 0.7}, 400, "temperature can only be 0 here"),
        (CHAT, {**TURN, "stream": True}, 400, "stream can only be False here"),
        (CHAT, {**TURN, "n": 2}, 400, "n can only be 1"),
        (CHAT, {**TURN, "tools": []}, 400, "'tools' is not supported"),
        (CHAT, {**TURN, "model": "other"}, 404, "this is 'tiny'"),
        (CHAT, {**TURN, "max_tokens": 0}, 400, "max_tokens must be a whole number"),
        (CHAT, {**TURN, "max_tokens": True}, 400, "max_tokens must be a whole number"),
        (CHAT, {**TURN, "max_completion_tokens": 999}, 400, "more than the 128"),
        (CHAT, {**TURN, "stop": [""]}, 400, "stop must be"),
        (CHAT, {**TURN, "stop": ["a"] * 101}, 400, "101 stop strings are more than the 100"),
        (CHAT, {**TURN, "max_tokens": 10**12}, 400, "max_tokens may be 1000000 at most"),
        (CHAT, {**TURN, "x" * 999: 1}, 400, "xxx' is not supported"),
        (CHAT, b'{"messages": [], "temperature": NaN}', 400, "temperature can only be 0"),
        (CHAT, {"messages": TURN["messages"] * 10_001}, 400, "10001 messages are more than"),
        (COMPLETION, {"prompt": ["a"] * 1001}, 400, "1001 prompts are more than the 1000"),
        (COMPLETION, {"prompt": ""}, 400, "prompt must be"),
        (COMPLETION, {"prompt": [1, 2]}, 400, "prompt must be"),
        (COMPLETION, {"prompt": "the " * 128}, 400, "the prompt has 128 tokens"),
        ("/v1/embeddings", {"input": "x"}, 404, "there is nothing here"),
        ("/health", {}, 405, "another method"),
        (CHAT, None, 405, "another method"),
    ],
)
def test_a_bad_request_is_told_why(port, capsys, path, body, status: int, said: str) -> None:
    found, answer = ask(port, path, body)
    assert (found, answer["error"]["code"]) == (status, status)
    assert said in answer["error"]["message"]
    assert answer["error"]["type"] == "invalid_request_error"
    assert SECRET not in capsys.readouterr().err


SHY = "{% for m in messages if m.role == 'user' %}user : {{ m.content }} {% endfor %}assistant :"


def test_a_chat_whose_template_leaves_a_turn_out_is_refused(model) -> None:
    tokenizer = model.opened.tokenizer
    turns = ({"role": "system", "content": "the heart"}, *TURN["messages"])
    before = tokenizer.chat_template
    tokenizer.chat_template = SHY
    try:
        assert answering.chat_ids(model, turns[1:])
        with pytest.raises(BadRequest) as caught:
            answering.chat_ids(model, turns)
    finally:
        tokenizer.chat_template = before
    assert "leaves out or changes text" in caught.value.message
    assert "heart" not in caught.value.message


def test_a_completion_gets_what_the_tokenizer_itself_adds(model, monkeypatch) -> None:
    """Also of a model with a chat template, which writes its own into chats alone."""
    read = []

    def write(served: Any, ids: list[int], asked: Any) -> Output:
        read.append(ids)
        return Output("", 1, "stop")

    monkeypatch.setattr(answering, "write", write)
    backend = model.opened.tokenizer.backend_tokenizer
    before = backend.post_processor
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    try:
        answering.complete(model, completion_request({"prompt": [SECRET, f"<s> {SECRET}"]}, "tiny"))
        answering.chat(model, chat_request(TURN, "tiny"))
        own = model.opened.tokenizer(SECRET)["input_ids"][:-1]  # nothing is written behind an EOS
    finally:
        backend.post_processor = before
    assert read[:2] == [own, own]
    assert own[0] == 1
    assert 1 not in read[2]


def test_headers_that_are_wrong(port) -> None:
    assert ask(port, CHAT, TURN, **{"Content-Type": "text/plain"})[0] == 415
    assert ask(port, CHAT, method="DELETE")[0] == 501
    for length, status in (
        *(("x", 411), ("-1", 411), (str(LARGEST_BODY + 1), 413), ("9" * 5000, 413)),
    ):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.putrequest("POST", CHAT)
        connection.putheader("Content-Length", length)
        connection.endheaders()
        assert connection.getresponse().status == status
        connection.close()


def test_a_request_that_trickles_is_ended(model, monkeypatch) -> None:
    """Else a byte now and then would keep a thread, and the server from ending."""
    monkeypatch.setattr(http_server, "SLOWEST", 0.3)
    server = open_server(model, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    answers = []
    for sent in (f"POST {CHAT} HTTP/1.1\r\nContent-Length: 99\r\n\r\nx", "POST "):
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as slow:
            slow.sendall(sent.encode())
            answers.append(slow.recv(1000))
    server.shutdown()
    server.server_close()
    thread.join(10)
    assert not thread.is_alive()
    assert b"408" in answers[0]
    assert b"400" in answers[1]


def test_a_failure_inside_is_logged_without_the_text(model, port, capfd, monkeypatch) -> None:
    def fail(*args: Any, **named: Any) -> None:
        raise ValueError(SECRET)

    def ask_for_more(*args: Any, **named: Any) -> None:
        torch.empty(MORE_THAN_ANY_MACHINE_HAS, dtype=torch.uint8)

    for broken, status in ((fail, 500), (ask_for_more, 503)):
        with monkeypatch.context() as patch:
            if model.opened.engine == "transformers":
                patch.setattr(model.opened.wanted.loaded.model, "forward", broken)
            else:
                patch.setattr(lean_writing, "step", broken)
            found, answer = ask(port, CHAT, TURN)
        assert (found, answer["error"]["type"]) == (status, "server_error")
        assert SECRET not in json.dumps(answer)
    log = capfd.readouterr().err
    assert SECRET not in log
    assert "error: ValueError while answering" in log
    assert ask(port, CHAT, TURN)[0] == 200  # it goes on


# ------------------------------------------------------------------------------------ the script


def serve(*options: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPTS / "serve.py"), *map(str, options)]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS.parent / "src")}
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Tests that run in a shell's background have inherited that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "kernel"),
    [("transformers", r"[\w-]+"), ("auto", r"[\w-]+, int8 activations")],
)
def test_the_script_serves_and_ends_cleanly(
    checkpoint: Path, tmp_path: Path, engine: str, kernel: str
) -> None:
    template = tmp_path / "template.jinja"
    template.write_text(TEMPLATE)
    options = ["--engine", engine, "--port", 0, "--chat-template", template, "--device", "cpu"]
    if engine == "auto":
        options += ["--activations", '{"bits": 8}', "--lm-head", '{"bits": 8, "group_size": 32}']
    process = serve(checkpoint, *options, "--name", "tiny-model")
    assert process.stdout is not None
    line = process.stdout.readline()
    used = {"auto": "lean"}.get(engine, engine)
    place = re.fullmatch(
        rf"tiny-model \({used}, {kernel} kernel, torch.float32\) at http://127.0.0.1:(\d+); "
        r"Ctrl-C ends\n",
        line,
    )
    try:
        assert place, line
        # The default of 256 tokens is more than this model has room for behind the prompt.
        status, found = ask(int(place[1]), CHAT, {**TURN, "model": "tiny-model"})
        assert (status, 5 < found["usage"]["total_tokens"] <= 128) == (200, True)
    finally:
        process.send_signal(signal.SIGINT)
    _, log = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "POST /v1/chat/completions: 200, " in log
    assert "is finished first" in log
    assert "Traceback" not in log
    assert SECRET not in log


def test_what_vllm_would_not_round_is_refused(checkpoint: Path) -> None:
    process = serve(checkpoint, "--lm-head", '{"bits": 8}', "--dry-run")
    out, log = process.communicate(timeout=60)
    assert (process.returncode, out, log.count("\n")) == (1, "", 1)
    assert "rounds no activations, KV cache or head" in log


def test_a_port_that_is_taken(model) -> None:
    from radquant.errors import UserError

    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"cannot listen on 127.0.0.1:{busy}"):
            open_server(model, "127.0.0.1", busy)
