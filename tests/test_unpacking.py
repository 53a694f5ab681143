"""What an archive's members may be: files and folders below its own, and nothing else."""

import io
import tarfile
from pathlib import Path

import pytest

from radquant.unpacking import UnfitMemberError, open_tar, unpack_files


def packed(*members: tarfile.TarInfo, content: bytes = b"") -> io.BytesIO:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for each in members:
            each.size = len(content) if each.isfile() else 0
            tar.addfile(each, io.BytesIO(content) if each.isfile() else None)
    return file


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname, found.mode = kind, link, 0o4777
    return found


def test_files_are_written_below_the_folder_for_their_owner_to_read(tmp_path: Path) -> None:
    names = ["a/b/weights", "plain", "./c/./d"]
    file = packed(member("a", tarfile.DIRTYPE), *map(member, names), content=b"some bytes")
    with open_tar(file, "x.tar.gz") as tar:
        unpack_files(tar, tmp_path)
    found = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert found == {"a/b/weights", "plain", "c/d"}
    for path in found:
        assert (tmp_path / path).read_bytes() == b"some bytes"
        assert (tmp_path / path).stat().st_mode & 0o7111 == 0  # neither run nor setuid


@pytest.mark.parametrize(
    "unfit",
    [
        member("../climbed"),
        member("a/../../climbed"),
        member("/tmp/climbed"),
        member("..", tarfile.DIRTYPE),
        member("link", tarfile.SYMTYPE, "/etc/passwd"),
        member("link", tarfile.SYMTYPE, "plain"),
        member("link", tarfile.LNKTYPE, "plain"),
        member("pipe", tarfile.FIFOTYPE),
        member("device", tarfile.CHRTYPE),
    ],
    ids=lambda each: f"{each.name}-{each.type.decode()}",
)
def test_anything_else_is_refused_and_not_written(unfit: tarfile.TarInfo, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    with (
        open_tar(packed(member("plain"), unfit), "x.tar.gz") as tar,
        pytest.raises(UnfitMemberError),
    ):
        unpack_files(tar, folder)
    assert [path.name for path in folder.iterdir()] == ["plain"]
    assert list(tmp_path.iterdir()) == [folder]
