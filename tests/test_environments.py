"""Environments of their own, from wheels that are made here."""

import json
import os
import subprocess
import zipfile
from pathlib import Path

from radquant.environments import build


def wheel(folder: Path, name: str, code: str) -> Path:
    path = folder / f"{name}-0.1-py3-none-any.whl"
    about = f"{name}-0.1.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/__init__.py", code)
        archive.writestr(
            f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n"
        )
        archive.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{about}/RECORD", "")
    return path


def test_what_does_not_load_beside_pytorch_is_removed(tmp_path: Path, capfd, monkeypatch) -> None:
    """As torchaudio of PyPI beside a PyTorch for CPUs, which ends vLLM at its import."""
    # A machine's own constraints know no such versions.
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_CONSTRAINT", raising=False)
    wheels = [
        wheel(tmp_path, "torchaudio", "raise OSError('no CUDA here')"),
        wheel(tmp_path, "torchvision", ""),
        wheel(tmp_path, "other", "raise OSError('not ours to judge')"),
    ]
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("".join(f"{path}\n" for path in wheels))
    build(requirements, tmp_path / "environment")
    python = tmp_path / "environment/bin/python"
    assert subprocess.run([python, "-c", "import torchvision"], check=False).returncode == 0
    packages = json.loads((tmp_path / "environment/ready.json").read_text())["packages"]
    assert {"torchvision", "other"} <= set(packages)
    assert "torchaudio" not in packages
    assert "removing torchaudio, which does not load" in capfd.readouterr().err
