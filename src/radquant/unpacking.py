"""Archives that are refused before they unpack to more than anyone packs."""

import bz2
import contextlib
import gzip
import lzma
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from radquant.errors import UserError
from radquant.files import BOMB, most_unpacked

UNPACKERS: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
}
# Exceptions that reading a damaged tar raises, compressed or not.
DAMAGE = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, ValueError)


class _Bounded:
    """A file that is read and skipped no further than to `limit` bytes.

    A member's own size is no bound: headers have sizes, too, and are read whole.
    """

    def __init__(self, file: Any, limit: int, name: str) -> None:
        self.file, self.limit, self.name = file, limit, name
        self.tell = file.tell

    def _check(self, place: int) -> None:
        if place > self.limit:
            raise UserError(f"{self.name}: {BOMB}")

    def read(self, size: int = -1) -> bytes:
        self._check(self.file.tell() + (size if size >= 0 else self.limit))
        return bytes(self.file.read(size))

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        self._check(place if whence == os.SEEK_SET else self.file.tell() + place)
        return int(self.file.seek(place, whence))

    def seekable(self) -> bool:
        return True


@contextlib.contextmanager
def open_tar(file: BinaryIO, name: str) -> Iterator[tarfile.TarFile]:
    """Open a .tar, packed or not, to be read once from its beginning.

    name: for the UserError where it unpacks to more than `most_unpacked`. Raises one of DAMAGE
    where it is no whole tar.
    """
    limit = most_unpacked(file.seek(0, os.SEEK_END))
    file.seek(0)
    start = file.read(6)
    file.seek(0)
    unpack = next((each for mark, each in UNPACKERS.items() if start.startswith(mark)), None)
    unpacked = unpack(file) if unpack else file
    bounded = cast(BinaryIO, _Bounded(unpacked, limit, name))
    with tarfile.open(fileobj=bounded, mode="r:") as tar:
        yield tar


class UnfitMemberError(tarfile.TarError):
    """A member of a tar that is neither a folder nor a file below the tar's own."""


def unpack_files(tar: tarfile.TarFile, folder: Path) -> None:
    """Write the files of `tar` below `folder`, with none of their owners, modes and times.

    Python's own filter for this came with 3.11.4, and Debian 12 has 3.11.2. Raises
    UnfitMemberError for links, devices and what would lie outside of `folder`.
    """
    for member in tar:
        name = PurePosixPath(member.name)
        content = tar.extractfile(member) if member.isfile() else None
        if name.is_absolute() or ".." in name.parts or not (content or member.isdir()):
            raise UnfitMemberError(member.name)
        path = folder / name
        if content is None:
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as target:
            shutil.copyfileobj(content, target)
