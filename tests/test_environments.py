"""Environments of their own, from wheels that are made here."""

import json
import os
import platform
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from radquant import environments
from radquant.environments import build, lock_of
from radquant.files import sha256_file

ENVS = Path(__file__).parents[1] / "envs"


def wheel(folder: Path, name: str, code: str, version: str = "0.1") -> Path:
    path = folder / f"{name}-{version}-py3-none-any.whl"
    about = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/__init__.py", code)
        archive.writestr(
            f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        archive.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{about}/RECORD", "")
    return path


def test_a_python_without_packages_can_build_them() -> None:
    """CI has them built while its own environment is being installed."""
    script = Path(__file__).parents[1] / "scripts" / "build_env.py"
    environment = {**os.environ, "PYTHONPATH": str(script.parents[1] / "src")}
    # -S: without site-packages.
    subprocess.run([sys.executable, "-S", str(script), "--help"], env=environment, check=True)


def test_what_does_not_load_beside_pytorch_is_removed(tmp_path: Path, capfd, monkeypatch) -> None:
    """As torchaudio of PyPI beside a PyTorch for CPUs, which ends vLLM at its import."""
    # A machine's own constraints know no such versions.
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_CONSTRAINT", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    wheels = [
        wheel(tmp_path, "torchaudio", "raise OSError('no CUDA here')"),
        wheel(tmp_path, "torchvision", ""),
        wheel(tmp_path, "other", "raise OSError('not ours to judge')"),
    ]
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("".join(f"{path}\n" for path in wheels))
    build(requirements, tmp_path / "environment")
    python = tmp_path / "environment/bin/python"
    assert not list(
        (tmp_path / "environment").rglob("other/__pycache__/*")
    )  # nobody has imported it
    assert subprocess.run([python, "-c", "import torchvision"], check=False).returncode == 0
    packages = json.loads((tmp_path / "environment/ready.json").read_text())["packages"]
    assert {"torchvision", "other"} <= set(packages)
    assert "torchaudio" not in packages
    assert "removing torchaudio, which does not load" in capfd.readouterr().err


def test_an_environment_has_what_its_lock_says(tmp_path: Path, monkeypatch) -> None:
    """Not the newest release; and an edited lock builds it anew."""
    for version in ("0.1", "0.2", "0.3"):
        wheel(tmp_path, "thing", "", version)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_CONSTRAINT", raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    # Jobs that may write no bytecode would compile anew each time what pip has not.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    requirements = tmp_path / "tool.txt"
    requirements.write_text("thing\n")
    lock = tmp_path / "locks" / "tool.txt"
    lock.parent.mkdir()

    def built() -> str:
        build(requirements, tmp_path / "environment")
        record = json.loads((tmp_path / "environment/ready.json").read_text())
        assert record["lock_sha256"] == sha256_file(lock)
        assert list((tmp_path / "environment").rglob("thing/__pycache__/*.pyc"))
        return record["packages"]["thing"]

    # Made for the Python and the machine that run this.
    here = (platform.python_version().rpartition(".")[0], platform.system(), platform.machine())
    monkeypatch.setattr(environments, "LOCKED_FOR", here)
    for version in ("0.1", "0.2"):
        lock.write_text(f"# a comment\nthing=={version}\n")
        assert built() == version


@pytest.mark.parametrize(
    ("version", "machine", "locked"),
    [("3.11.7", "x86_64", True), ("3.12.0", "x86_64", False), ("3.11.7", "aarch64", False)],
)
def test_a_lock_is_for_the_machine_that_it_was_made_for(
    version: str, machine: str, locked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "python_version_tuple", lambda: tuple(version.split(".")))
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    lock = lock_of(ENVS / "radgraph.txt")
    assert lock == (ENVS / "locks" / "radgraph.txt" if locked else None)
