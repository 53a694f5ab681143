"""Weight files that a configuration does not name are found in the folder or on the hub."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from local_hub import LocalHub
from test_given import models as models
from test_local_hub import CONSTANTS, in_two_shards
from test_local_hub import hub as hub
from tiny_run import make_run
from workflow_helpers import dry_run, errors

from radquant.checkpoints.weight_names import with_weights
from radquant.errors import UserError
from radquant.fetching import hub_snapshot, model_from_hub
from radquant.settings.configuration import resolve
from radquant.settings.run import Run

SHARDS = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
SHARDED = ("model.safetensors.index.json", *SHARDS)
SINGLE = ("model.safetensors",)


def run_of(model: dict[str, Any], **checkpoints: Any) -> Run:
    config = {
        "model": {"name": "m", **model},
        "corpus": {"name": "c", "format": "table", "path": "table.csv"},
        "checkpoints": checkpoints,
        "precisions": {name: {"checkpoint": name} for name in ("original", *checkpoints)},
    }
    return resolve(config)


def found(model: dict[str, Any], results: Path) -> tuple[str, ...] | None:
    return with_weights(run_of(model), results).model.weights


def test_a_folder_says_itself(models: Path, tmp_path: Path) -> None:
    for name in ("original", "rtn"):
        shutil.copytree(models / name, tmp_path / name)
    assert found({"path": str(tmp_path / "original")}, tmp_path) == SINGLE
    given = {"q": {"path": str(tmp_path / "rtn")}, "g": {"path": "gone.gguf"}}
    in_two_shards(tmp_path / "original")
    in_two_shards(tmp_path / "rtn")
    run = with_weights(run_of({"path": str(tmp_path / "original")}, **given), tmp_path)
    assert run.model.weights == run.checkpoints["q"].weight_files == SHARDED
    assert run.checkpoints["g"].weight_files == ("model.gguf",)
    # Planned on a machine where it is not, or pinned.
    assert found({"path": "elsewhere"}, tmp_path) == SINGLE
    assert found({"path": "elsewhere", "weights": list(SHARDED)}, tmp_path) == SHARDED


def test_several_candidates_are_one_sentence(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "original", tmp_path / "m")
    in_two_shards(tmp_path / "m")
    shutil.copy(models / "original/model.safetensors", tmp_path / "m")
    with pytest.raises(UserError, match=r"model.safetensors is not among the files that"):
        found({"path": str(tmp_path / "m")}, tmp_path)


def test_the_hub_is_asked_once_for_an_index(
    hub: LocalHub, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then its cache is, as on a machine that reaches no network."""
    for name in ("one", "two"):
        shutil.copytree(models / "original", hub.root / "me" / name)
    in_two_shards(hub.root / "me" / "two")
    one, two = ({"hub": {"id": f"me/{name}", "revision": "main"}} for name in ("one", "two"))
    assert found(one, tmp_path) == SINGLE
    assert found(two, tmp_path) == SHARDED
    asked = {path.rpartition("/")[2] for _, path in hub.requests if path.startswith("/me/")}
    assert asked == {SHARDED[0]}
    monkeypatch.setattr(f"{CONSTANTS}.HF_HUB_OFFLINE", True)
    assert found(one, tmp_path) == SINGLE
    assert found(two, tmp_path) == SHARDED
    with pytest.raises(
        UserError, match=r"'me/three' .* HF_HUB_OFFLINE forbids .*; to plan without the hub, name"
    ):
        found({"hub": {"id": "me/three", "revision": "main"}}, tmp_path)


def test_a_cache_with_the_one_file_is_enough(
    hub: LocalHub, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another program has filled it, which never asked for an index."""
    shutil.copytree(models / "original", hub.root / "me" / "one")
    hub_snapshot("me/one", "main")
    monkeypatch.setattr(f"{CONSTANTS}.HF_HUB_OFFLINE", True)
    assert found({"hub": {"id": "me/one", "revision": "main"}}, tmp_path) == SINGLE


def test_what_is_fetched_already_says_it_without_a_hub(
    hub: LocalHub, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(models / "original", hub.root / "me" / "two")
    in_two_shards(hub.root / "me" / "two")
    model_from_hub("me/two", "main", None, False, tmp_path / "models" / "original")
    monkeypatch.setattr(f"{CONSTANTS}.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(f"{CONSTANTS}.HF_HUB_CACHE", str(tmp_path / "another"))
    assert found({"hub": {"id": "me/two", "revision": "main"}}, tmp_path) == SHARDED
    with pytest.raises(UserError, match="HF_HUB_OFFLINE forbids"):  # that of another model does not
        found({"hub": {"id": "me/one", "revision": "main"}}, tmp_path)


def test_a_plan_has_the_files_of_the_folder(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    in_two_shards(run / "model")
    planned = dry_run(run)
    assert planned.code == 0, errors(planned.err)
    for name in SHARDED:
        assert f"results/models/original/{name}" in planned.out
    assert "weights" not in yaml.safe_load((run / "config.yaml").read_text())["model"]
    (run / "model" / SHARDS[1]).unlink()
    assert "which is not there" in errors(dry_run(run).err)[0]
