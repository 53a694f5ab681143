"""Fetching a RadGraph model with the real hub client, from a server on this machine."""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from local_hub import local_hub

from radquant.files import read_json, sha256_file

REPOSITORY = Path(__file__).parents[1]
SCORERS, ENCODER = "StanfordAIMI/RRG_scorers", "some-org/tiny-encoder"

CONFIGURATION = {
    "dataset_reader": {"token_indexers": {"bert": {"model_name": ENCODER}}},
    "model": {"embedder": {"token_embedders": {"bert": {"model_name": ENCODER}}}},
}


def write_archive(path, names=("config.json", "vocabulary/labels.txt", "weights.th")):
    """An archive in the published layout; fetching does not look into the weights."""
    folder = path.with_name(f"{path.name}.files")
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(CONFIGURATION) if name == "config.json" else name)
            archive.add(file, arcname=name)


@pytest.fixture
def hub(tmp_path):
    """A hub with the archive and its text encoder."""
    root = tmp_path / "hub"
    for repository in (SCORERS, ENCODER):
        (root / repository).mkdir(parents=True)
    write_archive(root / SCORERS / "radgraph-xl.tar.gz")
    (root / SCORERS / "other.bin").write_text("never fetched")
    for name in ("config.json", "vocab.txt", "tokenizer.json", "pytorch_model.bin"):
        (root / ENCODER / name).write_text(f"the encoder's {name}")
    with local_hub(root) as found:
        yield found


@pytest.fixture
def fetch(hub, tmp_path):
    def run(output, *options, home="home"):
        environment = os.environ | hub.environment(tmp_path / home) | {"PYTHONPATH": "src"}
        command = [sys.executable, "scripts/fetch_radgraph.py", "--output", str(output), *options]
        return subprocess.run(
            command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
        )

    return run


def names(directory):
    files = (path for path in directory.rglob("[!.]*") if path.is_file())  # no records of hashes
    return sorted(str(path.relative_to(directory)) for path in files)


def test_folder_and_record(hub, fetch, tmp_path):
    done = fetch(tmp_path / "folder")
    assert done.returncode == 0, done.stderr
    own = ["config.json", "vocabulary/labels.txt", "weights.th"]
    encoder = ["config.json", "tokenizer.json", "vocab.txt"]  # and not its weights
    expected = [*(f"radgraph-xl/{name}" for name in own), "source.json"]
    expected += [f"tiny-encoder/{name}" for name in encoder]
    assert names(tmp_path / "folder") == expected

    record = read_json(tmp_path / "folder" / "source.json")["radgraph-xl"]
    scorers, encoders = hub.commit(SCORERS), hub.commit(ENCODER)
    assert (record["model"]["repository"], record["model"]["revision"]) == (SCORERS, scorers)
    assert (record["encoder"]["repository"], record["encoder"]["revision"]) == (ENCODER, encoders)
    archive = hub.root / SCORERS / "radgraph-xl.tar.gz"
    assert record["model"]["sha256"] == sha256_file(archive)
    assert scorers in done.stdout
    assert encoders in done.stdout
    hashes = record["model"]["files"] | record["encoder"]["files"]
    assert sorted(hashes) == [name for name in expected if name != "source.json"]
    for name, digest in hashes.items():
        assert sha256_file(tmp_path / "folder" / name) == digest

    # By commit and hash the same again; a second model shares the encoder.
    pinned = ["--revision", scorers, "--encoder-revision", encoders]
    done = fetch(tmp_path / "again", *pinned, "--sha256", sha256_file(archive), home="other")
    assert done.returncode == 0, done.stderr
    assert read_json(tmp_path / "again" / "source.json")["radgraph-xl"] == record
    write_archive(hub.root / SCORERS / "radgraph.tar.gz")
    done = fetch(tmp_path / "folder", "--model", "radgraph")
    assert done.returncode == 0, done.stderr
    both = read_json(tmp_path / "folder" / "source.json")
    assert both["radgraph-xl"] == record
    assert both["radgraph"]["encoder"] == record["encoder"]


def refused(done, sentence):
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_refused(hub, fetch, tmp_path):
    folder = tmp_path / "folder"
    refused(fetch(folder, "--sha256", "0" * 64), f"not {'0' * 64} as given")
    refused(fetch(folder, "--model", "radgraph"), "radgraph.tar.gz of StanfordAIMI/RRG_scorers")
    refused(fetch(folder, "--revision", "c" * 40), "cannot be downloaded")
    write_archive(hub.root / SCORERS / "radgraph.tar.gz", ["config.json", "weights.th"])
    refused(fetch(folder, "--model", "radgraph"), "lacks vocabulary/*.txt")
    assert names(folder) == []
    assert fetch(folder).returncode == 0
    refused(fetch(folder), "is already there")
    (folder / "tiny-encoder" / "vocab.txt").write_text("another")
    write_archive(hub.root / SCORERS / "modern-radgraph-xl.tar.gz")
    refused(fetch(folder, "--model", "modern-radgraph-xl"), "holds another text encoder")
    assert not (folder / "modern-radgraph-xl").exists()
