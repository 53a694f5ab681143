"""Fetching a RadGraph model with the real hub client, from a server on this machine."""

import http.server
import json
import os
import re
import subprocess
import sys
import tarfile
import threading
import urllib.parse
from pathlib import Path

import pytest

from radquant.files import read_json, sha256_file

REPOSITORY = Path(__file__).parents[1]
SCORERS, ENCODER = "StanfordAIMI/RRG_scorers", "some-org/tiny-encoder"
COMMITS = {SCORERS: "a" * 40, ENCODER: "b" * 40}

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


class Hub(http.server.BaseHTTPRequestHandler):
    """The few answers of the hub that its client asks for; branch `main` is the only commit."""

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = urllib.parse.urlsplit(self.path).path
        for repository, commit in COMMITS.items():
            files = sorted(p for p in (self.server.root / repository).iterdir() if p.is_file())
            file = re.fullmatch(f"/{repository}/resolve/(main|{commit})/([^/]+)", path)
            if file and (self.server.root / repository / file[2]).is_file():
                body = (self.server.root / repository / file[2]).read_bytes()
                return self.answer(body, {"X-Repo-Commit": commit, "ETag": f'"{hash(body):x}"'})
            if re.fullmatch(f"/api/models/{repository}/revision/(main|{commit})", path):
                siblings = [{"rfilename": p.name} for p in files]
                info = {"id": repository, "modelId": repository, "sha": commit, "tags": []}
                return self.answer(json.dumps({**info, "siblings": siblings}).encode(), {})
            if re.fullmatch(f"/api/models/{repository}/tree/(main|{commit})", path):
                entries = [
                    {"type": "file", "path": p.name, "size": p.stat().st_size, "oid": "0" * 40}
                    for p in files
                ]
                return self.answer(json.dumps(entries).encode(), {})
        return self.answer(b"{}", {"X-Error-Code": "EntryNotFound"}, 404)

    def answer(self, body, headers, status=200):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture
def hub(tmp_path):
    """The server; its `root` holds the files of both repositories."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.root = tmp_path / "hub"
    for repository in COMMITS:
        (server.root / repository).mkdir(parents=True)
    write_archive(server.root / SCORERS / "radgraph-xl.tar.gz")
    (server.root / SCORERS / "other.bin").write_text("never fetched")
    for name in ("config.json", "vocab.txt", "tokenizer.json", "pytorch_model.bin"):
        (server.root / ENCODER / name).write_text(f"the encoder's {name}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture
def fetch(hub, tmp_path):
    def run(output, *options, home="home"):
        environment = {
            **{name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
            "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
            "HF_HOME": str(tmp_path / home),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "PYTHONPATH": "src",
        }
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
    assert (record["model"]["repository"], record["model"]["revision"]) == (SCORERS, "a" * 40)
    assert (record["encoder"]["repository"], record["encoder"]["revision"]) == (ENCODER, "b" * 40)
    archive = hub.root / SCORERS / "radgraph-xl.tar.gz"
    assert record["model"]["sha256"] == sha256_file(archive)
    assert "a" * 40 in done.stdout and "b" * 40 in done.stdout  # noqa: PT018
    hashes = record["model"]["files"] | record["encoder"]["files"]
    assert sorted(hashes) == [name for name in expected if name != "source.json"]
    for name, digest in hashes.items():
        assert sha256_file(tmp_path / "folder" / name) == digest

    # By commit and hash the same again; a second model shares the encoder.
    write_archive(hub.root / SCORERS / "radgraph.tar.gz")
    pinned = ["--revision", "a" * 40, "--encoder-revision", "b" * 40]
    done = fetch(tmp_path / "again", *pinned, "--sha256", sha256_file(archive), home="other")
    assert done.returncode == 0, done.stderr
    assert read_json(tmp_path / "again" / "source.json")["radgraph-xl"] == record
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
