"""Texts for calibration from elsewhere: files, the hub, and those that the evaluation knows."""

import json
import runpy
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from unittest import mock

import pandas as pd
import pytest
from tiny_models import SCRIPTS

from radquant.calibration import texts
from radquant.errors import UserError
from radquant.files import sha256_file

# ----------------------------------------------------------------------------------------- files


def test_every_kind_of_file_is_read_alike(tmp_path: Path) -> None:
    table = pd.DataFrame({"text": ["One.", "", "Zwei ä."]})
    table.to_csv(tmp_path / "t.csv", index=False)
    table.to_parquet(tmp_path / "t.parquet")
    table.to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    (tmp_path / "t.txt").write_text("One.\n\nZwei ä.", encoding="utf-8")
    for name, ids in {
        "t.csv": ["row 2", "row 3", "row 4"],
        "t.parquet": ["row 1", "row 2", "row 3"],
        "t.jsonl": ["line 1", "line 2", "line 3"],
        "t.txt": ["line 1", "line 2", "line 3"],
    }.items():
        rows = texts.read_texts(tmp_path / name, "text")
        found = {row["id"]: row["text"] for row in rows if row["text"]}
        assert found == {ids[0]: "One.", ids[2]: "Zwei ä."}, name


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("t.csv", b"text\na\n\xff\n", "line 3: not UTF-8"),
        ("t.txt", b"a\n\xff", "line 2: not UTF-8"),
        ("t.csv", b"", "is empty"),
        ("t.txt", b"\n\n", "is empty"),
        ("t.jsonl", b"", "is empty"),
        ("t.csv", b"body,id\na,b\n", r"no column 'text'; its columns are body, id"),
        ("t.txt.xz", b"a", "an ending that is not known"),
        ("t.jsonl", b'{"text": [1]}\n', "column 'text' is not text"),
    ],
)
def test_an_unusable_file_is_one_sentence(
    tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message):
        texts.read_texts(tmp_path / name, "text")


# ---------------------------------------------------------------------------------------- leaks

FINDINGS = "The heart is large. There is a 5 mm nodule in the left lung, and no effusion."
LONG = "Cardiomegaly. A nodule of the left upper lobe for which computed tomography is advised."
EVALUATION = [
    {"findings": FINDINGS, "impression": LONG, "text": ""},
    {"findings": "Lungs clear.", "impression": "No acute disease.", "text": "Short report."},
]


@pytest.mark.parametrize(
    "text",
    [
        FINDINGS,
        FINDINGS.upper().replace(".", " ;\n"),
        f"Findings: {FINDINGS} Impression: something else",
        f"the heart is large {FINDINGS}",
        f"1. {LONG}",
        "LUNGS: clear",
        "Short report",
    ],
)
def test_a_text_of_the_evaluation_is_refused(text: str) -> None:
    rows = [{"id": "row 2", "text": "Another."}, {"id": "row 3", "text": text}]
    with pytest.raises(UserError, match=r"^1 of the 2 .* in t\.csv .* \(row 3\)") as caught:
        texts.check_unseen(rows, EVALUATION, "impression", "t.csv")
    assert "nodule" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "No acute disease.",  # said of many patients
        "The lungs clear.",
        FINDINGS.replace("5 mm", "6 mm"),
        FINDINGS.removesuffix("no effusion."),
        "The heart is large. There is a 5 mm nodule in the left lung",
    ],
)
def test_a_text_that_the_evaluation_does_not_have_is_not(text: str) -> None:
    texts.check_unseen([{"id": "row 2", "text": text}], EVALUATION, "impression", "t.csv")


def test_only_the_first_of_many_are_named() -> None:
    rows = [{"id": f"row {n}", "text": FINDINGS} for n in range(2, 20)]
    with pytest.raises(UserError, match=r"\(row 2, row 3, row 4, row 5, row 6 and 13 more\)"):
        texts.check_unseen(rows, EVALUATION, "impression", "t.csv")


# ------------------------------------------------------------------------------------------ hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILE = "raw-v1/train.jsonl"
DATA = b'{"text": "One."}\n{"text": "Two."}\n'


class Hub(BaseHTTPRequestHandler):
    """A hub with one file of one dataset, at a commit and at the branch main."""

    def do_HEAD(self) -> None:
        known = [f"/datasets/some/texts/resolve/{name}/{FILE}" for name in (COMMIT, "main")]
        self.send_response(200 if self.path in known else 404)
        if self.path in known:
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", '"etag"')
            self.send_header("Content-Length", str(len(DATA)))
        else:
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(DATA)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("revision", [COMMIT, "main"])
def test_a_file_is_fetched_and_its_commit_recorded(
    hub: None, tmp_path: Path, revision: str
) -> None:
    output = tmp_path / "texts" / FILE
    command = ["fetch_texts.py", "--hub", "some/texts", "--revision", revision, "--file", FILE]
    command += ["--output", str(output), "--record", str(tmp_path / "texts.json")]
    with mock.patch.object(sys, "argv", command):
        runpy.run_path(str(SCRIPTS / "fetch_texts.py"), run_name="__main__")
    assert output.read_bytes() == DATA
    assert json.loads((tmp_path / "texts.json").read_text()) == {
        "kind": "hub",
        "id": "some/texts",
        "revision": COMMIT,
        "file": FILE,
        "sha256": sha256_file(output),
    }
    assert [row["text"] for row in texts.read_texts(output, "text")] == ["One.", "Two."]


def test_a_file_that_is_not_there_is_one_sentence(hub: None, tmp_path: Path) -> None:
    message = r"other\.csv of the hub dataset 'some/texts' .* could not .*EntryNotFoundError"
    with pytest.raises(UserError, match=message):
        texts.from_hub("some/texts", COMMIT, "other.csv", tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_nothing_is_fetched_offline_but_what_the_cache_holds(
    hub: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE forbids"):
        texts.from_hub("some/texts", COMMIT, FILE, tmp_path / "out.jsonl")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    first = texts.from_hub("some/texts", COMMIT, FILE, tmp_path / "out.jsonl")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert texts.from_hub("some/texts", COMMIT, FILE, tmp_path / "again.jsonl") == first
