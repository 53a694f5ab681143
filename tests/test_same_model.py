"""The original as it is evaluated against its tensors as they are quantized."""

import json
import runpy
import sys
from pathlib import Path
from unittest import mock

import pandas as pd
import pytest
import torch
from tiny_architectures import KNOWN, UNKNOWN, tiny_model
from tiny_models import SCRIPTS, tiny_llama

from radquant import code
from radquant.checkpoints import streaming
from radquant.errors import UserError
from radquant.files import write_table
from radquant.generation.checked_prompts import check_prompts
from radquant.generation.engines.kind import Wanted
from radquant.generation.stage import Reading
from radquant.model_files import StoredTensor
from radquant.verification.same_model import check_model

ROW = {"id": "r1", "findings": "clear lungs", "impression": "normal"}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny") / "llama")


def reading(template: str) -> Reading:
    return Reading(template, [ROW], [()], [], "impression", Path("eval.csv"))


@pytest.mark.parametrize("kind", [*KNOWN, *UNKNOWN])
def test_every_architecture_is_the_same_to_both(llama: Path, tmp_path: Path, kind: str) -> None:
    """Also what comes after the layers: capped scores, heads of their own, a projection."""
    tiny_model(kind).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((llama / name).read_bytes())
    found = check_model(tmp_path, "cpu", False)
    assert found["difference"] < 1e-5
    assert len(found["sequences"]) == len(found["nats"]) == 4


@pytest.mark.parametrize("engine", ["lean", "transformers"])
def test_engines_compute_the_same_and_prompts_can_be_made(llama: Path, engine: str) -> None:
    compared = check_model(llama, "cpu", False)
    wanted = Wanted(llama, device="cpu")
    found = check_prompts(engine, wanted, reading("Findings: {findings}"), compared)
    assert (found["engine"], found["prompts"]) == (engine, 1)
    assert found["difference"] < 1e-4
    compared["nats"][2] += 0.1
    with pytest.raises(UserError, match=f"what engine {engine} computes and what the tensors"):
        check_prompts(engine, Wanted(llama, device="cpu"), reading("{findings}"), compared)


@pytest.mark.parametrize(("tensor", "factor"), [("embed", 1.01), ("1.mlp.up", 1.01), ("norm", 0.9)])
def test_a_tensor_that_is_read_differently_is_found(
    llama: Path, monkeypatch: pytest.MonkeyPatch, tensor: str, factor: float
) -> None:
    plain = StoredTensor.load

    def odd(self: StoredTensor) -> torch.Tensor:
        return plain(self) * (factor if tensor in self.key else 1)

    monkeypatch.setattr(streaming.StoredTensor, "load", odd)
    with pytest.raises(UserError, match=f"{llama}: what transformers computes and what the ten"):
        check_model(llama, "cpu", False)


def test_a_weight_that_is_no_number_is_no_other_model(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = StoredTensor.load
    monkeypatch.setattr(StoredTensor, "load", lambda self: plain(self) * float("nan"))
    with pytest.raises(UserError, match="what the quantizer computes in float32 is not finite"):
        check_model(llama, "cpu", False)


def test_the_scripts_write_their_records(llama: Path, tmp_path: Path) -> None:
    for name, first in (("eval.csv", "r1"), ("train.csv", "r2")):
        write_table(tmp_path / name, pd.DataFrame([{**ROW, "id": first}]))
    common = ["--model", str(llama), "--device", "cpu", "--output"]
    reports = ["--train", str(tmp_path / "train.csv"), "--eval", str(tmp_path / "eval.csv")]
    reports += ["--prompt-text", "{findings}", "--target", "impression", "--examples", "0"]
    reports += ["--compared", str(tmp_path / "check.json")]
    for words in (
        ["check_model.py", *common, str(tmp_path / "check.json")],
        ["check_prompts.py", *common, str(tmp_path / "prompts.json"), *reports],
    ):
        with mock.patch.object(sys, "argv", words):
            runpy.run_path(str(SCRIPTS / words[0]), run_name="__main__")
    assert json.loads((tmp_path / "prompts.json").read_text())["difference"] < 1e-4


def test_a_check_is_stale_only_where_its_users_are() -> None:
    """By the code; rules/ and settings/stages.py say the same of data and settings."""

    def beside(check: str, user: str) -> set[str]:
        return set(code.names(SCRIPTS / f"{check}.py")) - set(code.names(SCRIPTS / f"{user}.py"))

    common = {"src/radquant/verification/__init__.py", "src/radquant/verification/same_model.py"}
    assert beside("check_model", "quantize") == {"scripts/check_model.py", *common}
    found = beside("check_prompts", "likelihood")
    own = {"scripts/check_prompts.py", "src/radquant/generation/checked_prompts.py", *common}
    # And what the quantizer reads with, which reruns `check_model` and all that is quantized.
    assert found - set(code.names(SCRIPTS / "check_model.py")) | common == own
