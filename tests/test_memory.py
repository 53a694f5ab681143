"""Batches that do not fit: PyTorch's allocator really refuses, and the results stay the same."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from report_run import CONFIG, change_record, make_results
from tiny_reports import model_and_splits, run_script
from torch import nn

from radquant.errors import UserError
from radquant.generation.memory import in_parts, is_out_of_memory
from radquant.reporting.collect import collect
from radquant.reporting.cost_section import cost_notes
from radquant.reporting.summary import summarize

MORE_THAN_ANY_MACHINE_HAS = 1 << 50  # bytes


@contextmanager
def room_for(rows: int) -> Iterator[None]:
    """Let models ask for too much memory where they embed more than `rows` sequences at once."""

    def embed(module: nn.Module, inputs: Any) -> None:
        if isinstance(module, nn.Embedding) and inputs[0].shape[0] > rows:
            torch.empty(MORE_THAN_ANY_MACHINE_HAS, dtype=torch.uint8)

    hook = nn.modules.module.register_module_forward_pre_hook(embed)
    try:
        yield
    finally:
        hook.remove()


@given(st.integers(0, 40), st.integers(1, 40), st.integers(1, 12))
def test_parts_give_what_the_whole_gives(count: int, batch_size: int, room: int) -> None:
    def double(part: list[int]) -> list[int]:
        if len(part) > room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        sizes.append(len(part))
        return [2 * item for item in part]

    sizes: list[int] = []
    too_large: list[int] = []
    items = list(range(count))
    found = []
    for start in range(0, count, batch_size):
        found += in_parts(double, items[start : start + batch_size], too_large)
    assert found == [2 * item for item in items]
    assert sum(sizes) == count
    assert all(size > room for size in too_large)
    assert too_large == sorted(set(too_large), reverse=True)  # nothing is tried twice
    # Half of what fails is tried next, so no more than half of the room is given away.
    assert not too_large or (too_large[-1] + 1) // 2 > room / 2


def test_what_is_and_what_is_not_a_lack_of_memory() -> None:
    with pytest.raises(RuntimeError) as refused:
        torch.empty(MORE_THAN_ANY_MACHINE_HAS, dtype=torch.uint8)
    assert is_out_of_memory(refused.value)

    def wrong(part: list[int]) -> list[int]:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    too_large: list[int] = []
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        in_parts(wrong, [1, 2], too_large)
    assert too_large == []


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_and_splits(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize(
    ("script", "more"), [("generate", ["--max-new-tokens", "6"]), ("likelihood", [])]
)
def test_scripts_write_the_same_in_smaller_batches(
    data: Path, tmp_path: Path, script: str, more: list[str]
) -> None:
    more = [*more, "--engine", "transformers"]  # the lean engine's own tests are beside it
    run_script(script, data, tmp_path / "whole", *more)
    with room_for(2):
        run_script(script, data, tmp_path / "parts", *more)
    whole, parts = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("whole", "parts"))
    pd.testing.assert_frame_equal(parts, whole, rtol=1e-5)
    sizes = [
        json.loads((tmp_path / f"{name}.json").read_text())["too_large_batches"]
        for name in ("whole", "parts")
    ]
    assert sizes == [[], [3]]


def test_one_report_that_does_not_fit_is_one_sentence() -> None:
    def embed(part: list[int]) -> list[torch.Tensor]:
        return list(nn.Embedding(9, 2)(torch.tensor([[item] for item in part])))

    with room_for(0), pytest.raises(UserError, match="a single report does not fit into memory"):
        in_parts(embed, [1, 2, 3], [])


def test_the_report_says_so(tmp_path: Path) -> None:
    run = make_results(tmp_path / "results")
    change_record(run / "generations/w4a16/shard-2-of-2.json", too_large_batches=[20, 10])
    notes = cost_notes(summarize(collect(run, CONFIG)))
    warnings = [note for note in notes if "did not fit into memory" in note]
    assert [note.partition(" did")[0] for note in warnings] == ["**w4a16: batches of 10 and 20"]
    kernels = next(note for note in notes if note.startswith("Engine and kernel"))
    assert "original transformers, none; w4a16 transformers, reference; " in kernels


def test_memory_of_a_format_without_a_kernel_is_not_told(tmp_path: Path) -> None:
    run = make_results(tmp_path / "results")
    for number in (1, 2):
        change_record(run / f"generations/w4a16/shard-{number}-of-2.json", value_layers=14)
    weights = run / "checkpoints" / "awq-w4" / "model.safetensors"
    original = sum(path.stat().st_size for path in (run / "models/original").glob("*.safetensors"))
    weights.write_bytes(bytes(original + 1))
    summary = summarize(collect(run, CONFIG))
    notes = cost_notes(summary)
    told = next(note for note in notes if note.startswith("w4a16: there is no kernel here"))
    assert "as exactly the values that they stand for: quality" in told
    kernels = next(note for note in notes if note.startswith("Engine and kernel"))
    assert "; w4a16 transformers, none, as values; " in kernels
    summary["machine"]["dtype"] = "bfloat16"
    told = next(note for note in cost_notes(summary) if note.startswith("w4a16: there is no"))
    assert "as the values that they stand for, rounded to bfloat16: quality" in told
    assert [note for note in notes if "more than the original's" in note]
    row = summary["performance"]["systems"]["w4a16"]
    assert (row["weight_bytes"], row["ratios"]["weight_bytes"]) == (None, None)
    assert not any("of memory for its weights" in line for line in summary["verdict"])
