"""What OpenAI's clients may ask of our endpoint: drawn answers, several, log-probabilities."""

import http.client
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from served import (
    CHAT,
    COMPLETION,
    SECRET,
    TURN,
    ask,
    checkpoint,
    greedy,
    model,
    pieces_of,
    port,
    reference,
)
from test_choosing import cut, softened, unlikely
from tiny_reports import model_and_splits, run_script

from radquant.checkpoints.loading import Loaded
from radquant.generation.engines.kind import Wanted
from radquant.generation.opening import open_precision
from radquant.prompts import chat_prompt
from radquant.serving import answering, http_server
from radquant.serving.answering import Served
from radquant.serving.http_server import open_server
from radquant.serving.reading import Reader

__all__ = ["checkpoint", "model", "port", "reference"]
HOT = {"temperature": 1.5, "max_tokens": 12}


def scores_behind(reference: Loaded, ids: list[int]) -> torch.Tensor:
    """Of each token that can follow, by transformers without a cache: [tokens, vocabulary]."""
    with torch.inference_mode():
        return reference.model(torch.tensor([ids]), use_cache=False).logits[0].double()


def ids_of(reference: Loaded, text: str) -> list[int]:
    return reference.tokenizer(text, add_special_tokens=False).input_ids


def texts(found: Any) -> list[str]:
    return [choice["text"] for choice in found["choices"]]


# ------------------------------------------------------------------------------- drawn at random


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (2.0, 0.8)])
def test_answers_have_the_probabilities_of_the_models_scores(
    reference, port, temperature, top_p
) -> None:
    scores = scores_behind(reference, ids_of(reference, SECRET))[-1]
    expected = cut(softened(scores, temperature), top_p)
    asked = {"prompt": SECRET, "temperature": temperature, "top_p": top_p, "max_tokens": 1}
    found: Counter[int] = Counter()
    for seed in range(4):
        _, answer = ask(port, COMPLETION, {**asked, "n": 100, "seed": seed, "logprobs": 0})
        names = [choice["logprobs"]["tokens"][0].strip() for choice in answer["choices"]]
        found.update(reference.tokenizer.convert_tokens_to_ids(names))
    assert found.total() == 400
    assert unlikely(found, expected) > 1e-3


def test_a_seed_says_what_is_drawn(port) -> None:
    """Alone, beside others, among several prompts, as a stream, and with log-probabilities."""
    alone = {
        (prompt, seed): texts(ask(port, COMPLETION, {"prompt": prompt, "seed": seed, **HOT})[1])
        for prompt in (SECRET, "the heart size is")
        for seed in (1, 2, -3)
    }
    assert len({text for texts in alone.values() for text in texts}) == 6

    def again(asked: tuple[str, int]) -> list[str]:
        return texts(ask(port, COMPLETION, {"prompt": asked[0], "seed": asked[1], **HOT})[1])

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(again, alone)) == list(alone.values())
    both = {"prompt": [SECRET, "the heart size is"], "seed": 1, **HOT}
    _, found = ask(port, COMPLETION, both)
    assert texts(found) == [*alone[SECRET, 1], *alone["the heart size is", 1]]
    chunks, _ = pieces_of(port, COMPLETION, {"prompt": SECRET, "seed": 1, **HOT})
    sent = "".join(choice["text"] for chunk in chunks for choice in chunk["choices"])
    assert [sent] == alone[SECRET, 1]
    _, found = ask(port, COMPLETION, {"prompt": SECRET, "seed": 1, "logprobs": 3, **HOT})
    assert texts(found) == alone[SECRET, 1]


def test_several_answers_to_a_prompt_differ_and_are_those_of_the_seed(port) -> None:
    asked = {"prompt": [SECRET, "the heart"], "n": 3, "best_of": 3, "seed": 1, **HOT}
    _, found = ask(port, COMPLETION, asked)
    assert [choice["index"] for choice in found["choices"]] == list(range(6))
    assert len(set(texts(found))) == 6
    _, other = ask(port, COMPLETION, {**asked, "prompt": "the heart"})
    assert texts(other) == texts(found)[3:]
    assert found["usage"]["prompt_tokens"] == 5  # each prompt once
    _, one = ask(port, COMPLETION, {**asked, "prompt": SECRET, "n": 1, "best_of": None})
    assert texts(one) == texts(found)[:1]


def test_without_a_seed_answers_differ(port) -> None:
    found = [texts(ask(port, COMPLETION, {"prompt": SECRET, **HOT})[1])[0] for _ in range(4)]
    assert len(set(found)) > 1


def test_temperature_0_draws_nothing(reference, port) -> None:
    asked = {"prompt": SECRET, "max_tokens": 9, "temperature": 0, "n": 2, "top_p": 0.9, "seed": 4}
    _, found = ask(port, COMPLETION, {**asked, "top_k": 5})
    words = reference.tokenizer.decode(greedy(reference, SECRET, 9), skip_special_tokens=True)
    assert texts(found) == [f" {words}"] * 2


# ------------------------------------------------------------------------------ log-probabilities


def check_told(reference: Loaded, told: Any, ids: list[int], top: int, first: int = 0) -> None:
    """Of each token of `ids` from the first on: its name, log-probability, and the likeliest."""
    logs = scores_behind(reference, ids).log_softmax(-1)
    names = reference.tokenizer.convert_ids_to_tokens(ids)
    assert [token.strip() for token in told["tokens"]] == names[first:]
    for place, (value, best) in enumerate(
        zip(told["token_logprobs"], told["top_logprobs"], strict=True), first
    ):
        if place == 0:
            assert (value, best) == (None, None)
            continue
        own = logs[place - 1]
        assert value == pytest.approx(float(own[ids[place]]), abs=2e-3)
        values, tokens = own.topk(top)
        expected = {
            reference.tokenizer.convert_ids_to_tokens(int(token)): float(found)
            for token, found in zip(tokens, values, strict=True)
        } | {names[place]: float(own[ids[place]])}
        assert {name.strip(): found for name, found in best.items()} == pytest.approx(
            expected, abs=2e-3
        )


def test_a_completion_tells_how_likely_its_tokens_were(reference, port) -> None:
    asked = {"prompt": SECRET, "max_tokens": 9, "logprobs": 2}
    _, found = ask(port, COMPLETION, asked)
    (choice,) = found["choices"]
    ids = ids_of(reference, SECRET)
    check_told(reference, choice["logprobs"], ids + greedy(reference, SECRET, 9), 2, len(ids))
    shown = [token for token in choice["logprobs"]["tokens"] if not token.startswith("<")]
    assert "".join(shown) == choice["text"]
    for token, offset in zip(shown, choice["logprobs"]["text_offset"], strict=False):
        assert choice["text"][offset:].startswith(token)
    chunks, _ = pieces_of(port, COMPLETION, asked)
    parts = [choice["logprobs"] for chunk in chunks for choice in chunk["choices"]]
    for name, values in choice["logprobs"].items():
        assert [value for part in parts if part for value in part[name]] == values


def test_echo_tells_the_prompt_too(reference, port) -> None:
    """As text and as tokens; what every loglikelihood task of lm-evaluation-harness asks."""
    ids = ids_of(reference, "the heart size is normal . no acute effusion")
    new = greedy(reference, "the heart size is normal . no acute effusion", 1)
    asked = {"max_tokens": 1, "temperature": 0, "logprobs": 1, "echo": True, "seed": 1234}
    for prompt in (ids, [ids], "the heart size is normal . no acute effusion"):
        status, found = ask(port, COMPLETION, {"prompt": prompt, **asked})
        assert status == 200
        (choice,) = found["choices"]
        check_told(reference, choice["logprobs"], ids + new, 1)
        assert choice["text"].startswith("the heart size is normal . no acute effusion")
        assert found["usage"]["prompt_tokens"] == len(ids)
    _, found = ask(port, COMPLETION, {"prompt": [ids[:4], ids], **asked, "max_tokens": 0})
    for choice, own in zip(found["choices"], (ids[:4], ids), strict=True):
        check_told(reference, choice["logprobs"], own, 1)
        assert choice["text"] == reference.tokenizer.decode(own)
    assert found["usage"]["completion_tokens"] == 0
    chunks, _ = pieces_of(port, COMPLETION, {"prompt": ids, **asked, "max_tokens": 3})
    told = [c["logprobs"]["tokens"] for chunk in chunks for c in chunk["choices"] if c["logprobs"]]
    assert len([token for part in told for token in part]) == len(ids) + 3
    assert chunks[0]["choices"][0]["text"].startswith("the heart size is normal")
    _, found = ask(port, COMPLETION, {"prompt": ids, "echo": True, "max_tokens": 1})
    assert found["choices"][0]["logprobs"] is None


def test_a_stop_string_ends_what_is_told(reference, port) -> None:
    _, whole = ask(port, COMPLETION, {"prompt": SECRET, "max_tokens": 9, "logprobs": 1})
    text = whole["choices"][0]["text"]
    mark = text.split()[2]
    _, found = ask(
        port, COMPLETION, {"prompt": SECRET, "max_tokens": 9, "logprobs": 1, "stop": [mark]}
    )
    (choice,) = found["choices"]
    assert len(choice["logprobs"]["tokens"]) == found["usage"]["completion_tokens"]
    assert choice["text"] == text[: text.index(mark)]


def test_a_chat_tells_how_likely_its_tokens_were(reference, port) -> None:
    asked = {**TURN, "logprobs": True, "top_logprobs": 2, "max_tokens": 5}
    _, found = ask(port, CHAT, asked)
    (choice,) = found["choices"]
    told = choice["logprobs"]["content"]
    assert "".join(entry["token"] for entry in told).strip() == choice["message"]["content"]
    prompt = f"user : {SECRET} assistant :"
    ids = ids_of(reference, prompt) + greedy(reference, prompt, 5)
    logs = scores_behind(reference, ids).log_softmax(-1)
    begin = len(ids_of(reference, prompt))
    for place, entry in enumerate(told, begin):
        assert entry["logprob"] == pytest.approx(float(logs[place - 1, ids[place]]), abs=2e-3)
        assert bytes(entry["bytes"]).decode() == entry["token"]
        assert len(entry["top_logprobs"]) == 2
        assert entry["top_logprobs"][0]["logprob"] == pytest.approx(entry["logprob"])
    chunks, _ = pieces_of(port, CHAT, asked)
    parts = [choice["logprobs"] for chunk in chunks for choice in chunk["choices"]]
    assert [entry for part in parts if part for entry in part["content"]] == told
    _, plain = ask(port, CHAT, {**TURN, "logprobs": False})
    assert plain["choices"][0]["logprobs"] is None


@pytest.mark.parametrize("engine", ["transformers", "lean"])
def test_log_likelihoods_are_those_of_the_script(tmp_path: Path, engine: str) -> None:
    """Up to rounding in float32, as the script reads what prompts share by itself."""
    data = model_and_splits(tmp_path)
    options = ("--engine", engine, "--examples", "0")
    run_script("likelihood", data, tmp_path / "p", *options, model="checkpoint")
    expected = pd.read_parquet(tmp_path / "p.parquet").set_index("id")["nll"]
    wanted = Wanted(data / "checkpoint", device="cpu", dtype="float32")
    served = answering.served(*open_precision(engine, wanted), "m", 5)
    with serving(served) as port:
        for row in pd.read_csv(data / "eval.csv").to_dict("records"):
            template = "findings : {findings} impression :"
            prompt = chat_prompt(
                served.reader.tokenizer, template, row, [], "impression", with_answer=True
            )
            asked = {"prompt": [*prompt.ids, *prompt.answer_ids], "max_tokens": 1}
            status, found = ask(port, COMPLETION, {**asked, "logprobs": 1, "echo": True})
            assert status == 200
            told = found["choices"][0]["logprobs"]["token_logprobs"][len(prompt.ids) : -1]
            assert len(told) == len(prompt.answer_ids)
            tolerance = 1e-6 if engine == "lean" else 1e-5
            assert -sum(told) == pytest.approx(expected[row["id"]], rel=tolerance)


@contextmanager
def serving(model: Served, **options: Any) -> Iterator[int]:
    server = open_server(model, "127.0.0.1", 0, **options)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server.port
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def another(model: Served) -> Served:
    """The same model at another desk."""
    from radquant.serving.desk import Desk

    old = model.desk
    return replace(model, desk=Desk(old.engine, model.opened, old.most, old.cache))


# ------------------------------------------------------------------------ what else clients send


def test_fields_that_are_null_or_change_nothing(port) -> None:
    _, plain = ask(port, CHAT, TURN)
    names = ("stop", "seed", "tools", "logprobs", "n", "stream", "stream_options", "top_p")
    more = {
        "response_format": {"type": "text"},
        "logit_bias": {},
        "frequency_penalty": 0.0,
        "user": "x",
        "service_tier": "auto",
        "metadata": {},
    }
    status, found = ask(port, CHAT, {**TURN, **dict.fromkeys(names), **more})
    assert status == 200
    assert found["choices"] == plain["choices"]


def test_a_developer_is_a_system(port) -> None:
    for role in ("system", "developer"):
        turns = [{"role": role, "content": "x"}, *TURN["messages"]]
        status, found = ask(port, CHAT, {"messages": turns})
        assert (status, "no system turn" in found["error"]["message"]) == (400, True)


def test_tokens_are_taken_as_they_are(reference, port) -> None:
    ids = ids_of(reference, SECRET)
    _, text = ask(port, COMPLETION, {"prompt": SECRET, "max_tokens": 5})
    _, tokens = ask(port, COMPLETION, {"prompt": ids, "max_tokens": 5})
    _, several = ask(port, COMPLETION, {"prompt": [ids, ids[:2]], "max_tokens": 5})
    assert texts(tokens) == texts(text) == texts(several)[:1]
    assert several["usage"]["prompt_tokens"] == 5


def raw(port: int, method: str, path: str, **headers: str) -> tuple[int, Any, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    found = answer.status, answer.headers, answer.read()
    connection.close()
    return found


def test_models_heads_and_options(model, port) -> None:
    status, found = ask(port, "/v1/models/tiny?x=1")
    assert status == 200
    assert found == ask(port, "/v1/models")[1]["data"][0]
    assert (found["engine"], found["max_model_len"]) == (model.opened.engine, 128)
    status, found = ask(port, "/v1/models/other")
    assert (status, "this is 'tiny'" in found["error"]["message"]) == (404, True)
    for path in ("/v1/models", "/health"):
        status, headers, body = raw(port, "HEAD", path)
        assert (status, body) == (200, b"")
        assert int(headers["Content-Length"]) > 0
    for path, methods in ((COMPLETION, {"POST"}), ("/health", {"GET", "HEAD"})):
        status, headers, body = raw(port, "OPTIONS", path)
        assert (status, body) == (204, b"")
        assert set(headers["Allow"].split(", ")) == methods | {"OPTIONS"}
    status, headers, _ = raw(port, "PUT", COMPLETION)
    assert (status, set(headers["Allow"].split(", "))) == (405, {"POST", "OPTIONS"})


def test_a_key_lets_in(model) -> None:
    with serving(another(model), key="secret-7") as port:
        for header in ({}, {"Authorization": "Bearer secret-8"}, {"Authorization": "secret-7"}):
            for path, body in (("/v1/models", None), (COMPLETION, {"prompt": SECRET})):
                status, found = ask(port, path, body, **header)
                assert (status, found["error"]["type"]) == (401, "invalid_request_error")
        large = raw(port, "POST", COMPLETION)
        assert (large[0], large[1]["WWW-Authenticate"]) == (401, "Bearer")
        assert ask(port, "/health")[0] == 200
        right = {"Authorization": "Bearer secret-7"}
        assert ask(port, COMPLETION, {"prompt": SECRET}, **right)[0] == 200
        assert ask(port, "/v1/models", **right)[0] == 200


def test_a_request_that_takes_too_long_is_given_up(model, monkeypatch) -> None:
    """Whole or as a stream; the server goes on, and OpenAI's client is told not to ask again."""
    slow = another(model)
    pause = threading.Event()
    step = slow.desk.write
    monkeypatch.setattr(slow.desk, "write", lambda: (pause.wait(0.3), step())[1])
    with serving(slow, deadline=1.0) as port:
        asked = {"prompt": SECRET, "max_tokens": 100, "temperature": 1, "seed": 1}
        if model.opened.engine == "lean":
            chunks, last = pieces_of(port, COMPLETION, asked)
            assert len(chunks) > 0
            assert json.loads(last)["error"]["code"] == 504
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            body = json.dumps(asked)
            connection.request("POST", COMPLETION, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            assert (answer.status, answer.getheader("X-Should-Retry")) == (504, "false")
            assert "not there in time" in json.loads(answer.read())["error"]["message"]
            connection.close()
        else:
            monkeypatch.setattr(slow.desk, "write", lambda: pause.wait(0.1))
            assert ask(port, COMPLETION, asked)[0] == 504
        pause.set()
        monkeypatch.setattr(slow.desk, "write", step)
        assert ask(port, COMPLETION, {"prompt": SECRET, "max_tokens": 1})[0] == 200


def test_more_connections_than_there_may_be_are_refused(model, monkeypatch) -> None:
    monkeypatch.setattr(http_server, "MOST_CONNECTIONS", 2)
    with serving(another(model)) as port:
        idle = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(2)]
        status, _, _ = raw(port, "GET", "/health")
        assert status == 503
        for connection in idle:
            connection.close()
        for _ in range(200):
            if (status := raw(port, "GET", "/health")[0]) == 200:
                break
            time.sleep(0.02)
        assert status == 200


def test_a_long_prompt_that_is_tokenized_holds_up_nobody(model, monkeypatch) -> None:
    """Megabytes that are refused only once their tokens are counted, and short ones meanwhile."""
    other = replace(another(model), reader=Reader(model.opened.tokenizer, "2025-01-01"))
    other.reader.longest_token = 10**6
    long = {"prompt": "the lungs are clear . " * 170_000}
    waited: list[float] = []
    with serving(other) as port, ThreadPoolExecutor(1) as pool:
        ask(port, COMPLETION, {"prompt": SECRET, "max_tokens": 1})
        started = time.perf_counter()
        refused = pool.submit(ask, port, COMPLETION, long)
        while not refused.done():
            before = time.perf_counter()
            assert ask(port, COMPLETION, {"prompt": SECRET, "max_tokens": 2})[0] == 200
            waited.append(time.perf_counter() - before)
        took = time.perf_counter() - started
    status, found = refused.result()
    assert (status, "the prompt has 850000 tokens" in found["error"]["message"]) == (400, True)
    assert len(waited) > 5
    assert max(waited) < took / 2


def test_a_connection_that_is_used_again_after_a_refusal(port) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for body, status in ((b"{", 400), (json.dumps({"prompt": SECRET}).encode(), 200)):
        connection.request("POST", COMPLETION, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert answer.status == status
        answer.read()
        assert connection.sock is not None
    connection.close()
