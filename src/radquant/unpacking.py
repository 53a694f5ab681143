"""Archives that are refused before they unpack to more than anyone packs."""

import bz2
import contextlib
import gzip
import lzma
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast

from radquant.errors import UserError
from radquant.files import BOMB, most_unpacked

UNPACKERS: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
}
# What reading a damaged tar, packed or not, raises.
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
