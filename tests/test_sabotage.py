"""Checkpoints that somebody has damaged are refused or called broken; sound ones are not."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import tiny_tools
import torch
from report_run import CONFIG, make_results
from safetensors.torch import load_file, save_file
from tiny_architectures import KNOWN, change_by_folding, tiny_model
from tiny_models import store, tiny_llama, write_samples
from tiny_tools import uneven_llama
from transformers import LlamaForCausalLM

from radquant.errors import UserError
from radquant.families.inspection import architecture_of
from radquant.files import read_json, write_json, write_table
from radquant.packed.formats import Settings
from radquant.packed.grid import QuantizedWeight
from radquant.quantization.gptq import quantize_gptq
from radquant.quantization.job import Job
from radquant.quantization.quantizing import quantize
from radquant.reporting.collect import collect
from radquant.reporting.method_sections import quantization_section
from radquant.reporting.summary import summarize
from radquant.settings.recipe import Recipe
from radquant.verification.checkpoints import record_of, verify_weights
from radquant.verification.distances import MOST_ROW_SHIFT, distance
from radquant.verification.folding import relative_error, which_factor, with_every_source
from radquant.verification.reading import Linear, bits_of_type, used_bits
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
    shutil.copytree(source, output, ignore=shutil.ignore_patterns(".*", "quantization.json"))
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


@pytest.mark.parametrize("linear", ["self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"])
def test_a_damaged_one_of_two_layers_that_share_scales(
    original: Path, scaled: Path, tmp_path: Path, linear: str
) -> None:
    """AWQ divides rows of the one and multiplies columns of the other; the sound one is not told.

    Half a scale more is no doubt; where both hold noise, neither is taken for the other's measure.
    """
    name = f"{LAYER}.{linear}"
    for number, change in enumerate((nibbles, doubled)):
        copy = changed(scaled, tmp_path / str(number), partial(change, name=name))
        assert broken(copy, original) == {name}


@pytest.mark.parametrize(
    "options",
    [("--bits", "3", "--desc-act"), ("--bits", "4"), ("--bits", "8", "--symmetric")],
    ids=["3", "4", "8"],
)
def test_weights_that_make_good_for_others_are_sound(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    """Fewer tokens than channels leave directions in which GPTQ may move weights anywhere."""
    whole = uneven_llama(tmp_path / "o")
    samples = str(tiny_tools.write_samples(tmp_path))
    made = store(whole, tmp_path / "c", "--method", "gptq", "--calibration", samples, *options)
    assert not broken(made, whole)


def test_three_bits_on_eight_tokens_are_no_rounding_to_nearest(
    original: Path, tmp_path: Path
) -> None:
    """Few weights are moved then, and some of them far."""
    samples = pd.DataFrame({"input_ids": [[5, 9, 4, 11, 7, 16, 3, 12]]})
    write_table(tmp_path / "samples.parquet", samples)
    options = ("--method", "gptq", "--bits", "3", "--desc-act")
    calibration = ("--calibration", str(tmp_path / "samples.parquet"))
    assert not broken(store(original, tmp_path / "c", *options, *calibration), original)


def gptq_layer() -> tuple[torch.Tensor, QuantizedWeight]:
    """A layer, and what GPTQ makes of it for inputs of fewer tokens than channels."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(96, 256, generator=generator)
    weight *= torch.randn(256, generator=generator).exp()
    inputs = torch.randn(100, 256, generator=generator)
    inputs *= torch.randn(256, generator=generator).exp()
    recipe = Recipe(method="gptq", bits=4, group_size=32)
    return weight, quantize_gptq(weight, inputs.T @ inputs, recipe)


def test_zero_points_of_a_row_that_are_off_under_gptq() -> None:
    """Among columns that differ much in size, and that it moves by steps."""
    weight, made = gptq_layer()
    step = made.scales.float().repeat_interleave(32, 1)
    for off, shifted in ((0, False), (1, True)):
        zeros = made.zeros.clone()
        zeros[7] += off
        damaged = Linear(replace(made, zeros=zeros).dequantize(), step, 4)
        one = distance("model.layers.0.q", damaged, weight)
        assert (one.row_shift > MOST_ROW_SHIFT) == shifted


@pytest.mark.parametrize("damaged", [0, 1])
def test_the_middle_of_factors_tells_which_of_two_layers_is_damaged(damaged: int) -> None:
    """Their mean does not: in a layer with many large scales it is far from other layers'."""
    generator = torch.Generator().manual_seed(0)
    rows, columns = torch.randn(2, 64, 64, generator=generator)
    factor = torch.linspace(-1, 1, 64).add(1).sqrt().mul(2).sub(2**0.5).exp()  # of AWQ's range
    assert float(factor.log().mean()) > 0.2
    sizes = [2.0 if each == damaged else 1.0 for each in range(2)]
    found, agreeing = which_factor(
        factor * sizes[0],
        factor / sizes[1],
        lambda each: relative_error(rows * factor[:, None] * sizes[0], rows * each[:, None]),
        lambda each: relative_error(columns / factor * sizes[1], columns / each),
        lambda: 1.0,
        0.0,
    )
    assert not agreeing
    assert torch.equal(found, factor)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rms_norm_eps": 1e-2}, r"rms_norm_eps: 0\.01, and the original's 1e-06"),
        ({"hidden_act": "gelu"}, r"hidden_act: gelu, and the original's silu"),
        (
            {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
            r"rope_parameters\.rope_theta: 500\.0, and the original's 10000\.0",
        ),
    ],
)
def test_another_configuration_is_refused(
    original: Path, rounded: Path, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    other = changed(rounded, tmp_path / "c", lambda _: None)
    write_json(other / "config.json", read_json(other / "config.json") | changes)
    with pytest.raises(UserError, match=said):
        verify_weights(other, original)


def test_another_tokenizer_is_refused(original: Path, rounded: Path, tmp_path: Path) -> None:
    other = changed(rounded, tmp_path / "c", lambda _: None)
    words = read_json(other / "tokenizer.json")
    ids = words["model"]["vocab"]
    ids["heart"], ids["lungs"] = ids["lungs"], ids["heart"]
    write_json(other / "tokenizer.json", words)
    with pytest.raises(UserError, match=r"differs from the original's in 2 of"):
        verify_weights(other, original)
    # The same tokenizer in other bytes is no other.
    ids["heart"], ids["lungs"] = ids["lungs"], ids["heart"]
    (other / "tokenizer.json").write_text(json.dumps(words, indent=3), encoding="utf-8")
    assert not broken(other, original)


STATIC = '{"type": "fp8", "bits": 8, "granularity": "tensor", "range": "static"}'


@pytest.fixture(scope="module")
def static(original: Path) -> Path:
    """FP8 weights and inputs, with fixed scales of inputs, and of keys and values in the cache."""
    samples = str(write_samples(original.parent))
    options = ("--method", "rtn", "--type", "fp8", "--group-size=-1", "--activations", STATIC)
    made = store(original, original.parent / "fp8", "--calibration", samples, *options)
    (made / "quantization.json").unlink()
    config = read_json(made / "config.json")
    config["quantization_config"]["kv_cache_scheme"] = {"num_bits": 8, "type": "float"}
    write_json(made / "config.json", config)
    tensors = load_file(made / "model.safetensors")
    model = LlamaForCausalLM.from_pretrained(original)
    with torch.inference_mode():
        states = model(torch.arange(17)[None], use_cache=True).past_key_values
    for number, layer in enumerate(states.layers):
        for kind, values in (("k", layer.keys), ("v", layer.values)):
            scale = values.abs().max().reshape(1) / 448
            tensors[f"model.layers.{number}.self_attn.{kind}_scale"] = scale
    save_file(tensors, made / "model.safetensors", {"format": "pt"})
    return made


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("self_attn.q_proj.input_scale", 10),
        ("mlp.down_proj.input_scale", 0.1),
        ("self_attn.k_scale", 0.1),
        ("self_attn.v_scale", 1e6),
    ],
)
def test_a_fixed_range_that_is_far_off(
    original: Path, static: Path, tmp_path: Path, name: str, factor: float
) -> None:
    def change(tensors: Tensors) -> None:
        tensors[f"{LAYER}.{name}"] *= factor

    assert not broken(static, original)
    layer = name.rpartition(".")[0] if "input" in name else name.replace("_scale", "_proj")
    assert broken(changed(static, tmp_path / "c", change), original) == {f"{LAYER}.{layer}"}


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_fixed_range_that_is_none(
    original: Path, static: Path, tmp_path: Path, value: float
) -> None:
    for number, name in enumerate(("mlp.up_proj.input_scale", "self_attn.k_scale")):

        def change(tensors: Tensors, name: str = name) -> None:
            tensors[f"{LAYER}.{name}"].fill_(value)

        copy = changed(static, tmp_path / str(number), change)
        with pytest.raises(UserError, match=name.rpartition(".")[2]):
            verify_weights(copy, original)


def test_bits_of_numbers_that_are_stored_in_more() -> None:
    """torchao's integers of 4 bits lie in bytes, and llama.cpp's minima take no bit of a weight."""
    settings = Settings("torchao", 8, -1, symmetric=False)
    for bits in (2, 3, 4, 8):
        numbers = torch.arange(-(2 ** (bits - 1)), 2 ** (bits - 1)).to(torch.int8)
        assert used_bits({"_weight_qdata": numbers}, settings) == bits
    types = {"Q5_1": 5, "Q4_1": 4, "Q4_K": 4, "IQ4_XS": 4, "Q2_K": 2, "Q8_0": 8, "MXFP4": 4}
    assert {name: bits_of_type(name) for name in types} == types


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
