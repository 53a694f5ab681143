"""Settings that round alike are the same rounding, whatever stands in fields without effect."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny_models import store, tiny_llama, write_samples
from tiny_reports import model_and_splits, run_script

from radquant.checkpoints.loading import load
from radquant.errors import UserError
from radquant.files import read_json
from radquant.generation.lean_decoder import unsupported
from radquant.kernels import cpu
from radquant.kernels.choice import use_kernels
from radquant.reporting.checks import COMPUTED_AS, check_computed
from radquant.runtime.activations import quantize_activations
from radquant.runtime.kv_cache import quantize_states
from radquant.settings import configuration
from radquant.settings.precision import activations_of, as_values, kv_cache_of, same_rounding

REPOSITORY = Path(__file__).parents[1]
BITS, SIZES, SYMMETRIC = (4, 8), (16, 32), (True, False)
needs_kernels = pytest.mark.skipif(cpu.unavailable() is not None, reason=str(cpu.unavailable()))


def variants(*granularities: str) -> list[dict[str, Any]]:
    names = ("bits", "granularity", "group_size", "symmetric")
    every = itertools.product(BITS, granularities, SIZES, SYMMETRIC)
    return [dict(zip(names, values, strict=True)) for values in every]


def test_activations_are_the_same_if_they_round_alike() -> None:
    x = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(0))
    made = [activations_of(values) for values in variants("tensor", "token", "group")]
    rounded = [(each, quantize_activations(x, each)) for each in made if each]
    for (one, of_one), (other, of_other) in itertools.product(rounded, repeat=2):
        assert same_rounding(one, other) == torch.equal(of_one, of_other)


def test_caches_are_the_same_if_they_round_alike() -> None:
    x = torch.randn(2, 3, 5, 64, generator=torch.Generator().manual_seed(0))
    made = [kv_cache_of(values) for values in variants("token", "head", "group")]
    rounded = [(each, quantize_states(x, each)) for each in made if each]
    for (one, of_one), (other, of_other) in itertools.product(rounded, repeat=2):
        assert same_rounding(one, other) == torch.equal(of_one, of_other)


def test_what_else_makes_a_difference_and_what_does_not() -> None:
    plain = activations_of({"bits": 8})
    assert same_rounding(None, None)
    assert not same_rounding(plain, None)
    assert not same_rounding(plain, activations_of({"bits": 8, "clip_ratio": 0.9}))
    skips = (["o_proj", "down_proj"], ["down_proj", "o_proj"], ["down_proj"])
    first, turned, less = (activations_of({"bits": 8, "skip": skip}) for skip in skips)
    assert same_rounding(first, turned)
    assert not same_rounding(first, less)


TOKENS = {"bits": 8, "group_size": 128}  # of a group, and each token has one scale


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_and_splits(tmp_path_factory.mktemp("data"))


@needs_kernels
@pytest.mark.parametrize("engine", ["lean", "transformers"])
def test_a_group_size_without_groups_keeps_the_kernels(
    data: Path, tmp_path: Path, engine: str
) -> None:
    for name, values in (("with", TOKENS), ("without", {"bits": 8})):
        options = ("--engine", engine, "--activations", json.dumps(values), "--max-new-tokens", "6")
        run_script("generate", data, tmp_path / name, *options, model="checkpoint")
    found, plain = read_json(tmp_path / "with.json"), read_json(tmp_path / "without.json")
    assert (found["engine"], found["simulated"]) == (engine, False)
    assert found["kernel"] == plain["kernel"]
    tables = [(tmp_path / f"{name}.parquet").read_bytes() for name in ("with", "without")]
    assert tables[0] == tables[1]


@needs_kernels
def test_the_kernels_and_the_decoder_take_it(data: Path) -> None:
    rounding = activations_of(TOKENS)
    loaded = load(data / "checkpoint", rounding=rounding)
    assert unsupported(loaded, rounding) is None
    use_kernels(loaded)
    assert loaded.simulation is None


def test_static_ranges_of_a_whole_sequence_have_no_groups(tmp_path: Path) -> None:
    static = {"bits": 8, "granularity": "tensor", "range": "static"}
    original = tiny_llama(tmp_path / "original")
    options = ["--method", "rtn", "--activations", json.dumps(static)]
    options += ["--calibration", str(write_samples(tmp_path))]
    stored = store(original, tmp_path / "stored", *options)
    ids = torch.arange(12)[None]
    with torch.inference_mode():
        logits = [
            load(stored, rounding=activations_of(values)).model(ids).logits
            for values in (static, static | {"group_size": 32})
        ]
    assert torch.equal(*logits)
    with pytest.raises(UserError, match="no static ranges for these activations"):
        load(stored, rounding=activations_of(static | {"bits": 4}))


def test_the_configuration_takes_such_static_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    static = {"bits": 8, "granularity": "tensor", "range": "static"}
    given = yaml.safe_load((REPOSITORY / "config.yaml").read_text(encoding="utf-8"))
    given["checkpoints"] = {"c": {"method": "awq", "activations": static}}
    precision = {"checkpoint": "c", "activations": static | {"group_size": 32}}
    given["precisions"] = {"original": {"checkpoint": "original"}, "p": precision}
    configuration.resolve(given)
    precision["activations"]["granularity"] = "group"
    with pytest.raises(UserError, match="has range static, whose ranges are stored"):
        configuration.resolve(given)


def test_the_report_takes_records_that_mean_the_same() -> None:
    expected = dict.fromkeys(COMPUTED_AS) | {
        "activations": as_values(activations_of({"bits": 8})),
        "kv_cache": as_values(kv_cache_of({"bits": 4})),
    }
    record = expected | {
        "precision": "p",
        "activations": as_values(activations_of(TOKENS)),
        "kv_cache": as_values(kv_cache_of({"bits": 4, "group_size": 16})),
    }
    check_computed("p", {"shard 1": record}, expected)
    record["kv_cache"] = as_values(kv_cache_of({"bits": 4, "symmetric": True}))
    with pytest.raises(UserError, match="had a KV cache of 4 bits, per head, symmetric instead"):
        check_computed("p", {"shard 1": record}, expected)
