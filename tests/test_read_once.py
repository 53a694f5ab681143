"""Prompts that are read once, to write and to score: bits are those of each stage by itself."""

import json
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from test_lean_engine import MODELS, NumberTokenizer, as_loaded, make_model, random_ids
from tiny_reports import model_and_splits, prompt_of, run_script

from radquant.errors import UserError
from radquant.files import write_json
from radquant.generation import batching, lean_likelihood, lean_steps, lean_writing
from radquant.generation.joined_likelihood import join, joined
from radquant.generation.lean_decoder import take_over
from radquant.generation.lean_rows import LeanDecoder
from radquant.kernels import cpu
from radquant.prompts import Prompt
from radquant.runtime.runtime_file import StoredPrefix
from radquant.settings.precision import Activations, KVCache

pytestmark = pytest.mark.skipif(cpu.unavailable() is not None, reason=str(cpu.unavailable()))
ENDS = lean_writing.Settings(7, frozenset([2]))


def prompts_with_references() -> list[Prompt]:
    """Shorter and longer than a page of the cache, some with a reference of one token."""
    lengths = [5, 70, 64, 33, 12, 127, 9, 40]
    return [
        prompt_of(random_ids(9, 0) + random_ids(length, n), f"r{n}", random_ids(1 + n * 3, n + 50))
        for n, length in enumerate(lengths)
    ]


def check_read_once(
    lean: LeanDecoder, made: list[Prompt], shared: list[int], stored: StoredPrefix | None = None
) -> None:
    for size in (1, 3, len(made)):
        lean_steps.begin(lean, shared, 200, stored)
        alone = lean_writing.generate(lean, NumberTokenizer(), made, ENDS, size)
        nats, _ = lean_likelihood.answer_nll(lean, made, size)
        lean_steps.begin(lean, shared, 200, stored)
        both = lean_writing.generate(lean, NumberTokenizer(), made, ENDS, size, scores=True)
        assert both.outputs == alone.outputs
        assert both.scored is not None
        assert both.scored.nats == nats
        assert both.scored.wall_seconds > 0
        assert both.scored.cpu_seconds > 0
        assert min(both.seconds) > 0
        assert len({output.text for output in both.outputs}) > 1


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("bits", [None, 4])
@pytest.mark.parametrize("shared", [False, True])
def test_outputs_and_likelihoods_are_those_of_each_by_itself(
    name: str, bits: int | None, shared: bool
) -> None:
    lean = take_over(as_loaded(make_model(name, bits)), None)
    made = prompts_with_references()
    check_read_once(lean, made, batching.shared_prefix(made) if shared else [])


@pytest.mark.parametrize(
    ("rounding", "cache"),
    [
        (Activations(bits=8), None),
        (Activations(bits=4, granularity="group", group_size=32), None),
        (None, KVCache(bits=8)),
        (Activations(bits=8), KVCache(bits=4)),
    ],
)
def test_so_they_are_where_activations_or_the_cache_are_rounded(
    rounding: Activations | None, cache: KVCache | None
) -> None:
    loaded = as_loaded(make_model("llama", 4))
    loaded.kv_cache = cache
    lean = take_over(loaded, rounding)
    made = prompts_with_references()
    check_read_once(lean, made, batching.shared_prefix(made))


def test_so_they_are_behind_a_stored_prefix() -> None:
    lean = take_over(as_loaded(make_model("llama")), None)
    heads, dim = lean.config.num_key_value_heads, lean.config.head_dim
    generator = torch.Generator().manual_seed(5)
    states = [
        [torch.randn(1, heads, 4, dim, generator=generator) for _ in range(2)] for _ in range(2)
    ]
    stored = StoredPrefix([1, 7, 8, 9], *states)
    made = [prompt_of([1, 7, 8, 9, *p.ids], p.id, p.answer_ids) for p in prompts_with_references()]
    check_read_once(lean, made, [], stored)


# ------------------------------------------------------------------------------------ the scripts


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_and_splits(tmp_path_factory.mktemp("data"))


def record_of(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
    return found


def both(data: Path, out: Path, shard: int, *options: str, model: str = "checkpoint") -> None:
    """A shard's outputs, `out`-shard.parquet, and likelihoods, `out`-likelihood-shard.parquet."""
    scored = f"{out}-likelihood-{shard}"
    asked = ["--likelihood", f"{scored}.parquet", "--likelihood-metrics", f"{scored}.json"]
    place = out.with_name(f"{out.name}-{shard}")
    run_script("generate", data, place, "--shard", str(shard), *asked, *options, model=model)


def join_by_script(data: Path, shards: list[Path], out: Path) -> None:
    import runpy
    import sys
    from unittest import mock

    command = ["join_likelihood.py", "--eval", str(data / "eval.csv"), "--shards"]
    command += [*map(str, shards), "--output", f"{out}.parquet", "--metrics", f"{out}.json"]
    scripts = Path(__file__).parents[1] / "scripts"
    with mock.patch.object(sys, "argv", command):
        runpy.run_path(str(scripts / "join_likelihood.py"), run_name="__main__")


# Prompts that are cut differently, or share a scale with what follows, are read twice.
TENSOR = ("--activations", '{"bits": 8, "granularity": "tensor"}')
CUT = ("--max-new-tokens", "90")


@pytest.mark.parametrize(
    ("options", "read_once"),
    [
        (("--engine", "lean"), True),
        (("--engine", "lean", "--activations", '{"bits": 8}'), True),
        (("--engine", "lean", *TENSOR), False),
        (("--engine", "lean", *CUT), False),
        (("--engine", "transformers"), False),
        (("--engine", "transformers", *CUT), False),
    ],
)
@pytest.mark.parametrize("shards", [1, 4])
def test_files_are_those_of_two_scripts(
    data: Path, tmp_path: Path, options: tuple[str, ...], read_once: bool, shards: int
) -> None:
    few = ("--examples", "1", *options, *(() if CUT[0] in options else ("--max-new-tokens", "6")))
    writing = (*few, "--shards", str(shards))
    places = range(1, shards + 1)
    for shard in places:
        both(data, tmp_path / "both", shard, *writing)
        alone = tmp_path / f"alone-{shard}"
        run_script("generate", data, alone, "--shard", str(shard), *writing, model="checkpoint")
        assert (tmp_path / f"both-{shard}.parquet").read_bytes() == alone.with_name(
            f"alone-{shard}.parquet"
        ).read_bytes()
    scoring = [each for each in few if each not in CUT and each not in ("--max-new-tokens", "6")]
    run_script("likelihood", data, tmp_path / "l", *scoring, model="checkpoint")
    tables = [tmp_path / f"both-likelihood-{shard}.parquet" for shard in places]
    join_by_script(data, tables, tmp_path / "joined")
    assert (tmp_path / "joined.parquet").read_bytes() == (tmp_path / "l.parquet").read_bytes()

    found, alone = record_of(tmp_path / "joined"), record_of(tmp_path / "l")
    costs = {"wall_seconds", "cpu_seconds", "load_seconds", "peak_process_bytes"}
    counted = "counted_with_writing"
    own = {counted, "shared_prefix_tokens"} if CUT[0] in options else {counted}
    assert {k: v for k, v in found.items() if k not in costs | own} == {
        k: v for k, v in alone.items() if k not in costs | own
    }
    assert found[counted] == (["loading", "prompts"] if read_once else ["loading"])
    assert alone[counted] == []
    assert (found["load_seconds"], alone["load_seconds"] > 0) == (0, True)
    written = [record_of(tmp_path / f"both-{shard}") for shard in places]
    assert all(record["load_seconds"] > 0 for record in written)
    assert found["cpu_seconds"] > 0
    assert sum(record["prompt_tokens"] for record in written) > 0
    cut = sum(record["truncated_prompts"] for record in written)
    assert (cut > 0) == (CUT[0] in options)


def test_a_shard_may_have_nothing_to_do(data: Path, tmp_path: Path) -> None:
    few = ("--examples", "0", "--max-new-tokens", "4", "--shards", "5")
    for shard in range(1, 6):  # 10 reports are 4 batches of 3
        both(data, tmp_path / "x", shard, *few)
    assert len(pd.read_parquet(tmp_path / "x-likelihood-5.parquet")) == 0
    tables = [tmp_path / f"x-likelihood-{shard}.parquet" for shard in range(1, 6)]
    run_script("likelihood", data, tmp_path / "l", "--examples", "0", model="checkpoint")
    join_by_script(data, tables, tmp_path / "joined")
    assert (tmp_path / "joined.parquet").read_bytes() == (tmp_path / "l.parquet").read_bytes()


def test_what_does_not_belong_together_is_not_joined(data: Path, tmp_path: Path) -> None:
    for shard in (1, 2):
        both(data, tmp_path / "x", shard, "--examples=0", "--max-new-tokens=2", "--shards=2")
    tables = [tmp_path / f"x-likelihood-{shard}.parquet" for shard in (1, 2)]
    records = [path.with_suffix(".json") for path in tables]
    evaluation = data / "eval.csv"
    out = tmp_path / "out.parquet"
    for shards, count in (([tables[0], tables[0]], 12), ([*tables, tables[0]], 16)):
        with pytest.raises(UserError, match=f"are of {count} reports, not each of the 10"):
            join(shards, evaluation, out)
    assert not out.exists()
    tables[0].write_bytes(b"")
    with pytest.raises(UserError, match="was changed after it was written"):
        join(tables[:1], evaluation, out)
    record = record_of(tables[0])
    write_json(records[0], {**record, "dtype": "bfloat16"})
    with pytest.raises(UserError, match=r"x-likelihood-2\.json differ in dtype"):
        joined(records)
    write_json(records[0], {**record, "device_name": "another", "cpu_seconds": 5.0})
    whole = joined(records)
    assert whole["device_name"] == " and ".join(sorted({"another", record["device_name"]}))
    assert whole["cpu_seconds"] == 5.0 + record_of(tables[1])["cpu_seconds"]


def test_one_of_the_two_options_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run_script("generate", data, tmp_path / "x", "--likelihood", str(tmp_path / "l.parquet"))
    assert "go together" in capsys.readouterr().err


def test_no_second_is_counted_twice() -> None:
    lean = take_over(as_loaded(make_model("llama")), None)
    made = prompts_with_references()
    lean_steps.begin(lean, [], 200)
    started = time.perf_counter()
    found = lean_writing.generate(lean, NumberTokenizer(), made, ENDS, 3, scores=True)
    elapsed = time.perf_counter() - started
    assert found.scored is not None
    counted = found.pace.prefill_seconds + found.pace.decode_seconds + found.scored.wall_seconds
    assert counted < elapsed
    # One row after the other: their seconds are those of the whole but for the references'.
    found = lean_writing.generate(lean, NumberTokenizer(), made, ENDS, 1, scores=True)
    assert found.scored is not None
    assert sum(found.seconds) >= found.pace.prefill_seconds + found.pace.decode_seconds
