"""Memory is planned before work: estimates beside what Linux then measures, and batches by them."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import batch_peaks
import pytest
import torch
import yaml
from batch_peaks import HEAP, REFRESH, prompt
from hypothesis import given
from hypothesis import strategies as st
from tiny_architectures import tiny_model
from tiny_models import tiny_llama

from radquant import memory_plan
from radquant.checkpoints.model_sizes import weights_of
from radquant.generation.rotary import each_apart
from radquant.memory_plan import Weights

REPOSITORY = Path(__file__).parents[1]


@pytest.mark.skipif(not REFRESH.exists(), reason="needs Linux's /proc")
def test_the_peaks_of_batches_are_as_planned() -> None:
    environment = {**os.environ, **HEAP, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, batch_peaks.__file__]
    found = json.loads(subprocess.check_output(words, env=environment, text=True))
    assert len(found) == len(batch_peaks.CASES)
    for planned, taken in found:
        assert taken / memory_plan.FACTOR < planned < taken * memory_plan.FACTOR


def test_a_batch_that_would_not_fit_is_computed_in_parts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model: Any = tiny_model("llama")
    widths = memory_plan.widths_of(model.config)
    assert widths is not None
    each = memory_plan.row_bytes(widths, 12, 1, 4)
    free = memory_plan.batch_bytes(widths, 1) + int(3.5 * each)
    monkeypatch.setattr(memory_plan, "free_bytes", lambda: free)
    prompts = [prompt(number, 12, 0) for number in range(8)]
    sizes: list[int] = []

    def do(part: Any) -> list[str]:
        sizes.append(len(part))
        return [each.id for each in part]

    too_large: list[int] = []
    found = each_apart(model, do, prompts, [12] * 8, too_large)
    assert found == [each.id for each in prompts]
    assert sizes == [3, 3, 2]
    assert too_large == []
    assert "batches of 8 are computed in parts of 3" in capsys.readouterr().err


@given(free=st.integers(-(10**12), 10**13), each=st.integers(1, 10**12))
def test_one_sequence_is_always_tried_and_no_more_than_fit(free: int, each: int) -> None:
    batch = memory_plan.batch_for(free, each)
    assert batch >= 1
    assert batch == 1 or batch * each <= free


@pytest.mark.parametrize("version", [1, 2])
def test_the_limits_of_control_groups_count(version: int, tmp_path: Path) -> None:
    names = {
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        2: ("memory.max", "memory.current", "inactive_file"),
    }[version]
    top = tmp_path / "memory" if version == 1 else tmp_path
    for folder, limit, used, cached in (("job", "5000", 4000, 1500), ("job/step", "max", 10, 5)):
        (top / folder).mkdir(parents=True)
        (top / folder / names[0]).write_text(f"{limit}\n")
        (top / folder / names[1]).write_text(f"{used}\n")
        (top / folder / "memory.stat").write_text(f"anon 7\n{names[2]} {cached}\n")
    groups = tmp_path / "cgroup"
    kinds = "3:cpu,memory:" if version == 1 else "0::"
    groups.write_text(f"{kinds}/job/step\n1:name=systemd:/\n")
    assert memory_plan.group_limits(tmp_path, groups) == [(5000, 2500)]
    groups.write_text(f"{kinds}/elsewhere\n")  # a container sees another path than the machine
    assert memory_plan.group_limits(tmp_path, groups) == []


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_weights_are_counted_without_being_there(kind: str, tmp_path: Path) -> None:
    model = tiny_model(kind)
    model.config.save_pretrained(tmp_path)
    weights, widths = weights_of(tmp_path)
    assert weights.total == sum(each.numel() for each in model.parameters())
    assert (weights.vision > 0) == (kind == "gemma3")
    linears = [m for n, m in model.get_decoder().named_modules() if isinstance(m, torch.nn.Linear)]
    assert weights.linear == sum(each.weight.numel() for each in linears)
    assert weights.matrix == max(each.weight.numel() for each in linears)
    assert widths == memory_plan.widths_of(model.config)


def test_sizes_of_7_billion_weights_in_4_bits_are_those_of_the_benchmark() -> None:
    # docs/benchmarks.md: quantized at a peak of 3.99 GB, 4.16 GB on disk.
    width, inner, layer = 4096, 14336, 218_103_808
    grams, matrix, table = 3 * width**2 + inner**2, width * inner, 32768 * width
    weights = Weights(32 * layer, 2 * table, 0, layer, matrix, grams, table)
    assert memory_plan.stored_bytes(weights, 4, 128) == pytest.approx(4.16e9, rel=0.02)
    factor = memory_plan.quantizing_bytes(weights, calibrated=True) / 3.99e9
    assert 1 / memory_plan.FACTOR < factor < memory_plan.FACTOR


def test_the_script_plans_a_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    model = tiny_llama(tmp_path / "model")
    for name in ("model.safetensors", "tokenizer.json"):  # a plan comes before any weight
        (model / name).unlink()
    config = yaml.safe_load(Path("config/smoke.yaml").read_text(encoding="utf-8"))
    config["model"] = {"name": "tiny", "path": str(model)}
    config["checkpoints"]["awq-w4"]["group_size"] = 32
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")

    def said(*options: str) -> list[list[str]]:
        words = ["plan.py", str(file), "--results", str(tmp_path / "results"), *options]
        with mock.patch.object(sys, "argv", words):
            runpy.run_path("scripts/plan.py", run_name="__main__")
        lines = capsys.readouterr().out.splitlines()
        return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[4:]]

    rows = said()
    assert [row[0] for row in rows] == list(config["precisions"])
    assert {row[4] for row in rows} == {"2"}  # generation.batch_size
    monkeypatch.setattr(memory_plan, "loaded_bytes", lambda *_: 10**12)
    assert {row[4] for row in said("--gpu-gb", "24")} == {"does not fit"}
