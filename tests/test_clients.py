"""The clients that people have, against scripts/serve.py with a tiny model.

They run in the environment of envs/clients.txt, whose Python RADQUANT_TEST_CLIENTS names.
"""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from served import SECRET, TEMPLATE, TURN, ask, checkpoint, greedy, reference
from test_serving import serve

from radquant.checkpoints.loading import Loaded

ROOT = Path(__file__).parents[1]
PYTHON = os.environ.get("RADQUANT_TEST_CLIENTS", "")
__all__ = ["checkpoint", "reference"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not PYTHON, reason="RADQUANT_TEST_CLIENTS names no Python of an environment of clients"
    ),
]


@pytest.fixture(scope="module", params=["lean", "transformers"])
def address(checkpoint: Path, request: Any, tmp_path_factory: Any) -> Iterator[str]:
    template = tmp_path_factory.mktemp("template") / "template.jinja"
    template.write_text(TEMPLATE.replace("{{ raise_exception('no system turn') }}", ""))
    options = ["--engine", request.param, "--port", 0, "--device", "cpu", "--name", "tiny"]
    process = serve(checkpoint, *options, "--chat-template", template, "--max-new-tokens", 5)
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"(http://127\.0\.0\.1:\d+); Ctrl-C ends", line)
    assert found, line
    yield f"{found[1]}/v1"
    process.terminate()
    _, log = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in log
    assert SECRET not in log


def run(*words: object) -> str:
    """What a program says in the clients' environment, without a hub."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OPENAI_API_KEY": "none"}
    environment |= {"HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [PYTHON, *map(str, words)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def plain(address: str, path: str, body: Any) -> Any:
    """The answer to a request that no client made."""
    port = int(re.findall(r":(\d+)/", address)[0])
    status, found = ask(port, path, body)
    assert status == 200
    return found["choices"]


def test_the_official_package(address: str) -> None:
    found = json.loads(run("tests/clients/with_openai.py", address, "tiny"))
    (chat,) = plain(address, "/v1/chat/completions", TURN)
    text = chat["message"]["content"]
    assert text
    assert (found["models"], found["model"]) == (["tiny"], "tiny")
    assert [found[name] for name in ("chat", "stream", "put_together")] == [text] * 3
    assert found["together"] == [text] * 8
    assert found["usage"] == found["stream_usage"]
    assert len(set(found["drawn"])) == 3
    assert set(found["likeliest"]) == {2}
    (completion,) = plain(address, "/v1/completions", {"prompt": SECRET, "max_tokens": 5})
    assert found["completion"] == completion["text"]
    assert found["offsets"][0] == 0
    assert [text[:9] for text in found["echo"]] == ["acute eff", "the lungs"]
    assert found["refused"] == ["NotFoundError", "BadRequestError", "BadRequestError"]


def test_langchain(address: str) -> None:
    found = json.loads(run("tests/clients/with_langchain.py", address, "tiny"))
    (chat,) = plain(address, "/v1/chat/completions", TURN)
    text = chat["message"]["content"]
    assert [found[name] for name in ("chat", "stream", "later", "chain")] == [text] * 4
    assert found["batch"] == [text] * 4
    assert found["pieces"] > 2
    assert found["turns"]
    assert found["system"]
    assert found["usage"]["output_tokens"] == found["logprobs"]
    first, second = found["drawn"]
    assert first == second
    assert len(set(first)) == 2
    (completion,) = plain(address, "/v1/completions", {"prompt": SECRET, "max_tokens": 5})
    assert found["completion"] == found["completion_stream"] == completion["text"]
    assert found["completions"] == [completion["text"]] * 3
    assert found["as_it_comes"]


# ------------------------------------------------------------------------- lm-evaluation-harness

DOCUMENTS = [
    {"text": "the lungs are", "choices": ["clear .", "normal .", "no acute effusion"], "gold": 0},
    {"text": "the heart size is", "choices": ["normal .", "clear"], "gold": 0},
    {"text": "no acute", "choices": ["effusion .", "heart ."], "gold": 0},
]


def tasks(folder: Path) -> None:
    """One task of each kind: choices, a rolling likelihood, and answers that are written."""
    data = folder / "documents.jsonl"
    data.write_text("".join(f"{json.dumps(document)}\n" for document in DOCUMENTS))
    common = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "metadata": {"version": 1},
    }
    kinds: dict[str, dict[str, Any]] = {
        "choices": {
            "output_type": "multiple_choice",
            "doc_to_text": "{{text}}",
            "doc_to_choice": "{{choices}}",
            "doc_to_target": "gold",
            "metric_list": [{"metric": "acc"}],
        },
        "rolling": {
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "{{text}} {{choices[0]}}",
            "metric_list": [{"metric": "word_perplexity"}],
        },
        "written": {
            "output_type": "generate_until",
            "doc_to_text": "{{text}}",
            "doc_to_target": "{{choices[0]}}",
            "generation_kwargs": {"max_gen_toks": 4, "until": ["</s>"], "do_sample": False},
            "metric_list": [{"metric": "exact_match"}],
        },
    }
    for name, kind in kinds.items():
        text = yaml.safe_dump({"task": name, **common, **kind})
        (folder / f"{name}.yaml").write_text(text)


def log_likelihood(reference: Loaded, text: str, more: str) -> float:
    """Of what follows a text, by transformers without a cache."""
    first, both = (
        reference.tokenizer(each, add_special_tokens=False).input_ids
        for each in (text, text + more)
    )
    with torch.inference_mode():
        logits = reference.model(torch.tensor([both]), use_cache=False).logits[0].double()
    logs = logits.log_softmax(-1)
    return sum(float(logs[at - 1, both[at]]) for at in range(len(first), len(both)))


def test_lm_evaluation_harness(address: str, checkpoint: Path, reference, tmp_path: Path) -> None:
    tasks(tmp_path)
    run(
        *("-m", "lm_eval", "run", "--model", "local-completions", "--include_path", tmp_path),
        *("--tasks", "choices", "rolling", "written", "--log_samples"),
        *("--output_path", tmp_path / "out", "--model_args"),
        f"model=tiny,base_url={address}/completions,tokenizer={checkpoint},num_concurrent=4",
    )
    samples = {
        name: [
            json.loads(line)
            for path in (tmp_path / "out").rglob(f"samples_{name}_*.jsonl")
            for line in path.read_text().splitlines()
        ]
        for name in ("choices", "rolling", "written")
    }
    for sample in samples["choices"]:
        document = sample["doc"]
        expected = [
            log_likelihood(reference, document["text"], f" {c}") for c in document["choices"]
        ]
        found = [float(each[0][0]) for each in sample["resps"]]
        assert found == pytest.approx(expected, abs=5e-3)
    assert len(samples["choices"]) == len(samples["rolling"]) == len(samples["written"]) == 3
    for sample in samples["rolling"]:
        text = f"{sample['doc']['text']} {sample['doc']['choices'][0]}"
        expected = log_likelihood(reference, "<s>", text)  # which it puts before a text
        assert float(sample["resps"][0][0]) == pytest.approx(expected, abs=5e-3)
    for sample in samples["written"]:
        words = greedy(reference, sample["doc"]["text"], 4)
        expected = reference.tokenizer.decode(words, skip_special_tokens=True)
        assert sample["resps"][0][0].strip() == expected
