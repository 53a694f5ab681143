"""Checkpoints that somebody has damaged are refused or called broken; sound ones are not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from report_run import CONFIG, make_results
from safetensors.torch import load_file, save_file
from tiny_architectures import KNOWN, change_by_folding, tiny_model
from tiny_models import store, tiny_llama, write_samples

from radquant.errors import UserError
from radquant.families.inspection import architecture_of
from radquant.files import read_json, write_json
from radquant.quantization.job import Job
from radquant.quantization.quantizing import quantize
from radquant.reporting.collect import collect
from radquant.reporting.method_sections import quantization_section
from radquant.reporting.summary import summarize
from radquant.settings.recipe import Recipe
from radquant.verification.checkpoints import record_of, verify_weights
from radquant.verification.folding import with_every_source
from radquant.verification.selftest import Check

LAYER = "model.layers.1"
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("sabotage") / "original", num_hidden_layers=4)


@pytest.fixture(scope="module")
def rounded(original: Path) -> Path:
    return store(original, original.parent / "rtn", "--method", "rtn")


@pytest.fixture(scope="module")
def scaled(original: Path) -> Path:
    samples = str(write_samples(original.parent))
    return store(original, original.parent / "awq", "--method", "awq", "--calibration", samples)


def changed(source: Path, output: Path, change: Callable[[Tensors], None]) -> Path:
    """A copy of a checkpoint with other tensors, and no record of its files."""
    shutil.copytree(source, output)
    (output / "quantization.json").unlink()
    tensors = {name: each.clone() for name, each in load_file(output / "model.safetensors").items()}
    change(tensors)
    save_file(tensors, output / "model.safetensors", {"format": "pt"})
    return output


def broken(checkpoint: Path, original: Path) -> set[str]:
    """The parts that are called broken."""
    checks = verify_weights(checkpoint, original).checks
    return {check.name.rpartition(": ")[0] for check in checks if not check.holds}


def fields(words: torch.Tensor) -> torch.Tensor:
    return ((words[..., None] >> (torch.arange(8) * 4)) & 15).long()


def packed(values: torch.Tensor) -> torch.Tensor:
    return (values << (torch.arange(8) * 4)).sum(-1).to(torch.int32)


def nibbles(tensors: Tensors, name: str) -> None:
    words = fields(tensors[f"{name}.qweight"])
    tensors[f"{name}.qweight"] = packed(words[..., [1, 0, 3, 2, 5, 4, 7, 6]])


def zeros(tensors: Tensors, name: str) -> None:
    tensors[f"{name}.qzeros"] = packed((fields(tensors[f"{name}.qzeros"]) + 1).clamp(max=15))


def zeros_of_a_row(tensors: Tensors, name: str) -> None:
    words = tensors[f"{name}.qzeros"]
    words[:, 2] = packed((fields(words[:, 2]) + 1).clamp(max=15))


def doubled(tensors: Tensors, name: str) -> None:
    tensors[f"{name}.scales"] *= 2


def doubled_row(tensors: Tensors, name: str) -> None:
    tensors[f"{name}.scales"][:, 3] *= 2


def a_tenth_more(tensors: Tensors, name: str) -> None:
    tensors[f"{name}.scales"] *= 1.1


def flipped_word(tensors: Tensors, name: str) -> None:
    tensors[f"{name}.qweight"][7, 3] ^= -1


def swapped_rows(tensors: Tensors, name: str) -> None:
    words = tensors[f"{name}.qweight"]
    words[:, [0, 2]] = words[:, [2, 0]]


def swapped_columns(tensors: Tensors, name: str) -> None:
    words = tensors[f"{name}.qweight"]
    words[[1, 5]] = words[[5, 1]]


def of_another_layer(tensors: Tensors, name: str) -> None:
    for suffix in ("qweight", "scales", "qzeros"):
        other = name.replace("layers.1", "layers.3")
        tensors[f"{name}.{suffix}"] = tensors[f"{other}.{suffix}"].clone()


@pytest.mark.parametrize(
    ("change", "linear"),
    [
        (nibbles, "mlp.up_proj"),
        (zeros, "self_attn.o_proj"),
        (zeros_of_a_row, "mlp.down_proj"),
        *((doubled, f"self_attn.{each}_proj") for each in "qkvo"),
        (doubled, "mlp.down_proj"),
        (doubled_row, "self_attn.o_proj"),
        (a_tenth_more, "mlp.gate_proj"),
        (flipped_word, "mlp.gate_proj"),
        (swapped_rows, "self_attn.q_proj"),
        (swapped_columns, "mlp.gate_proj"),
        (of_another_layer, "mlp.up_proj"),
    ],
)
def test_a_damaged_layer_is_named(
    original: Path,
    rounded: Path,
    tmp_path: Path,
    change: Callable[[Tensors, str], None],
    linear: str,
) -> None:
    name = f"{LAYER}.{linear}"
    found = broken(changed(rounded, tmp_path / "c", lambda each: change(each, name)), original)
    assert found == {name}


@pytest.mark.parametrize(
    ("name", "amount"),
    [(f"{LAYER}.input_layernorm", 1.1), ("model.norm", 0.9), ("model.embed_tokens", 1.05)],
)
def test_what_is_not_packed_is_compared_too(
    original: Path, rounded: Path, tmp_path: Path, name: str, amount: float
) -> None:
    def change(tensors: Tensors) -> None:
        tensors[f"{name}.weight"] *= amount

    found = broken(changed(rounded, tmp_path / "c", change), original)
    assert {each.removesuffix(".weight") for each in found} == {name}


def test_one_channel_of_a_norm(original: Path, rounded: Path, tmp_path: Path) -> None:
    def change(tensors: Tensors) -> None:
        tensors[f"{LAYER}.input_layernorm.weight"][3] *= 1.1

    assert broken(changed(rounded, tmp_path / "c", change), original) == {
        f"{LAYER}.input_layernorm"
    }


@pytest.mark.parametrize("change", [nibbles, zeros, doubled, of_another_layer])
def test_a_damaged_layer_among_scaled_ones(
    original: Path, scaled: Path, tmp_path: Path, change: Callable[[Tensors, str], None]
) -> None:
    name = f"{LAYER}.mlp.gate_proj"
    assert not broken(scaled, original)
    found = broken(changed(scaled, tmp_path / "c", lambda each: change(each, name)), original)
    assert found == {name}


def saved(model: object, folder: Path, tokenizer: Path) -> Path:
    model.save_pretrained(folder)  # type: ignore[attr-defined]
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tokenizer / name, folder / name)
    return folder


@pytest.mark.parametrize("kind", KNOWN)
def test_scales_folded_wherever_they_can_be_are_sound(
    original: Path, tmp_path: Path, kind: str
) -> None:
    """As other tools fold them, too; divided by the norm's weight without its 1, they are not."""
    model = tiny_model(kind)
    whole = saved(model, tmp_path / "o", original)
    change_by_folding(model, with_every_source(architecture_of(model.config, model)), torch.float32)
    folded = saved(model, tmp_path / "f", original)
    recipe = Recipe(method="rtn", bits=4, group_size=32)
    quantize(Job(folded, tmp_path / "c", None, None, "cpu", 1, False), recipe)
    assert not broken(tmp_path / "c", whole)
    if not kind.startswith("gemma"):
        return

    def without_the_one(tensors: Tensors) -> None:
        name = next(each for each in tensors if each.endswith("1.input_layernorm.weight"))
        before = next(
            each.load() for own, each in _stored(whole).items() if own.endswith(name[-30:])
        )
        scale = (1 + before) / (1 + tensors[name])
        tensors[name] = before / scale

    found = broken(changed(tmp_path / "c", tmp_path / "w", without_the_one), whole)
    assert found
    assert all(".layers.1." in each for each in found)


def _stored(folder: Path) -> dict[str, object]:
    from radquant.model_files import stored_tensors

    return dict(stored_tensors(folder))


def dense(tensors: Tensors, layers: tuple[str, ...]) -> None:
    for name in layers:
        for suffix in ("qweight", "qzeros"):
            del tensors[f"{name}.{suffix}"]
        width = 128 if "down" in name else 64
        tensors[f"{name}.weight"] = torch.zeros(tensors.pop(f"{name}.scales").shape[1], width)


@pytest.mark.parametrize("numbers", [(1,), (0, 1, 2, 3)])
def test_a_layer_that_is_claimed_to_be_quantized(
    original: Path, rounded: Path, tmp_path: Path, numbers: tuple[int, ...]
) -> None:
    """One of its kind, and all of it."""
    layers = tuple(f"model.layers.{number}.self_attn.q_proj" for number in numbers)
    checkpoint = changed(rounded, tmp_path / "c", lambda each: dense(each, layers))
    with pytest.raises(UserError, match=rf"does not say that {layers[0]} is not quantized"):
        verify_weights(checkpoint, original)


def test_another_group_size_and_a_truncated_file_are_refused(
    original: Path, rounded: Path, tmp_path: Path
) -> None:
    other = changed(rounded, tmp_path / "c", lambda _: None)
    config = read_json(other / "config.json")
    config["quantization_config"]["group_size"] = 64
    write_json(other / "config.json", config)
    with pytest.raises(UserError, match=r"cannot be read: its qzeros has shape"):
        verify_weights(other, original)
    weights = changed(rounded, tmp_path / "t", lambda _: None) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"is no whole safetensors file"):
        verify_weights(weights.parent, original)


def test_a_checkpoint_of_another_model_is_refused(rounded: Path, tmp_path: Path) -> None:
    other = tiny_llama(tmp_path / "o", num_hidden_layers=4, intermediate_size=96)
    with pytest.raises(UserError, match=r"is no checkpoint of .*: model\.layers\.0\.mlp\."):
        verify_weights(rounded, other)


def test_the_verdict_calls_a_broken_checkpoint_broken(tmp_path: Path) -> None:
    results = make_results(tmp_path / "results")
    found = {
        "notes": ["gemm"],
        "checks": 3,
        "worst": [],
        "broken": [{"layer": "l.1", "what": "size of its weights", "measured": 1.0, "bound": 0.03}],
    }
    for name in CONFIG["checkpoints"]:
        write_json(
            results / "verification" / f"{name}.json",
            found | ({} if name == "rtn-w4" else {"broken": []}),
        )
    summary = summarize(collect(results, CONFIG))
    sentence = "W4a16-rtn is broken: l.1 of its checkpoint cannot have been made of the original."
    assert sentence in summary["verdict"]
    rows = summary["quality"]["differences"][summary["quality"]["settings"]["primary"]]
    assert rows["w4a16-rtn"]["state"] == "unfit"
    written = quantization_section(summary)
    assert "**rtn-w4 is broken:** l.1: size of its weights is 1, at most 0.03." in written
    assert "awq-w4: all 3 checks of its weights against the original's hold." in written


def test_a_record_holds_no_number_that_is_none() -> None:
    from radquant.verification.checkpoints import Verification

    checks = [Check("a: weights", float("nan"), 1.0), Check("b: weights", 0.5, float("inf"))]
    record = json.loads(json.dumps(record_of(Verification([], checks)), allow_nan=False))
    assert record["broken"] == [{"layer": "a", "what": "weights", "measured": None, "bound": 1.0}]
