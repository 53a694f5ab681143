"""Weights that do not fit into memory, kept on the disk."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_lean_engine import as_loaded, lean_model, make_model, random_ids, run
from tiny_models import tiny_llama

from radquant import memory_plan
from radquant.checkpoints.loading import load
from radquant.errors import UserError
from radquant.generation import lean_files
from radquant.generation.lean_decoder import take_over
from radquant.kernels import cpu

pytestmark = pytest.mark.skipif(cpu.unavailable() is not None, reason=str(cpu.unavailable()))


def mapped_bytes() -> int:
    """Bytes of files without a name that this process has mapped."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    spans = [line.split()[0].split("-") for line in lines if line.endswith("(deleted)")]
    return sum(int(end, 16) - int(begin, 16) for begin, end in spans)


@pytest.mark.parametrize("bits", [None, 4])
def test_weights_on_the_disk_give_the_same_bits(
    bits: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [random_ids(length, length) for length in (1, 70)]
    expected = run(lean_model("llama", bits), ids)
    before = mapped_bytes()
    loaded = as_loaded(make_model("llama", bits))
    loaded.mapped = 2000
    said: list[str] = []
    monkeypatch.setattr(memory_plan, "free_bytes", lambda: 1000)
    monkeypatch.setattr(lean_files, "say_once", said.append)
    lean = take_over(loaded, None, tmp_path / "new")
    monkeypatch.undo()
    lean.reach(128)
    assert all(map(torch.equal, run(lean, ids), expected))
    assert loaded.kernel.endswith(", weights on disk")
    assert mapped_bytes() - before >= 0.9 * lean.decoder.weight_bytes()
    assert not list((tmp_path / "new").iterdir())
    assert ["they are kept on the disk" in each for each in said] == [True]


def test_a_disk_without_room_for_weights_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_plan, "free_bytes", lambda: 1000)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="the weights do not fit into memory, and no file"):
        take_over(replace(as_loaded(make_model("llama")), mapped=2000), None, tmp_path / "file")


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_what_is_mapped_is_what_stays_as_it_is_stored(stored: torch.dtype, tmp_path: Path) -> None:
    tiny_llama(tmp_path, dtype=stored)
    loaded = load(tmp_path, dtype=torch.bfloat16)
    sizes = [each.numel() * each.element_size() for each in loaded.model.parameters()]
    assert loaded.mapped == (sum(sizes) if stored == torch.bfloat16 else 0)
