"""Bits that differ between layers: how they are chosen, stored, read, recorded and refused."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from tiny_models import store, tiny_llama, token_samples, token_sequences, write_samples
from transformers import AutoModelForCausalLM

from radquant.checkpoints.loading import load
from radquant.errors import UserError
from radquant.export.source import open_source
from radquant.files import read_json
from radquant.generation.vllm_limits import check_checkpoint
from radquant.packed.formats import config_for, format_for, settings_for, settings_of
from radquant.packed.formats.mixtures import layers_in_words, patterns
from radquant.packed.linear import PackedLinear
from radquant.quantization import hidden_states, sensitivity
from radquant.quantization.mixing import Unit, allocate
from radquant.quantization.original_model import open_original
from radquant.settings.checkpoint import Checkpoint
from radquant.settings.options import words
from radquant.settings.recipe import (
    Recipe,
    bits_in_words,
    candidates,
    recipe_of,
    recipe_values,
    with_bits,
)
from radquant.settings.stages import QUANTIZE
from radquant.settings.tool_limits import check_tool_recipe

CPU = torch.device("cpu")
MIXED = recipe_of({"method": "gptq", "group_size": 32, "bits": {"average": 4}})
LAYERS = [f"model.layers.{n}.self_attn.{name}_proj" for n in range(12) for name in "qkvo"]


UNITS = st.lists(
    st.builds(
        lambda weights, saved: Unit(
            (),
            (3 * weights, 4 * weights, 8 * weights),
            (sum(saved), sum(saved[:2]), saved[0]),
        ),
        st.integers(1, 5),
        st.tuples(*[st.floats(0, 10)] * 3),
    ),
    min_size=1,
    max_size=5,
)


def total(units: list[Unit], chosen: Any) -> float:
    return sum(unit.moved[each] for unit, each in zip(units, chosen, strict=True))


def size(units: list[Unit], chosen: Any) -> int:
    return sum(unit.sizes[each] for unit, each in zip(units, chosen, strict=True))


@settings(max_examples=60, deadline=None)
@given(UNITS, st.floats(0, 1))
def test_no_mixture_of_that_size_is_better_by_more_than_a_step(
    units: list[Unit], share: float
) -> None:
    """Beside all mixtures there are, within what one unit's steps save: the last step that the
    best would take in part."""
    least, most = (size(units, [end] * len(units)) for end in (0, 2))
    largest = least + share * (most - least)
    chosen = allocate(units, largest)
    assert size(units, chosen) <= largest
    every = itertools.product(range(3), repeat=len(units))
    best = min(total(units, bits) for bits in every if size(units, bits) <= largest)
    step = max(unit.moved[0] - unit.moved[2] for unit in units)
    assert best - 1e-9 <= total(units, chosen) <= best + step + 1e-9


def test_bits_go_where_one_more_saves_most() -> None:
    """In the last unit 4 bits lie above the line from 3 to 8: it goes straight to 8."""
    sizes = (300, 400, 800)
    units = [
        Unit(("a",), sizes, (9.0, 3.0, 0.0)),
        Unit(("b",), sizes, (1.0, 0.9, 0.8)),
        Unit(("c",), sizes, (50.0, 49.0, 0.0)),
    ]
    assert allocate(units, 900) == [0, 0, 0]
    assert allocate(units, 1000) == [1, 0, 0]
    assert allocate(units, 1500) == [1, 0, 2]
    assert allocate(units, 2400) == [2, 2, 2]


def test_gradients_are_those_of_the_whole_model(tmp_path: Path) -> None:
    """Layer by layer from files, against one pass through the model that transformers loads."""
    original, sequences = tiny_llama(tmp_path / "m"), token_samples(token_sequences(3, 20))

    def open_source() -> Any:
        return open_original(original)

    found = sensitivity.look(open_source, sequences, tmp_path, CPU)
    model = AutoModelForCausalLM.from_pretrained(original, dtype=torch.float32)
    last = model.model.layers[-1].mlp.down_proj
    outputs: list[torch.Tensor] = []
    last.register_forward_hook(lambda _, args, output: outputs.append(output))
    draw, expected = torch.Generator().manual_seed(sensitivity.SEED), []
    for sample in found.samples:
        logits = model(input_ids=sample.ids[None]).logits[0]
        drawn = torch.multinomial(logits.detach().softmax(-1), 1, generator=draw)[:, 0]
        loss = torch.nn.functional.cross_entropy(logits, drawn, reduction="sum")
        hidden = model.model.layers[0].self_attn.q_proj.weight
        expected.append(torch.autograd.grad(loss, [outputs[-1], hidden]))
    source = open_source()
    arguments = hidden_states.embed(source, sequences, found.states[0], CPU)
    for number, name in ((1, "mlp.down_proj"), (0, "self_attn.q_proj")):
        layer = sensitivity.filled(source, number, CPU)
        seen = sensitivity.see(layer, source.architecture, number, found, arguments, CPU)[name]
        if name == "mlp.down_proj":
            whole = torch.cat([of_output[0] for of_output, _ in expected])
            torch.testing.assert_close(seen.gradients, whole, rtol=1e-4, atol=1e-6)
        else:
            whole = sum(of_weight for _, of_weight in expected)
            torch.testing.assert_close(seen.gradients.T @ seen.inputs, whole, rtol=1e-4, atol=1e-5)


def test_the_divergence_is_about_what_an_error_moves(tmp_path: Path) -> None:
    """The sum over a model's tokens of KL(p ‖ p̂), measured, with one layer's weights changed."""
    original, sequences = tiny_llama(tmp_path / "m"), token_samples(token_sequences(24, 40))
    found = sensitivity.look(lambda: open_original(original), sequences, tmp_path, CPU)
    source = open_original(original)
    arguments = hidden_states.embed(source, sequences, found.states[0], CPU)
    layer = sensitivity.filled(source, 1, CPU)
    seen = sensitivity.see(layer, source.architecture, 1, found, arguments, CPU)["mlp.down_proj"]
    model = AutoModelForCausalLM.from_pretrained(original, dtype=torch.float32)
    weight = model.model.layers[1].mlp.down_proj.weight
    delta = 0.1 * weight.detach().std() * torch.randn(weight.shape, generator=torch.manual_seed(0))
    with torch.inference_mode():
        ids = torch.stack([sample.ids for sample in found.samples])
        before = model(input_ids=ids).logits.log_softmax(-1)
        weight += delta
        after = model(input_ids=ids).logits.log_softmax(-1)
    moved = float((before.exp() * (before - after)).sum())
    assert seen.divergence(delta) == pytest.approx(moved, rel=0.25)


def bits_in(checkpoint: Path) -> dict[str, int]:
    """The bits of each linear layer, as the record says."""
    return {
        each["name"]: each["bits"] for each in read_json(checkpoint / "quantization.json")["layers"]
    }


def check_record(checkpoint: Path, asked: float) -> dict[str, Any]:
    """The record of a mixture says that layers which engines fuse are alike.

    It also says that the files are no larger than layers of so many bits would be.
    """
    record = read_json(checkpoint / "quantization.json")
    assert record["recipe"]["bits"] == {"average": asked}
    of = {each["name"]: (each["bits"], each["group_size"]) for each in record["layers"]}
    for number in range(2):
        within = f"model.layers.{number}"
        assert len({of[f"{within}.self_attn.{each}_proj"] for each in "qkv"}) == 1
        assert len({of[f"{within}.mlp.{each}_proj"] for each in ("gate", "up")}) == 1
    tensors = load_file(checkpoint / "model.safetensors")
    suffixes = ("packed", "scale", "zero_point", "qweight", "qzeros", "scales")
    packed = [each for name, each in tensors.items() if name.endswith(suffixes)]
    stored = 8 * sum(each.numel() * each.element_size() for each in packed)
    weights = sum(each["in_features"] * each["out_features"] for each in record["layers"])
    assert record["bits"]["average"] <= asked
    assert stored / weights <= asked + (16 + asked) / record["recipe"]["group_size"]
    assert record["bits"]["stored"] == pytest.approx(stored / weights, rel=1e-3)
    return dict(record)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixed")
    write_samples(folder)
    return tiny_llama(folder / "original", intermediate_size=128)


def mixed(tiny: Path, output: Path, average: float, *options: str) -> Path:
    bits = json.dumps({"average": average})
    samples = tiny.parent / "samples.parquet"
    given = ["--bits", bits, "--group-size", "64", "--calibration", str(samples)]
    return store(tiny, output, *given, *options)


@pytest.fixture(scope="module")
def awq(tiny: Path) -> Path:
    return mixed(tiny, tiny.parent / "awq", 4.5)


@pytest.fixture(scope="module")
def gptq(tiny: Path) -> Path:
    return mixed(tiny, tiny.parent / "gptq", 4, "--method", "gptq")


def test_what_is_stored_is_read_layer_by_layer(awq: Path, gptq: Path) -> None:
    for checkpoint, asked, able in ((awq, 4.5, {4, 8}), (gptq, 4, {3, 4, 8})):
        record = check_record(checkpoint, asked)
        assert {*bits_in(checkpoint).values()} == able
        loaded = load(checkpoint)
        assert loaded.layers_quantized == 14
        for name, layer in loaded.model.named_modules():
            if isinstance(layer, PackedLinear):
                assert layer.bits == max(4, bits_in(checkpoint)[name])
        card = (checkpoint / "README.md").read_text(encoding="utf-8")
        assert f"bits: {record['bits']['average']:.3g} on average" in card
        for line in layers_in_words(record["layers"]):
            assert line in card


def test_compressed_tensors_own_code_reads_the_same(awq: Path) -> None:
    """Its own matching of names, under our name of a layer and under one that vLLM fuses, and its
    own unpacking of the integers."""
    from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32
    from compressed_tensors.quantization import QuantizationConfig
    from compressed_tensors.utils.match import match_targets

    config = read_json(awq / "config.json")["quantization_config"]
    groups = QuantizationConfig.model_validate(config).config_groups
    assert len(groups) > 1
    targets = {each: group for group in groups.values() for each in group.targets}
    linear, model = torch.nn.Linear(2, 2), load(awq).model
    tensors = load_file(awq / "model.safetensors")
    fused = {"q_proj": "qkv_proj", "gate_proj": "gate_up_proj"}
    for name, bits in bits_in(awq).items():
        parent, _, last = name.rpartition(".")
        for called in (name, f"language_model.{name}", f"{parent}.{fused.get(last, last)}"):
            (target,) = match_targets(called, linear, list(targets))
            assert targets[target].weights.num_bits == bits
        stored = {key: tensors[f"{name}.weight_{key}"] for key in ("packed", "scale", "zero_point")}
        shape = torch.Size(tensors[f"{name}.weight_shape"].tolist())
        values = unpack_from_int32(stored["packed"], bits, shape).float()
        zeros = unpack_from_int32(
            stored["zero_point"], bits, torch.Size(stored["scale"].shape), packed_dim=0
        )
        size = shape[1] // stored["scale"].shape[1]
        groups_of_row = values.unflatten(-1, (-1, size)) - zeros.float()[..., None]
        weight = (groups_of_row * stored["scale"].float()[..., None]).flatten(-2)
        assert torch.equal(model.get_submodule(name).dequantize().T, weight)


def test_overrides_are_matched_as_gptqmodel_and_vllm_do(gptq: Path) -> None:
    """Their loop over `dynamic`, in which a name's beginning counts; vLLM asks for fused names."""
    config = read_json(gptq / "config.json")["quantization_config"]
    for name, bits in bits_in(gptq).items():
        for called in (name, re.sub("q_proj$", "qkv_proj", name)):
            found = next(
                (
                    said["bits"]
                    for pattern, said in config["dynamic"].items()
                    if not pattern.startswith("-:") and re.match(pattern.removeprefix("+:"), called)
                ),
                config["bits"],
            )
            assert found == bits


@pytest.mark.parametrize("which", [["0.self_attn.q_proj"], ["1.mlp.up_proj", "11.mlp.up_proj"]])
def test_patterns_match_their_layers_and_no_others(which: list[str]) -> None:
    named = {f"model.layers.{each}" for each in which}
    others = {
        f"model.layers.{n}.{k}" for n in range(112) for k in ("self_attn.q_proj", "mlp.up_proj")
    }
    for name in (others | named) | {f"model.layers.{n}.xmlp.up_proj" for n in range(12)}:
        assert any(re.match(each, name) for each in patterns(named)) == (name in named)


def test_the_least_average_is_the_uniform_checkpoint(tiny: Path, tmp_path: Path) -> None:
    same = ["--method", "gptq", "--format", "compressed-tensors"]
    least = mixed(tiny, tmp_path / "least", 4, *same)
    samples = str(tiny.parent / "samples.parquet")
    whole = store(tiny, tmp_path / "whole", "--group-size", "64", "--calibration", samples, *same)
    one, other = (load_file(each / "model.safetensors") for each in (least, whole))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("killed_at", ["measured-0001.json", "layer-0001.json"])
def test_a_killed_run_goes_on_and_ends_the_same(
    tiny: Path, awq: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: str
) -> None:
    import radquant.files

    write = radquant.files.write_json

    class Killed(BaseException):
        pass

    def write_or_die(path: Path, values: Any) -> None:
        if Path(path).name == killed_at:
            raise Killed
        write(path, values)

    for module in ("mixing", "resuming"):
        monkeypatch.setattr(f"radquant.quantization.{module}.write_json", write_or_die)
    with pytest.raises(Killed):
        mixed(tiny, tmp_path / "c", 4.5)
    monkeypatch.undo()
    looked: list[Any] = []
    monkeypatch.setattr(sensitivity, "forward", lambda *_: looked.append(1))
    finished = mixed(tiny, tmp_path / "c", 4.5)
    assert not looked
    for name in ("model.safetensors", "config.json"):
        assert (finished / name).read_bytes() == (awq / name).read_bytes()
    assert not (tmp_path / ".c.work").exists()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"bits": {"average": 9}}, "bits.average is 9.* at most 8"),
        ({"bits": {"average": 2.5}}, "bits.average is 2.5 .* at least 3"),
        ({"bits": {"mean": 4.5}}, "bits.mean is not a known key; .*average"),
        ({"bits": {}}, "bits.average is missing"),
        ({"bits": 7}, "bits is 7, which is not allowed"),
        ({"bits": {"average": "many"}}, "bits.average must be of type number"),
        ({"bits": {"average": 3.5}}, "3.5 needs layers of 3 bits, .* use method gptq"),
        ({"bits": {"average": 4.5}, "progressive": True}, "does not go with progressive"),
        ({"bits": {"average": 4.5}, "transform": "hadamard"}, "go with transform hadamard"),
        ({"bits": {"average": 4.5}, "prefix": "auto"}, "go with prefix auto"),
        ({"bits": {"average": 4.5}, "activations": {"bits": 8}}, "fitted to activations"),
        ({"bits": {"average": 4.5}, "type": "mxfp4", "group_size": 32}, "type mxfp4 has bits 4"),
    ],
)
def test_what_no_mixture_goes_with_gets_a_sentence(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        recipe_of({"group_size": 32, **values})


def test_formats_that_say_bits_once_are_refused() -> None:
    with pytest.raises(UserError, match=r"gemm cannot hold bits that differ .* compressed-tensors"):
        format_for(recipe_of({"bits": {"average": 4.5}}), "gemm")
    low = recipe_of({"method": "gptq", "bits": {"average": 3.5}})
    assert format_for(low).NAME == "gptq"
    with pytest.raises(UserError, match=r"have at least 4 bits, .* average is to be 3.5"):
        format_for(low, "compressed-tensors")
    assert format_for(recipe_of({"bits": {"average": 4.5}})).NAME == "compressed-tensors"


@pytest.mark.parametrize(("tool", "method"), [("autoawq", "awq"), ("gptqmodel", "gptq")])
def test_other_packages_have_no_mixtures(tool: str, method: str) -> None:
    mixed_recipe = recipe_of({"method": method, "bits": {"average": 4.5}})
    with pytest.raises(UserError, match="cannot do bits that differ between layers"):
        check_tool_recipe(tool, mixed_recipe)


def test_smaller_groups_are_bits_too() -> None:
    """Of 8 bits none is worth it, and whole rows stay whole."""
    able = candidates(recipe_of({"bits": {"average": 4.25}, "group_size": 128}), (4, 8))
    assert [(each.bits, each.group_size) for each in able] == [(4, 128), (4, 32), (4, 64), (8, 128)]
    rows = candidates(recipe_of({"bits": {"average": 4.25}, "group_size": -1}), (4, 8))
    assert [(each.bits, each.group_size) for each in rows] == [(4, -1), (8, -1)]


def test_the_command_line_takes_an_average() -> None:
    checkpoint = Checkpoint.model_validate({"bits": {"average": 4.25}, "group_size": 32})
    assert "'--bits={\"average\": 4.25}'" in words({"checkpoint": checkpoint}, QUANTIZE[:1])
    assert recipe_values(checkpoint)["bits"] == {"average": 4.25}
    assert bits_in_words(recipe_values(checkpoint)) == "4.25 on average"
    assert Recipe.model_validate({"bits": "4"}).bits == 4


def test_servers_and_exports_say_which_bits_they_lack(awq: Path, gptq: Path) -> None:
    with pytest.raises(UserError, match="vLLM cannot multiply by 8-bit weights on a CPU"):
        check_checkpoint(awq, "bfloat16", on_cpu=True)
    check_checkpoint(awq, "bfloat16", on_cpu=False)
    with pytest.raises(UserError, match="vLLM cannot read 3 bits in format gptq"):
        check_checkpoint(gptq, "bfloat16", on_cpu=False)
    form = format_for(MIXED)
    assert settings_for(MIXED, form).all_bits == (3, 4, 8)
    with pytest.raises(UserError, match="layers of 4 and 8 bits, and S takes one number of bits"):
        open_source(awq, "modelopt", "S")


def test_left_out_modules_stay_left_out() -> None:
    recipe = recipe_of({"method": "gptq", "bits": {"average": 4}, "zero_point": False})
    bits = {name: (8 if "o_proj" in name else 3) for name in LAYERS}
    for form in ("gptq", "compressed-tensors"):
        chosen = format_for(recipe, form)
        one = {name: max(each, min(chosen.BITS[1:])) for name, each in bits.items()}
        recipes = {name: with_bits(recipe, each, 64) for name, each in one.items()}
        found = settings_of(config_for(recipe, chosen, ["vision_tower", "lm_head"], recipes))
        assert any(re.match(each, "model.vision_tower.layers.3.fc") for each in found.left_out)
        for name, each in one.items():
            own = found.of(name)
            assert own is not None
            assert (own.bits, own.group_size) == (each, 64)
