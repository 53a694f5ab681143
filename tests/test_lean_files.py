"""Weights that do not fit into memory, kept on the disk."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from test_lean_engine import random_ids, run
from tiny_models import store, tiny_llama

from radquant import memory_plan, model_files
from radquant.checkpoints.loading import Loaded, load
from radquant.errors import UserError
from radquant.generation import lean_files
from radquant.generation.lean_decoder import LeanDecoder, take_over
from radquant.generation.lean_files import mapped_bytes
from radquant.kernels import cpu

pytestmark = pytest.mark.skipif(cpu.unavailable() is not None, reason=str(cpu.unavailable()))


@pytest.fixture(autouse=True)
def _all_are_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the tensors of a model are that does not fit: small ones are read."""
    monkeypatch.setattr(model_files, "SMALL", -1)


@pytest.fixture
def bfloats(tmp_path: Path) -> Path:
    return tiny_llama(tmp_path / "model", dtype=torch.bfloat16)


@pytest.fixture
def _no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_plan, "free_bytes", lambda mapped=False: 1000)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)


def taken(model: Path, folder: Path = Path()) -> tuple[Loaded, LeanDecoder]:
    loaded = load(model, dtype=torch.bfloat16)
    lean = take_over(loaded, None, folder)
    lean.reach(128)
    return loaded, lean


def nameless(folder: Path) -> list[str]:
    """The files without a name in a folder that this process has mapped."""
    lines = lean_files.MAPS.read_text(errors="replace").splitlines()
    return [line for line in lines if "(deleted)" in line and str(folder) in line]


def test_weights_on_the_disk_give_the_same_bits(
    bfloats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: Any
) -> None:
    ids = [[3 + each % 8 for each in random_ids(length, length)] for length in (1, 70)]
    in_memory, lean = taken(bfloats)
    expected = run(lean, ids)
    assert not in_memory.on_disk
    said: list[str] = []
    monkeypatch.setattr(lean_files, "say_once", said.append)
    request.getfixturevalue("_no_room")
    loaded, lean = taken(bfloats, tmp_path / "new")
    assert all(map(torch.equal, run(lean, ids), expected))
    assert loaded.on_disk
    assert loaded.kernel == f"{in_memory.kernel}, weights on disk"
    assert [str(tmp_path / "new") in each for each in said] == [True]
    assert not list((tmp_path / "new").iterdir())
    # Of each of two layers four products, of one or more parts, and the head.
    assert len(nameless(tmp_path / "new")) >= 2 * 4 + 1


@pytest.mark.usefixtures("_no_room")
def test_a_job_of_slurm_is_submitted_again_with_more_memory_instead(
    bfloats: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert not taken(bfloats)[0].on_disk


@pytest.mark.usefixtures("_no_room")
def test_weights_that_no_file_can_hold_are_one_sentence(
    bfloats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot lie in .*File exists.*can be written to"):
        taken(bfloats, tmp_path / "file")
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"cannot lie in .*No space left on device"):
        taken(bfloats, tmp_path)
    # A disk that is full is told as such, not as one that cannot be written to.
    usage = lean_files.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(lean_files.shutil, "disk_usage", lambda _: usage._replace(free=7))
    with pytest.raises(UserError, match=r"as 0\.0 GB are free there; make room"):
        taken(bfloats, tmp_path)


@pytest.mark.parametrize("format", ["gemm", "gptq"])
def test_only_what_is_mapped_is_copied_on_top(format: str, bfloats: Path, tmp_path: Path) -> None:
    """What is converted or unpacked when it is loaded is not."""
    layers = load(bfloats, dtype=torch.bfloat16).model.model.layers
    kept = sum(each.numel() * 2 for each in layers.parameters())
    assert mapped_bytes([layers]) == kept
    assert mapped_bytes([load(bfloats, dtype=torch.float32).model.model.layers]) == 0
    packed = load(
        store(bfloats, tmp_path / format, "--method", "rtn", "--format", format),
        dtype=torch.bfloat16,
    )
    size = sum(each.numel() * each.element_size() for each in packed.model.model.layers.buffers())
    found = mapped_bytes([packed.model.model.layers])
    assert found >= 0.8 * size if format == "gemm" else found < 0.5 * size
