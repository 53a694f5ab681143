"""A Hugging Face hub on this machine, for tests and rehearsals: folders served as repositories.

The real client (`huggingface_hub`) talks to it through `HF_ENDPOINT`. It answers what the client
asks before and while it fetches: what a revision holds, and files, also from the middle. The folder
ROOT/OWNER/NAME is the model OWNER/NAME; its branch `main` is its only revision, and a commit is
named after what the folder holds.
"""

import hashlib
import json
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MAIN = "main"
CHUNK = 1 << 20
# What the client takes of an error, by the header X-Error-Code.
UNKNOWN = (404, "RepoNotFound")
NO_REVISION = (404, "RevisionNotFound")
NO_FILE = (404, "EntryNotFound")
GATED = (403, "GatedRepo")
BAD_TOKEN = {"X-Error-Message": "Invalid credentials in Authorization header"}


@dataclass
class LocalHub:
    """A hub that runs, and what it is to do wrong."""

    root: Path
    url: str
    requests: list[tuple[str, str]] = field(default_factory=list)  # (method, path) of each
    ranges: list[str] = field(default_factory=list)  # of files that were not asked for whole
    gated: set[str] = field(default_factory=set)  # models whose terms nobody has accepted
    refusing: int = 0  # the HTTP status with which it answers everything, if not 0
    bare: bool = False  # whether files come without the headers that say their hash and commit
    # {file: bytes after which each next connection breaks}; by names within their repositories
    cut: dict[str, list[int]] = field(default_factory=dict)

    def environment(self, home: Path) -> dict[str, str]:
        """The variables by which a program finds this hub. home: its cache, in the place of the
        user's."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "127.0.0.1",
        }

    def commit(self, model: str) -> str:
        """The commit of a model: another when a file is."""
        lines = (f"{name} {etag(path)}\n" for name, path in files_of(self.root / model).items())
        return hashlib.sha1("".join(lines).encode()).hexdigest()


@contextmanager
def local_hub(root: Path) -> Iterator[LocalHub]:
    """Serve the folders ROOT/OWNER/NAME on a free port of this machine, until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub = server.hub = LocalHub(root, f"http://127.0.0.1:{server.server_port}")  # type: ignore[attr-defined]
    # It looks so often, in seconds, whether it is to end.
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def files_of(folder: Path) -> dict[str, Path]:
    """{name in the repository: path} of a model's files."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path for path in sorted(paths)}


def etag(path: Path) -> str:
    """What stands for a file's content: models are large, and are not read for it."""
    stat = path.stat()
    return hashlib.sha1(f"{path.name} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """The answers to the client. https://huggingface.co/docs/hub/api has the addresses."""

    server: Any
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Say nothing; `LocalHub.requests` has the requests."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub: LocalHub = self.server.hub
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        hub.requests.append((self.command, path))
        if hub.refusing:
            return self.answer({}, hub.refusing, BAD_TOKEN if hub.refusing == 401 else None)
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            parts = parts[2:]
        what, revision = parts[2:4] if len(parts) > 3 else ("revision", MAIN)
        model = "/".join(parts[:2])
        folder = hub.root / model
        if ".." in parts or len(parts) < 2 or not folder.is_dir():
            return self.refuse(UNKNOWN)
        commit = hub.commit(model)
        if model in hub.gated:
            return self.refuse(GATED)
        if revision not in (MAIN, commit):
            return self.refuse(NO_REVISION)
        found = files_of(folder)
        if what == "resolve":
            name = "/".join(parts[4:])
            if name in found:
                return self.send(name, found[name], commit)
            # By the commit the client remembers that there is no such file.
            return self.refuse(NO_FILE, {"X-Repo-Commit": commit})
        if what == "tree":
            return self.answer(
                [
                    {"type": "file", "path": name, "size": each.stat().st_size, "oid": etag(each)}
                    for name, each in found.items()
                ]
            )
        siblings = [{"rfilename": name} for name in found]
        return self.answer({"id": model, "sha": commit, "tags": [], "siblings": siblings})

    def refuse(self, error: tuple[int, str], headers: dict[str, str] | None = None) -> None:
        status, code = error
        self.answer({"error": code}, status, {"X-Error-Code": code, **(headers or {})})

    def answer(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        self.begin(status, {"Content-Type": "application/json", **(headers or {})}, len(body))
        if self.command == "GET":
            self.wfile.write(body)

    def begin(self, status: int, headers: dict[str, str], length: int) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()

    def send(self, name: str, path: Path, commit: str) -> None:
        """The file, or what of it the header Range asks for ("bytes=BEGIN-")."""
        hub: LocalHub = self.server.hub
        size, begin = path.stat().st_size, 0
        headers = {"Accept-Ranges": "bytes"}
        if not hub.bare:
            headers |= {"ETag": f'"{etag(path)}"', "X-Repo-Commit": commit}
        if asked := self.headers.get("Range"):
            hub.ranges.append(asked)
            begin = int(asked.removeprefix("bytes=").partition("-")[0])
            headers["Content-Range"] = f"bytes {begin}-{size - 1}/{size}"
        self.begin(206 if asked else 200, headers, size - begin)
        if self.command != "GET":
            return
        rest = size - begin
        if hub.cut.get(name):
            rest = min(rest, hub.cut[name].pop(0))
            self.close_connection = True  # before all is sent
        with open(path, "rb") as source:
            source.seek(begin)
            while rest and (chunk := source.read(min(CHUNK, rest))):
                self.wfile.write(chunk)
                rest -= len(chunk)
