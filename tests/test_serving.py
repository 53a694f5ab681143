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
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import toy_engine
from served import (
    CHAT,
    COMPLETION,
    SECRET,
    TEMPLATE,
    TURN,
    ask,
    checkpoint,
    greedy,
    model,
    pieces_of,
    port,
    reference,
    until,
)
from test_desk import Counting
from test_desk import Engine as CountingEngine
from test_memory import MORE_THAN_ANY_MACHINE_HAS
from tiny_models import SCRIPTS
from tokenizers import processors

from radquant.checkpoints.loading import Loaded
from radquant.cli import AT_WORK
from radquant.generation.lean_running import LeanBatch
from radquant.serving import desk as desk_module
from radquant.serving import http_server, reading
from radquant.serving.desk import Desk
from radquant.serving.http_server import LARGEST_BODY, open_server
from radquant.serving.requests import BadRequest, chat_request, completion_request

__all__ = ["checkpoint", "model", "port", "reference"]


def check_choice(reference: Loaded, text: str, count: int, choice: Any, usage: Any) -> None:
    tokenizer = reference.tokenizer
    expected = greedy(reference, text, count)
    words = tokenizer.decode(expected, skip_special_tokens=True)
    if "message" in choice:
        assert choice["message"]["content"] == words
    else:  # the space between prompt and answer is the answer's
        assert choice["text"] == (f" {words}" if words else "")
    assert choice["finish_reason"] == ("stop" if expected[-1] == 2 else "length")
    read = len(tokenizer(text, add_special_tokens=False).input_ids)
    while expected and expected[-1] < 4:  # special tokens, which no text shows
        expected.pop()
    shown = len(expected)
    assert usage == dict(prompt_tokens=read, completion_tokens=shown, total_tokens=read + shown)


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
    text = found["choices"][0]["text"]
    mark = text.split()[2]
    _, cut = ask(port, "/v1/completions", {"prompt": SECRET, "max_tokens": 9, "stop": mark})
    assert cut["choices"][0]["text"] == text[: text.index(mark)]
    assert cut["choices"][0]["finish_reason"] == "stop"
    # The space before the mark is shown, and comes with its token.
    assert cut["usage"]["completion_tokens"] == 1 + text.split().index(mark)


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
        (CHAT, {**TURN, "temperature": 2.1}, 400, "temperature must be a number from 0 to 2"),
        (CHAT, {**TURN, "temperature": True}, 400, "temperature must be a number from 0 to 2"),
        (CHAT, {**TURN, "top_p": -0.1}, 400, "top_p must be a number from 0 to 1"),
        (CHAT, {**TURN, "temperature": 1, "top_k": 5}, 400, "top_k can only be -1"),
        (CHAT, {**TURN, "seed": 1.5}, 400, "seed must be a whole number"),
        (CHAT, {**TURN, "seed": 2**63}, 400, "seed must be a whole number"),
        (CHAT, {**TURN, "presence_penalty": 0.5}, 400, "presence_penalty can only be 0 here"),
        (CHAT, {**TURN, "response_format": {"type": "json_object"}}, 400, "response_format can"),
        (CHAT, {**TURN, "logprobs": 1}, 400, "logprobs must be true or false"),
        (CHAT, {**TURN, "top_logprobs": 1}, 400, "top_logprobs go with logprobs: true"),
        (CHAT, {**TURN, "logprobs": True, "top_logprobs": 21}, 400, "top_logprobs must be a whole"),
        (CHAT, {**TURN, "echo": True}, 400, "'echo' is not supported"),
        (CHAT, {**TURN, "best_of": 2}, 400, "best_of can only be as n"),
        (CHAT, {**TURN, "stream": 1}, 400, "stream must be true or false"),
        (CHAT, {**TURN, "stream_options": {}}, 400, "go with stream: true"),
        (CHAT, {**TURN, "n": 0}, 400, "n must be a whole number from 1 to 128"),
        (CHAT, {**TURN, "tools": []}, 400, "'tools' is not supported"),
        (CHAT, {**TURN, "model": "other"}, 404, "this is 'tiny'"),
        (CHAT, {**TURN, "max_tokens": 0}, 400, "max_tokens must be a whole number"),
        (CHAT, {**TURN, "max_tokens": True}, 400, "max_tokens must be a whole number"),
        (CHAT, {**TURN, "max_completion_tokens": 999}, 400, "takes 128 together"),
        (CHAT, {**TURN, "stop": [""]}, 400, "stop must be"),
        (CHAT, {**TURN, "stop": ["a"] * 101}, 400, "101 stop strings are more than the 100"),
        (CHAT, {**TURN, "max_tokens": 10**12}, 400, "a whole number from 1 to 1000000"),
        (CHAT, {**TURN, "x" * 999: 1}, 400, "xxx' is not supported"),
        (CHAT, b'{"messages": [0], "temperature": NaN}', 400, "temperature must be a number"),
        (CHAT, {"messages": TURN["messages"] * 10_001}, 400, "10001 messages are more than"),
        (COMPLETION, {"prompt": ["a"] * 1001}, 400, "1001 prompts are more than the 1000"),
        (COMPLETION, {"prompt": ""}, 400, "prompt must be"),
        (COMPLETION, {"prompt": [1, "a"]}, 400, "prompt must be"),
        (COMPLETION, {"prompt": [[1], []]}, 400, "prompt must be"),
        (COMPLETION, {"prompt": [[1], "a"]}, 400, "prompt must be"),
        (COMPLETION, {"prompt": [True]}, 400, "prompt must be"),
        (COMPLETION, {"prompt": [17]}, 400, "a token that the model does not know"),
        (COMPLETION, {"prompt": [-1]}, 400, "a token that the model does not know"),
        (COMPLETION, {"prompt": [5] * 128}, 400, "the prompt has 128 tokens"),
        (COMPLETION, {"prompt": "a", "logprobs": 21}, 400, "logprobs must be a whole number"),
        (COMPLETION, {"prompt": "a", "max_tokens": 0}, 400, "max_tokens must be a whole number"),
        (COMPLETION, {"prompt": "a", "echo": 1}, 400, "echo must be true or false"),
        (COMPLETION, {"prompt": "the " * 128}, 400, "the prompt has 128 tokens"),
        (COMPLETION, {"prompt": "the " * 9999}, 400, "more than the 128 tokens that the model"),
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
    tokenizer = model.reader.tokenizer
    turns = ({"role": "system", "content": "the heart"}, *TURN["messages"])
    before = tokenizer.chat_template
    tokenizer.chat_template = SHY
    try:
        assert reading.chat_ids(tokenizer, turns[1:], "2025-01-01")
        with pytest.raises(BadRequest) as caught:
            reading.chat_ids(tokenizer, turns, "2025-01-01")
    finally:
        tokenizer.chat_template = before
    assert "leaves out or changes text" in caught.value.message
    assert "heart" not in caught.value.message


def test_a_completion_gets_what_the_tokenizer_itself_adds(model) -> None:
    """Also of a model with a chat template, which writes its own into chats alone."""
    tokenizer = model.reader.tokenizer
    backend = tokenizer.backend_tokenizer
    before = backend.post_processor
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    try:
        both = completion_request({"prompt": [SECRET, f"<s> {SECRET}"]}, "tiny")
        read = [given.ids for given in reading.prompts_of(both, tokenizer, "")]
        (turn,) = reading.prompts_of(chat_request(TURN, "tiny"), tokenizer, "2025-01-01")
        own = tokenizer(SECRET)["input_ids"][:-1]  # nothing is written behind an EOS
    finally:
        backend.post_processor = before
    assert read == [own, own]
    assert own[0] == 1
    assert 1 not in turn.ids


def test_headers_that_are_wrong(port) -> None:
    assert ask(port, CHAT, TURN, **{"Content-Type": "text/plain"})[0] == 415
    assert ask(port, CHAT, method="DELETE")[0] == 405
    for length in ("x", "-1", "9" * 5000):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.putrequest("POST", CHAT)
        connection.putheader("Content-Length", length)
        connection.endheaders()
        assert connection.getresponse().status == 400
        connection.close()


def test_a_body_that_is_too_large_is_told_so(port) -> None:
    """Also one that does not say its length; and its client can still send all of it."""
    status, found = ask(port, CHAT, b" " * (LARGEST_BODY + 1))
    assert (status, found["error"]["message"]) == (
        413,
        f"the body has more than {LARGEST_BODY} bytes",
    )
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    parts = iter([b" " * 500_000] * 9)
    connection.request("POST", CHAT, parts, {"Content-Type": "application/json"})
    assert connection.getresponse().status == 413
    connection.close()


def test_a_connection_serves_several_requests(port) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for _ in range(2):
        connection.request("GET", "/health?x=1")
        assert json.loads(connection.getresponse().read()) == {"status": "ok"}
        assert connection.sock is not None
    connection.close()


def test_a_request_that_trickles_is_ended(model, monkeypatch) -> None:
    """Else a byte now and then would keep a thread, and the server from ending."""
    monkeypatch.setattr(http_server, "SLOWEST", 0.3)
    other = replace(model, desk=Desk(toy_engine, model.opened, 1, 0))
    server = open_server(other, "127.0.0.1", 0)
    thread = threading.Thread(target=server.run)
    thread.start()
    answers = []
    for sent in (f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nx", "POST "):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as slow:
            slow.sendall(sent.encode())
            answers.append(slow.recv(1000))
    server.should_exit = True
    thread.join(10)
    assert not thread.is_alive()
    assert b"408" in answers[0]
    assert answers[1] == b""


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
                patch.setattr(LeanBatch, "read", broken)
            found, answer = ask(port, CHAT, TURN)
        assert (found, answer["error"]["type"]) == (status, "server_error")
        assert SECRET not in json.dumps(answer)
    log = capfd.readouterr().err
    assert SECRET not in log
    assert "error: ValueError while answering" in log
    assert ask(port, CHAT, TURN)[0] == 200  # it goes on


# ----------------------------------------------------------------------- several clients at once


def test_a_stream_holds_the_same_text_in_pieces(model, port) -> None:
    texts = [SECRET, "the heart size is"]
    asked = {"prompt": texts, "max_tokens": 9, "stop": "zzz"}
    _, whole = ask(port, COMPLETION, asked)
    chunks, last = pieces_of(port, COMPLETION, {**asked, "stream_options": {"include_usage": True}})
    assert last == "[DONE]"
    assert chunks[-1]["usage"] == whole["usage"]
    assert chunks[-1]["choices"] == []
    for choice in whole["choices"]:
        own = [
            c for chunk in chunks[:-1] for c in chunk["choices"] if c["index"] == choice["index"]
        ]
        assert "".join(piece["text"] for piece in own) == choice["text"]
        assert [piece["finish_reason"] for piece in own if piece["finish_reason"]] == [
            choice["finish_reason"]
        ]
        assert own[-1]["finish_reason"]
        assert model.opened.engine != "lean" or len(own) > 3
    _, whole = ask(port, CHAT, TURN)
    chunks, last = pieces_of(port, CHAT, TURN)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0]["role"] == "assistant"
    assert (
        "".join(delta.get("content", "") for delta in deltas)
        == (whole["choices"][0]["message"]["content"])
    )
    assert {(c["object"], c["model"], c["id"]) for c in chunks} == {
        ("chat.completion.chunk", "tiny", chunks[0]["id"])
    }


def test_a_stream_that_cannot_begin_has_a_status(port) -> None:
    status, found = ask(port, COMPLETION, {"prompt": "the " * 128, "stream": True})
    assert (status, found["error"]["code"]) == (400, 400)


@pytest.fixture
def gate(model, monkeypatch) -> threading.Event:
    """Holds up the batch before each step until it is set."""
    if model.opened.engine != "lean":
        pytest.skip("it has no running batch")
    opened, step = threading.Event(), LeanBatch.step
    monkeypatch.setattr(LeanBatch, "step", lambda batch: (opened.wait(20), step(batch))[1])
    return opened


def send_request(port: int, body: Any) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", COMPLETION, json.dumps(body), {"Content-Type": "application/json"})
    return connection


def test_a_client_that_leaves_takes_its_answer_along(model, port, gate, reference) -> None:
    """Whether it gets the answer in pieces or whole, is being answered or waits; others go on."""
    desk = model.desk
    stays = send_request(port, {"prompt": SECRET, "max_tokens": 90})
    until(lambda: len(desk.rows) == 1)
    leaving = [
        send_request(port, {"prompt": f"the {'heart ' * n}", "max_tokens": 90, "stream": n > 1})
        for n in (1, 2)
    ]
    until(lambda: len(desk.waiting) == 2)
    for connection in leaving:
        assert connection.sock is not None
        connection.sock.close()
    until(lambda: all(answer.gone for answer in desk.waiting))
    gate.set()
    answer = json.loads(stays.getresponse().read())
    stays.close()
    check_choice(reference, SECRET, 90, answer["choices"][0], answer["usage"])
    until(lambda: not desk.rows and not desk.waiting)
    assert desk.batch.rows == {}


def test_a_stream_whose_client_leaves_is_no_longer_written(model, port, gate) -> None:
    desk = model.desk
    gate.set()
    connection = send_request(port, {"prompt": SECRET, "max_tokens": 120, "stream": True})
    answer = connection.getresponse()
    assert answer.readline().startswith(b"data: ")
    gate.clear()
    connection.sock.close() if connection.sock else None
    answer.close()
    until(lambda: all(row.gone for row in desk.rows))
    gate.set()
    until(lambda: not desk.rows)


def test_more_than_may_wait_is_refused(model, port, gate, monkeypatch) -> None:
    monkeypatch.setattr(desk_module, "MOST_WAITING", 2)
    monkeypatch.setattr(model.desk, "most", 1)
    first = send_request(port, {"prompt": SECRET})
    until(lambda: len(model.desk.rows) == 1)
    second = send_request(port, {"prompt": [SECRET, "the heart"]})
    until(lambda: len(model.desk.waiting) == 2)
    third = send_request(port, {"prompt": SECRET}).getresponse()
    assert (third.status, third.getheader("Retry-After")) == (429, "5")
    assert "2 answers wait already" in json.loads(third.read())["error"]["message"]
    gate.set()
    assert [each.getresponse().status for each in (first, second)] == [200, 200]
    status, found = ask(port, COMPLETION, {"prompt": [SECRET] * 3})
    assert (status, "ask in parts" in found["error"]["message"]) == (413, True)


def test_what_never_fits_into_the_cache_is_refused(model, port, monkeypatch) -> None:
    if model.opened.engine != "lean":
        pytest.skip("it has no running batch")
    monkeypatch.setattr(model.desk, "cache", model.desk.batch.bytes_for(64))
    status, found = ask(port, COMPLETION, {"prompt": SECRET, "max_tokens": 70})
    assert (status, found["error"]["type"]) == (503, "server_error")
    assert "more than the" in found["error"]["message"]
    prompts = [SECRET, "the heart size is"]  # which have to go one after the other
    assert ask(port, COMPLETION, {"prompt": prompts, "max_tokens": 20})[0] == 200


def test_the_end_waits_for_answers_but_for_none_that_has_not_begun(model) -> None:
    """What a first signal does; a second, `force_exit`, waits for nothing."""
    for forced in (False, True):
        batch = Counting()
        engine: Any = CountingEngine(batch)
        server = open_server(
            replace(model, desk=Desk(engine, model.opened, 1, 999)), "127.0.0.1", 0
        )
        thread = threading.Thread(target=server.run)
        thread.start()
        asked = {"prompt": SECRET, "max_tokens": 2}
        written = send_request(server.port, asked)
        until(lambda rows=server.desk.rows: len(rows) == 1)
        waits = send_request(server.port, asked)
        until(lambda desk=server.desk: len(desk.waiting) == 1)
        server.should_exit = True
        assert waits.getresponse().status == 503
        server.force_exit = forced
        if forced:
            assert written.getresponse().status == 500
            batch.steps.put(None)  # the one at hand
        else:
            for _ in range(2):
                batch.steps.put(None)
            answer = json.loads(written.getresponse().read())
            assert answer["usage"]["completion_tokens"] == 2
        thread.join(20)
        assert not thread.is_alive()


def test_bodies_take_bounded_memory(port, monkeypatch) -> None:
    monkeypatch.setattr(http_server, "MOST_HELD", 1000)
    status, found = ask(port, COMPLETION, {"prompt": "the " * 300})
    assert (status, "ask later" in found["error"]["message"]) == (503, True)
    assert ask(port, COMPLETION, {"prompt": SECRET})[0] == 200


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
    ("engine", "kernel", "end"),
    [
        ("transformers", r"[\w-]+", signal.SIGINT),
        ("auto", r"[\w-]+, int8 activations", signal.SIGTERM),
    ],
)
def test_the_script_serves_and_ends_cleanly(
    checkpoint: Path, tmp_path: Path, engine: str, kernel: str, end: signal.Signals
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
        process.send_signal(end)
    _, log = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "POST /v1/chat/completions: 200, " in log
    assert "are finished first" in log
    assert "Traceback" not in log
    assert SECRET not in log


def test_what_vllm_would_not_round_is_refused(checkpoint: Path) -> None:
    process = serve(checkpoint, "--lm-head", '{"bits": 8}', "--dry-run")
    out, log = process.communicate(timeout=60)
    said = [line for line in log.splitlines() if line != AT_WORK]
    assert (process.returncode, out, len(said)) == (1, "", 1)
    assert "rounds no activations, KV cache or head" in log


def test_a_key_reaches_vllm_and_is_not_shown(checkpoint: Path, tmp_path: Path, monkeypatch) -> None:
    """Given as an option, or in the environment, which other users of the machine cannot see."""
    (tmp_path / "vllm").touch()
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "got $VLLM_API_KEY"\n')
    python.chmod(0o755)
    options = [checkpoint.parent / "original", "--python", python, "--device", "cpu"]
    for given, options_of_key in (("KEY-1", ["--api-key", "KEY-1"]), ("KEY-2", [])):
        monkeypatch.setenv("RADQUANT_API_KEY", "KEY-2")
        out, log = serve(*options, *options_of_key).communicate(timeout=60)
        command, got = out.splitlines()
        assert got == f"got {given}"
        assert "KEY" not in command.replace("API_KEY", "")
        assert "KEY" not in log


def test_a_key_that_no_client_could_send_is_refused(checkpoint: Path) -> None:
    for key in (" x", "ключ", "a\nb"):
        process = serve(checkpoint, "--engine", "auto", "--api-key", key)
        _, log = process.communicate(timeout=60)
        assert (process.returncode, log.count("\n")) == (1, 1)
        assert "the API key must be of ASCII characters" in log


def test_a_port_that_is_taken(model) -> None:
    from radquant.errors import UserError

    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"cannot listen on 127.0.0.1:{busy}"):
            open_server(model, "127.0.0.1", busy)
