"""Checkpoints on a hub: fetched by the real client, from a hub on this machine."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gguf import GGMLQuantizationType as Type
from local_hub import LocalHub, local_hub
from safetensors.torch import load_file, save_file
from test_given import models as models
from tiny_gguf import gguf_directory

from radquant.checkpoints.given import take_checkpoint
from radquant.errors import UserError
from radquant.fetching import hub_listing, hub_snapshot
from radquant.files import read_json, write_json
from radquant.settings import one_command
from radquant.settings.given import Given
from radquant.settings.sentences import made

CONSTANTS = "huggingface_hub.constants"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A hub whose client runs in this process, with a cache of its own."""
    for name, value in {
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "DOWNLOAD_CHUNK_SIZE": 1000,
    }.items():
        monkeypatch.setattr(f"{CONSTANTS}.{name}", value)
    with local_hub(tmp_path / "hub") as found:
        monkeypatch.setattr(f"{CONSTANTS}.ENDPOINT", found.url)
        template = found.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(f"{CONSTANTS}.HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield found


def take(models: Path, output: Path, source: dict[str, Any]) -> dict[str, Any]:
    take_checkpoint(made(Given, source), models / "original", output.parent / "downloads", output)
    record: dict[str, Any] = read_json(output / "quantization.json")
    return record


def in_two_shards(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    halves = [sorted(tensors)[::2], sorted(tensors)[1::2]]
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for name, half in zip(names, halves, strict=True):
        save_file({key: tensors[key] for key in half}, folder / name)
    table = {key: name for name, half in zip(names, halves, strict=True) for key in half}
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": table})


def test_a_directory_is_fetched_by_its_commit(hub: LocalHub, models: Path, tmp_path: Path) -> None:
    """What `evaluate.py` makes of a word is what is taken."""
    folder = hub.root / "me" / "awq"
    shutil.copytree(models / "rtn", folder)
    (folder / "pytorch_model.bin").write_bytes(b"never fetched")
    in_two_shards(folder)
    source = one_command.model_source("me/awq", hub_listing)
    assert source["hub"]["revision"] == hub.commit("me/awq")
    assert len(source["weights"]) == 3
    record = take(models, tmp_path / "out", source)
    found = {key: record["source"][key] for key in ("kind", "id", "revision")}
    assert found == {"kind": "hub", "id": "me/awq", "revision": hub.commit("me/awq")}
    asked = [path.rpartition("/")[2] for _, path in hub.requests]
    assert "pytorch_model.bin" not in asked


def test_one_file_is_fetched_alone(hub: LocalHub, tmp_path: Path) -> None:
    folder = hub.root / "me" / "gguf"
    (folder / "q8").mkdir(parents=True)
    gguf_directory(tmp_path, "llama", Type.Q8_0)
    shutil.copy(tmp_path / "checkpoint" / "model.gguf", folder / "q8" / "m.Q8_0.gguf")
    (folder / "m.Q4_0.gguf").write_bytes(b"never fetched")
    with pytest.raises(UserError, match=r"no file m.gguf; did you mean"):
        one_command.model_source("me/gguf:m.gguf", hub_listing)
    record = take(
        tmp_path, tmp_path / "out", one_command.model_source("me/gguf:q8/m.Q8_0.gguf", hub_listing)
    )
    assert record["source"]["file"] == "q8/m.Q8_0.gguf"
    assert not any("m.Q4_0" in path for _, path in hub.requests)
    gone = {"hub": {"id": "me/gguf", "revision": "main", "file": "m.Q5_0.gguf"}}
    with pytest.raises(UserError, match=r"has no file m.Q5_0.gguf"):
        take(tmp_path, tmp_path / "gone", gone)


def test_a_download_that_broke_goes_on(hub: LocalHub) -> None:
    (hub.root / "me" / "model").mkdir(parents=True)
    content = bytes(range(256)) * 20
    (hub.root / "me" / "model" / "model.safetensors").write_bytes(content)
    hub.cut["model.safetensors"] = [2500]
    assert (hub_snapshot("me/model", "main") / "model.safetensors").read_bytes() == content
    assert hub.ranges == ["bytes=2000-"]


def test_what_cannot_be_fetched_is_one_sentence(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    (hub.root / "me" / "model").mkdir(parents=True)
    (hub.root / "me" / "model" / "model.safetensors").write_bytes(bytes(5000))
    with pytest.raises(UserError, match=r"me/none.*check the name"):
        hub_snapshot("me/none", "main")
    with pytest.raises(UserError, match="has no such revision"):
        hub_snapshot("me/model", "v9")
    with pytest.raises(UserError, match="has no such revision"):
        hub_listing("me/model", "v9")
    monkeypatch.setattr("time.sleep", lambda _: None)
    hub.cut["model.safetensors"] = [10] * 50
    with pytest.raises(UserError, match=r"could not be fetched \(.*run again: what is there is"):
        hub_snapshot("me/model", "main")
    hub.cut.clear()
    assert hub_snapshot("me/model", "main").name == hub.commit("me/model")
    hub.gated.add("me/model")
    with pytest.raises(UserError, match="accept its terms"):
        hub_listing("me/model", "main")


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (401, "the token is not valid"),
        (403, "take one of type Read"),  # a fine-grained token without the right
        (429, "asked too often"),
        (503, "the mirror that HF_ENDPOINT names answers so"),
    ],
)
def test_what_a_hub_refuses_is_told_by_its_status(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch, status: int, advice: str
) -> None:
    """The client calls all of these "not in the cache"."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    (hub.root / "me" / "model").mkdir(parents=True)
    hub.refusing = status
    with pytest.raises(UserError, match=rf"\(HTTP status {status}\); .*{advice}"):
        hub_snapshot("me/model", "0" * 40)


def test_a_mirror_that_leaves_out_hashes_is_told(hub: LocalHub) -> None:
    (hub.root / "me" / "model").mkdir(parents=True)
    (hub.root / "me" / "model" / "config.json").write_text("{}")
    hub.bare = True
    with pytest.raises(UserError, match="take another mirror"):
        hub_snapshot("me/model", "main")


def test_without_a_network_the_cause_is_named(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{CONSTANTS}.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE forbids the network"):
        hub_snapshot("me/model", "main")
