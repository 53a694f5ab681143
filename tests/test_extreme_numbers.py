"""Models of zeros and equal weights, of weights too large or too small, and of no numbers."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import tiny_llama, write_samples
from tiny_reports import random_prompts

from radquant.checkpoints.card import quality_lines
from radquant.checkpoints.loading import load
from radquant.errors import UserError
from radquant.files import write_json
from radquant.finite import first_not_finite, is_finite, relative, relative_change
from radquant.generation import transformers_writing
from radquant.packed import grid
from radquant.quantization.calibration_statistics import Inputs, place_of_broken
from radquant.quantization.hidden_states import Hidden
from radquant.quantization.job import Job
from radquant.quantization.quantizing import quantize
from radquant.settings.precision import STATIC, Activations
from radquant.settings.recipe import Recipe
from radquant.verification.checkpoints import refuse_broken, verify_checkpoint
from radquant.verification.distances import distance, linear_checks
from radquant.verification.reading import Linear

Tensors = dict[str, torch.Tensor]
LAYER = "model.layers.1"
PROJECTIONS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
PROJECTIONS += ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
STATIC_RANGES = Activations(bits=8, granularity="tensor", range=STATIC)
RECIPES = {
    "rtn": Recipe(method="rtn", bits=3, group_size=32),
    "rtn, symmetric": Recipe(method="rtn", bits=8, group_size=32, zero_point=False),
    "awq": Recipe(method="awq", bits=4, group_size=32, rounding="gptq"),
    "gptq in order of activation": Recipe(
        method="gptq", bits=4, group_size=32, rounding="gptq", desc_act=True
    ),
    "progressive": Recipe(
        method="awq",
        bits=4,
        group_size=32,
        progressive=True,
        smooth_attention=True,
        activations=Activations(bits=8),
    ),
    "rotated": Recipe(
        method="gptq",
        bits=4,
        group_size=32,
        rounding="gptq",
        transform="hadamard",
        activations=STATIC_RANGES,
    ),
}


def changed(directory: Path, change: Callable[[Tensors], object], **shape: object) -> Path:
    """A tiny model, or the checkpoint that is there, with other tensors."""
    if not directory.exists():
        tiny_llama(directory, **shape)
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    (directory / "quantization.json").unlink(missing_ok=True)  # it knows the file's hash
    return directory


def quantized(original: Path, recipe: Recipe) -> Path:
    output = original.with_name("checkpoint")
    quantize(Job(original, output, write_samples(original.parent), device="cpu"), recipe)
    return output


def zero_projections(tensors: Tensors) -> None:
    for name in PROJECTIONS:
        tensors[f"{LAYER}.{name}.weight"].zero_()


def zero_norms(tensors: Tensors) -> None:
    for name in ("input_layernorm", "post_attention_layernorm"):
        tensors[f"{LAYER}.{name}.weight"].zero_()


def zero_words(tensors: Tensors) -> None:
    tensors["model.embed_tokens.weight"].zero_()


def dead_channels(tensors: Tensors) -> None:
    tensors[f"{LAYER}.input_layernorm.weight"][:5] = 0
    tensors[f"{LAYER}.self_attn.v_proj.weight"][3] = 0
    tensors[f"{LAYER}.mlp.up_proj.weight"][:40] = 0
    tensors[f"{LAYER}.mlp.down_proj.weight"][:, :32] = 0  # whole groups


def equal_weights(tensors: Tensors) -> None:
    tensors[f"{LAYER}.self_attn.q_proj.weight"].fill_(-0.02)
    tensors[f"{LAYER}.self_attn.k_proj.weight"].fill_(0.02)
    tensors[f"{LAYER}.mlp.down_proj.weight"].fill_(0.03)


# Every change works with every recipe; each stands here with one that it was hard for.
@pytest.mark.parametrize(
    ("change", "recipe"),
    [
        (zero_projections, "rtn"),
        (zero_projections, "progressive"),
        (zero_norms, "rotated"),
        (zero_words, "awq"),
        (dead_channels, "gptq in order of activation"),
        (equal_weights, "rtn, symmetric"),
    ],
)
def test_zeros_and_equal_weights_are_sound_checkpoints(
    tmp_path: Path, change: Callable[[Tensors], None], recipe: str
) -> None:
    original = changed(tmp_path / "m", change)
    checkpoint = quantized(original, RECIPES[recipe])
    record = json.loads((checkpoint / "quantization.json").read_text(), parse_constant=pytest.fail)
    errors = [layer["weight_error"] for layer in record["layers"]]
    assert all(0 <= error < 0.5 for error in errors)
    if change is zero_projections:
        assert errors[-len(PROJECTIONS) :] == [0.0] * len(PROJECTIONS)
    assert "nan" not in (checkpoint / "README.md").read_text().lower()
    verification = verify_checkpoint(checkpoint, original, None, {}, torch.float32, (2, 16, 0))
    refuse_broken(verification.checks)


def test_an_error_of_nothing_is_told_as_it_is() -> None:
    assert relative(0, 0) == 0
    assert relative(1, 0) == math.inf
    assert math.isnan(relative(math.nan, 0)) or relative(math.nan, 0) == math.inf
    assert relative_change(torch.zeros(3), torch.zeros(3)) == 0
    assert relative_change(torch.full((2,), 3e30), torch.full((2,), 1e30)) == pytest.approx(2)
    record = {"name": "l", "weight_error": 0.0}  # of which no output's error is known
    assert len(quality_lines({"layers": [record]})) == 2


def test_zeros_are_no_fit_of_other_weights() -> None:
    weights = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    zeros = Linear(torch.zeros(8, 8), torch.full((8, 8), 0.1), 4)
    assert not all(check.holds for check in linear_checks(distance("l", zeros, weights)))
    assert all(check.holds for check in linear_checks(distance("l", zeros, torch.zeros(8, 8))))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("settings", [{}, {"zero_point": False}, {"progressive": True}])
def test_scales_that_float16_does_not_hold_are_refused(
    bits: int, settings: dict[str, bool]
) -> None:
    if settings.get("progressive") and bits != 4:
        return
    recipe = Recipe(method="rtn", bits=bits, group_size=32, **settings)
    weights = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
    with pytest.raises(UserError, match="takes a larger scale than float16 holds"):
        grid.quantize(weights * 1e9, recipe)
    tiny = weights * 1e-7
    with pytest.raises(UserError, match="too small"):
        grid.require_fine_enough(tiny, grid.quantize(tiny, recipe).dequantize(), recipe)
    for usual in (weights * 0.02, weights * torch.logspace(-12, 0, 32)[:, None], weights * 0):
        rounded = grid.quantize(usual, recipe).dequantize()
        assert is_finite(rounded)
        grid.require_fine_enough(usual, rounded, recipe)


@pytest.mark.parametrize("method", ["rtn", "gptq"])
def test_a_layer_without_a_scale_is_named(tmp_path: Path, method: str) -> None:
    original = changed(tmp_path / "m", lambda t: t[f"{LAYER}.mlp.up_proj.weight"].mul_(1e-7))
    recipe = Recipe(method=method, bits=4, group_size=32)
    with pytest.raises(UserError, match=rf"^{LAYER}\.mlp\.up_proj: its weights .* too small"):
        quantized(original, recipe)
    assert not (tmp_path / "checkpoint").exists()


@pytest.mark.parametrize("value", [math.nan, -math.inf])
@pytest.mark.parametrize(
    "name",
    [
        "model.embed_tokens.weight",
        f"{LAYER}.mlp.up_proj.weight",
        f"{LAYER}.self_attn.k_proj.bias",
        "model.norm.weight",
        "lm_head.weight",
    ],
)
def test_a_weight_that_is_no_number_is_named_with_its_place(
    tmp_path: Path, name: str, value: float
) -> None:
    """By what quantizes without a look at what it computes, and by what loads the model."""
    shape = {"attention_bias": True, "tie_word_embeddings": False}
    original = changed(tmp_path / "m", lambda t: t[name].view(-1)[7:8].fill_(value), **shape)
    place = r"\[0, 7\]" if "bias" not in name and "norm" not in name else r"\[7\]"
    said = rf"m/model\.safetensors: tensor {name} holds {value} at {place}; fetch the model"
    with pytest.raises(UserError, match=said):
        quantized(original, Recipe(method="rtn", bits=4, group_size=32))
    with pytest.raises(UserError, match=said):
        load(original)
    assert not (tmp_path / "checkpoint").exists()


def test_a_layer_of_zeros_is_sound_only_where_the_original_has_one(tmp_path: Path) -> None:
    """Other programs give it scales of their own, so that the file alone tells nothing."""
    name = f"{LAYER}.mlp.up_proj"
    zero = changed(tmp_path / "zero", lambda t: t[f"{name}.weight"].zero_())
    other, checkpoint = tiny_llama(tmp_path / "other"), tmp_path / "checkpoint"
    recipe = Recipe(method="rtn", bits=4, group_size=32)
    quantize(Job(zero, checkpoint, device="cpu"), recipe, "gemm")
    changed(checkpoint, lambda t: t[f"{name}.scales"].fill_(0.25))

    def broken(original: Path | None) -> set[str]:
        found = verify_checkpoint(checkpoint, original, None, {}, torch.float32, (2, 16, 0))
        return {check.name for check in found.checks if not check.holds}

    assert broken(zero) == set()
    assert broken(None) == {f"{name}: share of the integers' range unused"}
    assert f"{name}: weights" in broken(other)


def test_the_first_of_values_that_are_no_numbers_is_found() -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float8_e5m2):
        values = torch.ones(2, 3).to(dtype)
        assert is_finite(values)
        values.view(-1)[4] = math.inf
        assert not is_finite(values)
        assert first_not_finite(values) == "inf at [1, 1]"
    assert is_finite(torch.ones(2, dtype=torch.int32))
    assert is_finite(torch.ones(0))


@pytest.mark.parametrize("form", ["gemm", "gptq", "compressed-tensors"])
def test_a_scale_that_is_no_number_is_named(tmp_path: Path, form: str) -> None:
    checkpoint = tmp_path / "checkpoint"
    recipe = Recipe(method="rtn", bits=4, group_size=32)
    quantize(Job(tiny_llama(tmp_path / "m"), checkpoint, device="cpu"), recipe, form)
    name = f"{LAYER}.mlp.up_proj.{'weight_scale' if form == 'compressed-tensors' else 'scales'}"
    changed(checkpoint, lambda t: t[name][0, 1].fill_(math.nan))
    with pytest.raises(UserError, match=rf"tensor {name} holds nan at \[0, 1\]"):
        load(checkpoint)


def test_a_weight_that_overflows_in_the_dtype_of_the_run_is_named(tmp_path: Path) -> None:
    original = changed(tmp_path / "m", lambda t: t["model.norm.weight"][2:3].fill_(1e5))
    said = r"tensor model\.norm\.weight holds 1e\+05, which float16 cannot .*; use compute\.dtype"
    with pytest.raises(UserError, match=said):
        load(original, dtype=torch.float16)
    assert load(original, dtype=torch.bfloat16).weight_bytes


def test_float64_beyond_float32_is_named(tmp_path: Path) -> None:
    name, shape = f"{LAYER}.mlp.up_proj.weight", {"dtype": torch.float64}
    original = changed(tmp_path / "m", lambda t: t[name][0, 0].fill_(1e300), **shape)
    with pytest.raises(UserError, match=rf"tensor {name} holds 1e\+300, which float32 cannot"):
        quantized(original, RECIPES["rtn"])


def test_hugging_faces_code_writes_nothing_by_scores_that_are_no_numbers(tmp_path: Path) -> None:
    """The best of scores that are NaN would be the first token."""
    loaded = load(tiny_llama(tmp_path, tie_word_embeddings=False))
    made = random_prompts(2)
    (word, *_) = set(made[1].ids) - set(made[0].ids)
    config = transformers_writing.greedy_config(loaded.model, 3, [2], 0)
    written = transformers_writing.generate_batch(loaded.model, loaded.tokenizer, config, made)
    assert len(written) == 2
    loaded.model.get_input_embeddings().weight[word] = math.nan  # one report's alone
    with pytest.raises(UserError, match=f"scores for report {made[1].id} are not finite"):
        transformers_writing.generate_batch(loaded.model, loaded.tokenizer, config, made)


@pytest.mark.parametrize(
    ("record", "place"),
    [
        ({"layers": [{"error": 1.0}, {"error": math.nan}]}, r"layers\[1\]\.error"),
        ({"seconds": {"mean": -math.inf}}, r"seconds\.mean"),
        ([0, (1.0, math.inf)], r"\[1\]\[1\]"),
    ],
)
def test_a_record_is_not_written_with_a_number_that_is_none(
    tmp_path: Path, record: object, place: str
) -> None:
    with pytest.raises(UserError, match=rf"record\.json would hold .*, at {place}; look for"):
        write_json(tmp_path / "record.json", record)
    assert not list(tmp_path.iterdir())


def test_a_sample_is_named_by_its_number_behind_a_prefix(tmp_path: Path) -> None:
    """The prefix is run by itself before the samples, and is none of them."""
    hidden = Hidden(tmp_path / "in", (1, 3, 3), 4)
    states = torch.ones(7, 4)
    states[5, 2] = math.nan
    states.numpy().tofile(hidden.path)
    inputs = Inputs(hidden, [{}, {}, {}], 1, torch.device("cpu"))
    layer = torch.nn.ModuleDict({"q": torch.nn.Linear(4, 4)})
    layer.forward = layer["q"].__call__
    assert place_of_broken(layer, "q", inputs) == " (first in sample 2, token 2)"
