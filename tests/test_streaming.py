"""Reading and writing weights a part at a time, and going on after a kill."""

import gc
import json
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_models import (
    TINY_OPTIONS,
    quantize_after_a_kill,
    quantize_tiny,
    tiny_llama,
    token_samples,
    token_sequences,
    write_samples,
)
from transformers import AutoModelForCausalLM
from workflow_helpers import local_modules

from radquant.checkpoints.streaming import give_back, join_tensors
from radquant.errors import UserError
from radquant.families.inspection import decoder_layers
from radquant.files import sha256_file
from radquant.model_files import read_header, stored_tensors
from radquant.packed.formats import format_for
from radquant.quantization import layerwise, resuming
from radquant.quantization.calibration_statistics import InputStatistics
from radquant.quantization.hidden_states import Hidden, append, embed, first_inputs
from radquant.quantization.original_model import open_original
from radquant.settings.recipe import Recipe

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")
AWQ = Recipe(method="awq", bits=4, group_size=32)
LAYERS = 12  # enough for a kill to come before the last


def test_joined_tensors_are_the_files_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    first = {"a": torch.randn(3, 5), "b": torch.arange(7, dtype=torch.int32), "e": torch.empty(0)}
    second = {"c": torch.randn(4).bfloat16(), "d": torch.arange(3, dtype=torch.uint8)}
    save_file(first, tmp_path / "1.safetensors")
    save_file(second, tmp_path / "2.safetensors", {"format": "pt"})
    where = {name: "1.safetensors" for name in first} | {name: "2.safetensors" for name in second}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    join_tensors(tmp_path / "joined.safetensors", stored_tensors(tmp_path))
    joined = load_file(tmp_path / "joined.safetensors")
    assert joined.keys() == first.keys() | second.keys()
    assert all(torch.equal(joined[name], tensor) for name, tensor in (first | second).items())


def test_what_is_no_safetensors_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\x05\0\0\0\0\0\0\0hello")
    with pytest.raises(UserError, match=r"model\.safetensors is no whole safetensors file"):
        read_header(tmp_path / "model.safetensors")


def test_layers_one_at_a_time_compute_what_the_model_computes(tmp_path: Path) -> None:
    """Hidden states before each layer, against transformers' own of the whole model."""
    original = tiny_llama(tmp_path / "m", num_hidden_layers=3)
    sequences = [*token_sequences(2, 9), *token_sequences(1, 5)]
    recipe = Recipe(method="gptq", bits=4, group_size=32, rounding="gptq")
    source, form = open_original(original), format_for(recipe)
    whole = AutoModelForCausalLM.from_pretrained(original)
    width = whole.config.hidden_size
    states = [Hidden(tmp_path / str(n), (9, 9, 5), width) for n in range(4)]
    arguments = embed(source, token_samples(sequences), states[0], CPU)
    work = layerwise.Work(source, source.architecture, recipe, form, None, 0, CPU)
    for number in range(3):
        layerwise.quantize_layer(work, number, states[number : number + 2], arguments)
    for index, sequence in enumerate(sequences):
        with torch.inference_mode():
            expected = whole(sequence[None], output_hidden_states=True).hidden_states
        for number in range(3):
            found = states[number].read(index, CPU)
            torch.testing.assert_close(found, expected[number], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "recipe", [AWQ, Recipe(method="gptq", bits=4, group_size=32)], ids=["awq", "gptq"]
)
def test_a_finished_layer_leaves_memory_at_once(tmp_path: Path, recipe: Recipe) -> None:
    """Without waiting for Python to look for cycles, which it does by objects, not by gigabytes."""
    tiny_llama(tmp_path / "model", num_hidden_layers=4)
    source = open_original(tmp_path / "model")
    gc.collect()
    gc.disable()
    try:
        layers = [weakref.ref(each) for each in decoder_layers(source.model, source.architecture)]
        (tmp_path / "work").mkdir()
        form = format_for(recipe, None)
        layerwise.quantize_model(
            source, tmp_path / "work", recipe, form, token_samples(token_sequences(3, 8)), CPU
        )
        assert [layer() for layer in layers] == [None] * 4
        large = [each for each in gc.get_objects() if type(each) is InputStatistics]
        assert not large
    finally:
        gc.enable()


def test_arguments_that_depend_on_the_text_are_refused(tmp_path: Path) -> None:
    class Decoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.Embedding(9, 4)
            self.layers = torch.nn.ModuleList([torch.nn.Linear(4, 4)])

        def get_input_embeddings(self) -> torch.nn.Module:
            return self.embed

        def forward(self, inputs_embeds: torch.Tensor, use_cache: bool) -> torch.Tensor:
            return self.layers[0](inputs_embeds, mean=inputs_embeds.mean())

    decoder = Decoder()
    hidden = Hidden(tmp_path / "hidden", (3, 3), 4)
    sequences = token_samples([torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6])])
    with pytest.raises(UserError, match="depend on the text"):
        first_inputs(decoder, decoder.layers, sequences, hidden, CPU)


def test_hidden_states_come_back(tmp_path: Path) -> None:
    hidden = Hidden(tmp_path / "hidden", (2, 3), 4)
    parts = [torch.randn(1, length, 4) for length in hidden.lengths]
    with hidden.writing() as file:
        for part in parts:
            append(file, part)
    read = [hidden.read(number, CPU) for number in range(len(parts))]
    assert all(map(torch.equal, read, parts))


@pytest.mark.slow
def test_a_killed_quantization_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    """SIGKILL as soon as the second of many layers is finished, then the same command again."""
    original = tiny_llama(tmp_path / "o", num_hidden_layers=LAYERS)
    expected = quantize_tiny(original, tmp_path) / "model.safetensors"
    output = tmp_path / "again"
    options = [*TINY_OPTIONS, "--calibration", str(write_samples(tmp_path))]
    quantize_after_a_kill(original, output, LAYERS, *options)
    assert (output / "model.safetensors").read_bytes() == expected.read_bytes()


def test_other_work_is_not_gone_on_with(tmp_path: Path) -> None:
    original = tiny_llama(tmp_path / "o")
    sequences = token_samples(token_sequences(2, 8))
    prints = [
        resuming.fingerprint_of(original, *different)
        for different in (
            (sequences, AWQ, "gemm", CPU),
            (sequences[:1], AWQ, "gemm", CPU),
            (sequences, Recipe(method="awq", bits=8, group_size=32), "gemm", CPU),
            (sequences, AWQ, "gptq", CPU),
        )
    ]
    for fingerprint in prints:
        assert resuming.prepare(tmp_path / "work", fingerprint) == 0
        resuming.finish_layer(tmp_path / "work", 0, {"a": torch.zeros(1)}, {}, {})
        assert resuming.prepare(tmp_path / "work", fingerprint) == 1


def test_work_is_known_by_its_code_its_packages_and_the_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of scripts/quantize.py's code, and what decides the last bits of a product."""
    original = tiny_llama(tmp_path / "o")

    def fingerprint() -> dict[str, Any]:
        samples = token_samples(token_sequences(2, 8))
        return resuming.fingerprint_of(original, samples, AWQ, "gemm", CPU)

    found = fingerprint()
    assert found["transformers"] == transformers.__version__
    assert found["torch"] == torch.__version__
    assert found["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert local_modules(ROOT / "scripts/quantize.py") == set(found["code"])
    assert found["code"]["scripts/quantize.py"] == sha256_file(ROOT / "scripts/quantize.py")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert fingerprint() != found


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_an_error_of_the_statistics_names_the_linear_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Under AWQ, GPTQ's factorization fails in the search of the scale already."""
    original = tiny_llama(tmp_path / "m", num_hidden_layers=2)
    recipe = Recipe(method=method, bits=4, group_size=32, rounding="gptq")
    collect = layerwise.collect_statistics

    def broken(*arguments: Any, **options: Any) -> list[InputStatistics]:
        statistics = collect(*arguments, **options)
        statistics[2].gram[3, 3] = torch.inf
        return statistics

    monkeypatch.setattr(layerwise, "collect_statistics", broken)
    work = tmp_path / "work"
    work.mkdir()
    source = open_original(original)
    with pytest.raises(UserError, match=r"^model\.layers\.0\.mlp\.gate_proj: .*infinities"):
        layerwise.quantize_model(
            source, work, recipe, format_for(recipe), token_samples(token_sequences(2, 9)), CPU
        )


def anonymous_bytes() -> int:
    """What this process holds in memory that is of no file."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    found = next(line for line in status.splitlines() if line.startswith("RssAnon"))
    return int(found.split()[1]) * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="it is glibc that keeps memory")
def test_what_was_freed_between_small_tensors_goes_back_to_the_system() -> None:
    def mebibytes(count: int) -> torch.Tensor:
        return torch.zeros(count << 20, dtype=torch.uint8)

    first = mebibytes(30)
    del first  # from now on glibc keeps tensors of this size
    give_back()
    before, kept = anonymous_bytes(), []
    layers = []
    for _ in range(16):
        layers.append(mebibytes(10).fill_(1))
        kept.append(torch.ones(1 << 12))
    del layers
    give_back()
    assert anonymous_bytes() - before < 20 << 20
    assert len(kept) == 16
