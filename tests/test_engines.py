"""An engine is one file and one line of the registry: a toy one, and what all of them have."""

import inspect
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from queue import Queue
from typing import Any

import pandas as pd
import pytest
import toy_engine
import yaml
from tiny_models import WORDS
from tiny_reports import model_and_splits, run_script

from radquant import registry
from radquant.errors import UserError
from radquant.files import read_json
from radquant.generation.engines.kind import Engine, Wanted
from radquant.generation.opening import choose, open_precision
from radquant.serving import answering, reading
from radquant.serving.requests import Asked, BadRequest
from radquant.settings import configuration, engines

REPOSITORY = Path(__file__).parents[1]
NAMES = [name for name in vars(Engine) if not name.startswith("_")]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_and_splits(tmp_path_factory.mktemp("data"))


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The one line."""
    monkeypatch.setitem(registry.ENGINES, "toy", "toy_engine")
    return monkeypatch


# ----------------------------------------------------------------------------------------- a toy


@pytest.mark.usefixtures("toy")
def test_a_toy_engine_writes(data: Path, tmp_path: Path) -> None:
    for engine in ("toy", "transformers"):
        options = ("--engine", engine, "--max-new-tokens", "6")
        run_script("generate", data, tmp_path / engine, *options)
    table = pd.read_parquet(tmp_path / "toy.parquet")
    assert list(table["output"]) == [toy_engine.SENTENCE] * 10
    assert set(table["finish_reason"]) == {"stop"}
    record, other = read_json(tmp_path / "toy.json"), read_json(tmp_path / "transformers.json")
    assert record.keys() == other.keys()
    assert (record["engine"], record["device_name"]) == ("toy", "a toy")
    assert (record["output_tokens"], record["tokens_per_second"]) == (50, 10.0)
    assert record["latency_seconds"]["max"] == 0.5
    assert record["decode_seconds"] is None
    # The prompts are everybody's.
    same = ["id", "prompt_hash", "prompt_tokens"]
    pd.testing.assert_frame_equal(
        table[same], pd.read_parquet(tmp_path / "transformers.parquet")[same]
    )


@pytest.mark.usefixtures("toy")
def test_a_toy_engine_scores(data: Path, tmp_path: Path) -> None:
    for engine in ("toy", "transformers"):
        run_script("likelihood", data, tmp_path / engine, "--engine", engine)
    table = pd.read_parquet(tmp_path / "toy.parquet")
    expected = [math.log(len(WORDS)) * tokens for tokens in table["tokens"]]
    assert list(table["nll"]) == pytest.approx(expected)
    record, other = read_json(tmp_path / "toy.json"), read_json(tmp_path / "transformers.json")
    assert record.keys() == other.keys()
    assert record["engine"] == "toy"


@pytest.mark.usefixtures("toy")
def test_a_toy_engine_answers_requests(data: Path) -> None:
    model = answering.served(*open_precision("toy", Wanted(data / "original")), "m", 9)
    asked = Asked(prompts=("the heart is",))
    given = reading.prompts_of(asked, model.reader.tokenizer, "")
    told: Queue[Any] = Queue()
    model.desk.take(answering.answers_of(model, asked, given, lambda index: told.put))
    model.desk.thread.start()
    part = told.get(timeout=20)
    assert (part.text, part.finish, part.shown) == (f" {toy_engine.SENTENCE}", "stop", 5)
    for more in ({"temperature": 1.0}, {"top": 0}):
        with pytest.raises(BadRequest, match="answers with temperature 0 and without logprobs"):
            answering.answers_of(model, replace(asked, **more), given, lambda index: told.put)
    model.desk.close()
    model.desk.thread.join(20)
    assert not model.desk.thread.is_alive()


def resolved(monkeypatch: pytest.MonkeyPatch, **compute: str) -> dict[str, Any]:
    """The default run with other values under compute, each of which is valid by itself."""
    monkeypatch.chdir(REPOSITORY)
    given = yaml.safe_load((REPOSITORY / "config.yaml").read_text(encoding="utf-8"))
    full = configuration.resolve(given).model_dump(mode="json")
    full["compute"] |= compute
    return full


def test_a_toy_engine_is_asked_about_the_configuration(toy: pytest.MonkeyPatch) -> None:
    assert engines.names() == ["auto", "lean", "transformers", "vllm", "llama.cpp", "toy"]
    engines.check_configuration(resolved(toy, engine="toy", device="cpu"))
    engines.check_configuration(resolved(toy, engine="auto", device="cuda"))
    with pytest.raises(UserError, match=r"compute\.engine toy runs on CPUs"):
        engines.check_configuration(resolved(toy, engine="toy", device="cuda"))


@pytest.mark.usefixtures("toy")
def test_what_a_toy_engine_cannot_do_is_one_sentence(data: Path, tmp_path: Path, capsys) -> None:
    options = ("--engine", "toy", "--kv-cache", '{"bits": 8}')
    with pytest.raises(SystemExit):
        run_script("generate", data, tmp_path / "x", *options, model="checkpoint")
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "error: engine toy rounds no cache; use engine auto"
    assert not list(tmp_path.iterdir())


def test_an_engine_that_scores_nothing(toy: pytest.MonkeyPatch, data: Path) -> None:
    toy.setattr(toy_engine, "SCORES", False)
    wanted = Wanted(data / "original")
    assert choose("toy", wanted)[0] == "toy"
    with pytest.raises(UserError, match="'toy' does not say how likely it finds a text; use"):
        choose("toy", wanted, scores=True)
    assert engines.scoring("toy") == "auto"


def test_auto_is_the_first_that_can(toy: pytest.MonkeyPatch, data: Path) -> None:
    toy.setattr(engines, "ORDER", ("toy", "transformers"))
    toy.setattr(toy_engine, "why_not", lambda wanted: "no" if wanted.images else None)
    assert choose("auto", Wanted(data / "original"))[0] == "toy"
    assert choose("auto", Wanted(data / "original", images=True))[0] == "transformers"
    toy.setattr(toy_engine, "SCORES", False)
    assert choose("auto", Wanted(data / "original"), scores=True)[0] == "transformers"
    with pytest.raises(UserError, match="'tooy' is unknown; use one of lean, transformers, vllm"):
        choose("tooy", Wanted(data / "original"))


# ---------------------------------------------------------------------------------- all of them


@pytest.mark.parametrize("name", [*registry.ENGINES, "toy"])
@pytest.mark.usefixtures("toy")
def test_every_engine_has_the_names_of_the_protocol(name: str) -> None:
    module = registry.load_kind(registry.ENGINES, name)
    assert isinstance(module.SCORES, bool)
    assert isinstance(module.SAMPLES, bool)
    assert isinstance(module.TIMED, bool)
    for function in set(NAMES) - {"SCORES", "SAMPLES", "TIMED"}:
        asked = list(inspect.signature(getattr(Engine, function)).parameters)[1:]
        assert list(inspect.signature(getattr(module, function)).parameters) == asked


def test_the_engines_are_asked_before_anything_heavy_is_imported() -> None:
    program = (
        "import sys; from radquant import registry; from radquant.settings import engines; "
        "[registry.load_kind(registry.ENGINES, name) for name in registry.ENGINES]; "
        "print(sorted({'torch', 'transformers', 'pandas'} & sys.modules.keys()))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert found.stdout == "[]\n"


def test_environments_are_there() -> None:
    for name in registry.ENGINES:
        for device in ("cpu", "cuda"):
            environment = engines.environment(name, device)
            assert (environment is None) == (name not in ("vllm", "llama.cpp"))
            if environment is not None:
                assert (REPOSITORY / "envs" / f"{environment}.txt").is_file()
    assert engines.environment("auto", "auto") is None
    assert [engines.scoring(name) for name in ("auto", "lean", "vllm")] == ["auto", "lean", "auto"]
