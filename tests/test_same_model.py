"""The original as it is evaluated against its tensors as they are quantized."""

import json
import runpy
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import pytest
import torch
from streamed_states import last_states
from tiny_architectures import KNOWN, UNKNOWN, tiny_model
from tiny_models import SCRIPTS, tiny_llama
from transformers import AutoModelForCausalLM

from radquant import code
from radquant.checkpoints import streaming
from radquant.errors import UserError
from radquant.families.inspection import decoder_layers
from radquant.files import write_table
from radquant.finite import norm, relative
from radquant.generation.checked_prompts import check_prompts
from radquant.generation.engines.kind import Wanted
from radquant.generation.stage import Reading
from radquant.model_files import StoredTensor
from radquant.quantization.original_model import open_original
from radquant.quantization.samples import Sample
from radquant.verification import same_model
from radquant.verification.same_model import check_model

Change = Callable[[torch.Tensor], torch.Tensor]
ROW = {"id": "r1", "findings": "clear lungs", "impression": "normal"}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny") / "llama")


def reading(template: str) -> Reading:
    return Reading(template, [ROW], [()], [[]], "impression", Path("eval.csv"))


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
    with pytest.raises(UserError, match=f"what engine {engine} computes and what the weight files"):
        check_prompts(engine, Wanted(llama, device="cpu"), reading("{findings}"), compared)


@pytest.mark.parametrize(("tensor", "factor"), [("embed", 1.01), ("1.mlp.up", 1.01), ("norm", 0.9)])
def test_a_tensor_that_is_read_differently_is_found(
    llama: Path, monkeypatch: pytest.MonkeyPatch, tensor: str, factor: float
) -> None:
    plain = StoredTensor.load

    def odd(self: StoredTensor) -> torch.Tensor:
        return plain(self) * (factor if tensor in self.key else 1)

    monkeypatch.setattr(streaming.StoredTensor, "load", odd)
    with pytest.raises(UserError, match=f"{llama}: what transformers computes and what the wei"):
        check_model(llama, "cpu", False)


STORED = ("llama", "gemma3_text", "gemma3")  # the last one is shown images


@pytest.fixture(scope="module", params=STORED)
def stored(llama: Path, tmp_path_factory: pytest.TempPathFactory, request: Any) -> Path:
    """A model in bfloat16, in two files, with a scale of embedded tokens that is no bfloat16."""
    directory: Path = tmp_path_factory.mktemp("stored") / request.param
    model = tiny_model(request.param, torch.bfloat16, hidden_size=96).to(torch.bfloat16)
    model.save_pretrained(directory, max_shard_size="100KB")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (directory / name).write_bytes((llama / name).read_bytes())
    return directory


def percent(tensor: torch.Tensor) -> torch.Tensor:
    return tensor * 1.01


def swapped(tensor: torch.Tensor) -> torch.Tensor:
    return tensor[[1, 0, *range(2, len(tensor))]]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("layers.1.input_layernorm.weight", percent),
        ("layers.1.self_attn.q_proj.weight", swapped),
        ("layers.0.self_attn.k_proj.weight", swapped),
    ],
)
def test_what_is_stored_in_16_bits_is_checked_as_tightly(
    stored: Path, monkeypatch: pytest.MonkeyPatch, name: str, change: Change
) -> None:
    plain = StoredTensor.load

    def odd(self: StoredTensor) -> torch.Tensor:
        return change(plain(self)) if self.key.endswith(name) else plain(self)

    monkeypatch.setattr(streaming.StoredTensor, "load", odd)
    with pytest.raises(UserError, match=r"differ by .* nats a token, of which 0.001 may"):
        check_model(stored, "cpu", False)


def test_each_layer_is_in_memory_alone_and_in_float32(
    stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To transformers, which reads the files itself; what sees images is never there."""
    whole, seen, outside = same_model.whole_layers, [], set()

    def watched(model: Any, path: str, device: torch.device) -> None:
        whole(model, path, device)
        layers = model.get_submodule(path)

        def look(*_: Any) -> None:
            there = [n for n, each in enumerate(layers) if not next(each.parameters()).is_meta]
            dtypes = {each.dtype for n in there for each in layers[n].parameters()}
            seen.append((there, dtypes))
            outside.update(name for name, each in model.named_parameters() if not each.is_meta)

        for layer in layers:
            layer.self_attn.register_forward_pre_hook(look)

    monkeypatch.setattr(same_model, "whole_layers", watched)
    assert check_model(stored, "cpu", False)["difference"] < 1e-5
    assert seen == [([0], {torch.float32}), ([1], {torch.float32})]
    assert any("embed_tokens" in name for name in outside)
    assert not [name for name in outside if "vision" in name]


def test_a_rounded_scale_of_embedded_tokens_is_found(
    stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The class makes it in the dtype of its config.json: of Gemma 3's √96, 9.8125."""
    opened = same_model.open_original
    monkeypatch.setattr(same_model, "open_original", lambda *args: opened(*args[:2], None))
    found = pytest.raises(UserError, match=r"differ by .* nats a token, of which 0.001 may")
    with nullcontext() if stored.name == "llama" else found:  # which has no scale
        check_model(stored, "cpu", False)


@torch.inference_mode()
def test_calibration_computes_in_float32_what_is_stored_in_16_bits(
    stored: Path, tmp_path: Path
) -> None:
    """As a run does: of Gemma 3's embedded tokens and their scale, too. Against its own class."""
    samples = [Sample(torch.tensor(ids)) for ids in ([5, 49, 1, 5, 0], [0, 49])]
    model = AutoModelForCausalLM.from_pretrained(stored, dtype=torch.float32)
    seen: list[torch.Tensor] = []
    layer = decoder_layers(model, open_original(stored).architecture)[-1]
    layer.register_forward_hook(lambda _, __, output: seen.append(output))
    for sample in samples:
        model(input_ids=sample.ids[None])
    for found, expected in zip(last_states(stored, samples, tmp_path), seen, strict=True):
        assert relative(norm(found - expected), norm(expected)) < 1e-6


def test_a_weight_that_is_no_number_is_no_other_model(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = StoredTensor.load
    monkeypatch.setattr(same_model, "require_finite_original", lambda _: None)
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
