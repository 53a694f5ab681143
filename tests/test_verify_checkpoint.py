"""scripts/verify_checkpoint.py: sound checkpoints pass, and each kind of damage is found."""

import json
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_models import SCRIPTS, store, tiny_llama, write_samples

from radquant.errors import UserError
from radquant.files import write_json
from radquant.packed import packing
from radquant.packed.formats import compressed_tensors, gptq
from radquant.packed.grid import QuantizedWeight
from radquant.quantization import outliers
from radquant.quantization.rotation import SIGN_SEED
from radquant.runtime import hadamard
from radquant.runtime.hadamard import rotate
from radquant.runtime.runtime_file import FILE
from radquant.settings.precision import Activations
from radquant.settings.recipe import Recipe
from radquant.verification import selftest
from radquant.verification.checkpoints import layers_path, table_of


def verify(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Run the script: its exit status, output and error."""
    command = ["verify_checkpoint.py", *map(str, arguments)]
    capsys.readouterr()
    status = 0
    with mock.patch.object(sys, "argv", command):
        try:
            runpy.run_path(str(SCRIPTS / "verify_checkpoint.py"), run_name="__main__")
        except SystemExit as end:
            status = int(str(end.code))
    written = capsys.readouterr()
    return status, written.out, written.err


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny") / "original")


@pytest.fixture(scope="module")
def in_gptq(original: Path) -> Path:
    return store(
        original, original.parent / "gptq", "--method", "rtn", "--symmetric", "--format", "gptq"
    )


@pytest.fixture
def loose(in_gptq: Path, tmp_path: Path) -> Path:
    shutil.copytree(in_gptq, tmp_path / "loose")
    (tmp_path / "loose" / "quantization.json").unlink()
    return tmp_path / "loose"


def test_packing_agrees_with_closed_forms(capsys: pytest.CaptureFixture[str]) -> None:
    status, written, _ = verify(capsys, "--synthetic")
    assert status == 0
    assert "gptq 3 bits symmetric" in written
    assert "8-bit activations, beside padding" in written


def swap_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(packing.ORDER, 4, (0, 1, 2, 3, 4, 5, 6, 7))


def forget_the_one(monkeypatch: pytest.MonkeyPatch) -> None:
    pack = gptq.pack

    def second_version(weight: QuantizedWeight, recipe: Recipe) -> dict[str, torch.Tensor]:
        method, bits, group_size = recipe.method, recipe.bits, recipe.group_size
        return pack(weight, Recipe(method=method, bits=bits, group_size=group_size))

    monkeypatch.setattr(gptq, "pack", second_version)


def big_endian(monkeypatch: pytest.MonkeyPatch) -> None:
    pack = compressed_tensors.pack

    def backwards(weight: QuantizedWeight, recipe: Recipe) -> dict[str, torch.Tensor]:
        turned = QuantizedWeight(weight.integers.flip(-1), weight.scales, weight.zeros.flip(0))
        return pack(turned, recipe)

    monkeypatch.setattr(compressed_tensors, "pack", backwards)


@pytest.mark.parametrize(
    ("mistake", "said"),
    [(swap_order, "gemm 4 bits"), (forget_the_one, "gptq"), (big_endian, "compressed-tensors")],
)
def test_a_mistake_in_packing_is_found(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    mistake: Callable[[pytest.MonkeyPatch], None],
    said: str,
) -> None:
    """The first is one that packing and unpacking share, so that a round trip would hide it."""
    mistake(monkeypatch)
    status, written, error = verify(capsys, "--synthetic")
    assert status == 1
    assert "BROKEN" in written
    assert said in error


def test_a_mistake_in_activations_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_scale_for_all(
        x: torch.Tensor, settings: Activations, *others: object, **named: object
    ) -> torch.Tensor:
        scale = x.abs().max() / (2 ** (settings.bits - 1) - 1)
        return (x / scale).round() * scale

    monkeypatch.setattr(selftest, "quantize_activations", one_scale_for_all)
    assert not all(check.holds for check in selftest.activation_checks())


@pytest.mark.parametrize(
    "options",
    [
        ("--method", "awq"),
        ("--method", "gptq", "--bits", "3", "--desc-act"),
        ("--method", "awq", "--rounding", "gptq", "--format", "compressed-tensors"),
        ("--method", "rtn", "--bits", "8", "--format", "compressed-tensors"),
    ],
)
def test_a_sound_checkpoint(
    capsys: pytest.CaptureFixture[str], original: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    samples = write_samples(tmp_path)
    checkpoint = store(original, tmp_path / "checkpoint", *options, "--calibration", str(samples))
    status, written, error = verify(
        capsys, checkpoint, "--original", original, "--samples", samples, "--count", 2
    )
    assert status == 0, error
    assert "14 packed layers" in written
    assert "the sha256 of every file is the one recorded" in written
    rows = [line.split() for line in written.splitlines() if line.startswith("model.layers.1 ")]
    assert len(rows) == 1
    assert all(0 < float(value) < 1 for value in rows[0][1:])


def test_bounds_can_be_given(
    capsys: pytest.CaptureFixture[str], original: Path, in_gptq: Path
) -> None:
    for option, what in (
        ("--max-weight-error", "weights"),
        ("--max-layer-error", "output"),
        ("--max-divergence", "divergence"),
    ):
        status, _, error = verify(capsys, in_gptq, "--original", original, option, "1e-9")
        assert status == 1
        assert what in error.splitlines()[-1]
        assert "more than 1e-09" in error


def rewrite(directory: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})


LAYER = "model.layers.1.mlp.up_proj"


def negative_scale(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{LAYER}.scales"][0, 0] *= -1


def moved_zero(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{LAYER}.qzeros"] += 0x11111111


def empty_weights(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{LAYER}.qweight"].zero_()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (negative_scale, "scales that are not positive numbers is 1"),
        (moved_zero, f"layer {LAYER} cannot be read: its zeros are not in the middle"),
        (empty_weights, f"error: {LAYER}: share of the integers' range unused is 1"),
    ],
)
def test_damage_is_found_without_the_original(
    capsys: pytest.CaptureFixture[str],
    loose: Path,
    change: Callable[[dict[str, torch.Tensor]], None],
    said: str,
) -> None:
    rewrite(loose, change)
    status, written, error = verify(capsys, loose)
    assert status == 1
    assert said in error
    assert "cannot be read" in said or "no record of hashes" in written


def test_zeros_off_by_one_are_found(
    capsys: pytest.CaptureFixture[str], original: Path, loose: Path
) -> None:
    """The mistake of taking one version of the GPTQ format for the other."""
    config = json.loads((loose / "config.json").read_text())
    config["quantization_config"] |= {"checkpoint_format": "gptq_v2", "sym": False}
    write_json(loose / "config.json", config)
    assert verify(capsys, loose)[0] == 0  # nothing in the file itself tells
    status, written, _ = verify(capsys, loose, "--original", original)
    assert status == 1
    assert "output" in "".join(line for line in written.splitlines() if "BROKEN" in line)


def test_exchanged_layers_are_found(
    capsys: pytest.CaptureFixture[str], original: Path, loose: Path
) -> None:
    def exchange(tensors: dict[str, torch.Tensor]) -> None:
        names = [f"{LAYER}.{suffix}" for suffix in ("qweight", "scales")]
        for name in names:
            other = name.replace("up_proj", "gate_proj")
            tensors[name], tensors[other] = tensors[other], tensors[name]

    rewrite(loose, exchange)
    status, _, error = verify(capsys, loose, "--original", original)
    assert status == 1
    assert "error: model.layers.1.mlp.gate_proj: weights" in error


def test_a_changed_file_and_an_original_are_refused(
    capsys: pytest.CaptureFixture[str], original: Path, in_gptq: Path, tmp_path: Path
) -> None:
    shutil.copytree(in_gptq, tmp_path / "changed")
    with (tmp_path / "changed" / "README.md").open("a") as card:
        card.write("more")
    status, _, error = verify(capsys, tmp_path / "changed")
    assert status == 1
    assert "README.md was changed" in error
    status, _, error = verify(capsys, original)
    assert status == 1
    assert "holds no packed layer" in error


def test_a_gguf_file_is_told_how_it_is_checked(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    status, _, error = verify(capsys, tmp_path / "m.gguf")
    assert status == 1
    assert "python scripts/take_checkpoint.py" in error
    assert "makes a folder of it" in error


def test_a_checkpoint_of_which_nothing_is_measured() -> None:
    """As one of GGUF without its original."""
    assert table_of([]) == "nothing was measured"


def test_the_list_of_decoder_layers() -> None:
    assert layers_path(["a.layers.0.q", "a.layers.11.mlp.0.up"]) == "a.layers"
    for names in (["a.layers.0.q", "b.layers.0.q"], ["a.layers.0.q", "lm_head"], ["lm_head"]):
        with pytest.raises(UserError, match="do not all lie in one list"):
            layers_path(names)


def test_many_broken_checks_are_counted() -> None:
    checks = [selftest.Check(f"{number}: weights", 1.0, 0.5) for number in range(30)]
    written = table_of(checks)
    assert written.count("BROKEN") == 11
    assert "and 19 more that are broken" in written


# --------------------------------------------------------------------------- rotated checkpoints

RANGES = '{"bits": 8, "granularity": "tensor", "range": "static", "symmetric": false}'


def store_rotated(original: Path, output: Path, *options: str) -> Path:
    samples = write_samples(output.parent, 1)
    return store(
        original, output, "--transform", "hadamard", "--calibration", str(samples), *options
    )


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        ("--method", "rtn", "--bits", "8"),
        ("--method", "awq", "--smooth-attention"),
        ("--method", "gptq", "--format", "compressed-tensors"),
        ("--method", "awq", "--prefix", "auto", "--activations", RANGES),
    ],
    ids=["rtn", "awq", "gptq", "all"],
)
def test_a_sound_rotated_checkpoint(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    options: tuple[str, ...],
    tied: bool,
) -> None:
    monkeypatch.setattr(outliers, "find_prefix", lambda *_: [7, 1])
    folder = tiny_llama(
        tmp_path / "o",
        attention_bias=True,
        tie_word_embeddings=tied,
        hidden_size=96,
        intermediate_size=160,
        num_key_value_heads=4,
    )
    checkpoint = store_rotated(folder, tmp_path / "c", *options)
    status, written, error = verify(capsys, checkpoint, "--original", folder)
    assert status == 0, error + written
    assert "rotated: compared with the original rotated in the same way" in written
    assert ("static ranges: layers without" in written) == ("--activations" in options)
    assert ("prefix: states of another shape" in written) == ("--prefix" in options)


@pytest.fixture(scope="module")
def turned(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("turned")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outliers, "find_prefix", lambda *_: [7, 1])
        options = ("--method", "rtn", "--prefix", "auto", "--activations", RANGES)
        checkpoint = store_rotated(original, folder / "checkpoint", *options)
    (checkpoint / "quantization.json").unlink()
    return checkpoint


@pytest.mark.parametrize("method", ["awq", "gptq"])
@pytest.mark.parametrize("bits", [4, 8])
def test_fitted_weights_have_bounds_of_their_own(
    capsys: pytest.CaptureFixture[str], original: Path, tmp_path: Path, method: str, bits: int
) -> None:
    """They are further from the original's than rounding in 8 bits would leave them."""
    samples = str(write_samples(tmp_path))
    options = ("--method", method, "--bits", "8", "--calibration", samples)
    values = json.dumps({"bits": bits})
    checkpoint = store(original, tmp_path / "c", *options, "--activations", values)
    status, written, error = verify(capsys, checkpoint, "--original", original)
    assert status == 0, error
    (checkpoint / "quantization.json").unlink()  # which says that they are fitted
    status, written, _ = verify(capsys, checkpoint, "--original", original)
    assert "at most 0.06" in written
    assert status == 1 or bits == 8


def other_words(tensors: dict[str, torch.Tensor]) -> None:
    """AWQ's words read in plain order."""
    shifts = torch.tensor([0, 4, 1, 5, 2, 6, 3, 7]) * 4
    words = tensors[f"{LAYER}.qweight"]
    fields = (words[..., None] >> shifts) & 15
    shuffled = (fields.long() << (torch.arange(8) * 4)).sum(-1)
    tensors[f"{LAYER}.qweight"] = shuffled.to(torch.int32)


def zeros_off(tensors: dict[str, torch.Tensor]) -> None:
    """By one, everywhere."""
    for name in [name for name in tensors if name.endswith(".qzeros")]:
        fields = ((tensors[name][..., None] >> (torch.arange(8) * 4)) & 15).long()
        moved = (fields + 1).clamp(max=15)
        tensors[name] = (moved << (torch.arange(8) * 4)).sum(-1).to(torch.int32)


def other_signs(tensors: dict[str, torch.Tensor]) -> None:
    """An embedding for another residual stream than the layers'."""
    words = tensors["model.embed_tokens.weight"]
    right, wrong = (hadamard.signs(64, SIGN_SEED + n) for n in (0, 1))
    tensors["model.embed_tokens.weight"] = rotate(rotate(words, True, right), False, wrong)


def straight_head(tensors: dict[str, torch.Tensor]) -> None:
    head = tensors["lm_head.weight"]
    tensors["lm_head.weight"] = rotate(head, True, hadamard.signs(64, SIGN_SEED))


@pytest.mark.parametrize("change", [other_words, zeros_off, other_signs, straight_head])
def test_a_broken_rotated_checkpoint(
    capsys: pytest.CaptureFixture[str],
    original: Path,
    turned: Path,
    tmp_path: Path,
    change: Callable[[dict[str, torch.Tensor]], None],
) -> None:
    assert verify(capsys, turned, "--original", original)[0] == 0
    shutil.copytree(turned, tmp_path / "broken")
    rewrite(tmp_path / "broken", change)
    assert verify(capsys, tmp_path / "broken", "--original", original)[0] == 1


def test_other_inputs_rotated_are_refused(
    capsys: pytest.CaptureFixture[str], original: Path, turned: Path, tmp_path: Path
) -> None:
    shutil.copytree(turned, tmp_path / "other")
    config = json.loads((turned / "config.json").read_text())
    config["quantization_config"]["online_hadamard"] = ["mlp.down_proj", "self_attn.o_proj"]
    write_json(tmp_path / "other" / "config.json", config)
    status, _, error = verify(capsys, tmp_path / "other", "--original", original)
    assert status == 1
    assert "rotates other inputs at run time" in error


def zero_scale(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{LAYER}.input_scale"].zero_()


def half_a_zero(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{LAYER}.input_zero_point"] += 0.5


def one_too_many(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{LAYER}.input_scale"] = torch.ones(2)


def no_range(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[f"{LAYER}.input_scale"], tensors[f"{LAYER}.input_zero_point"]


def no_zero(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[f"{LAYER}.input_zero_point"]


def unknown_tensor(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.other"] = torch.ones(1)


def short_prefix(tensors: dict[str, torch.Tensor]) -> None:
    tensors["prefix.1.value"] = tensors["prefix.1.value"][:, :, :1].clone()


def no_last_layer(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["prefix.1.value"], tensors["prefix.1.key"]


def infinite_state(tensors: dict[str, torch.Tensor]) -> None:
    tensors["prefix.0.key"][0, 1, 1, 3] = torch.inf


def unknown_token(tensors: dict[str, torch.Tensor]) -> None:
    tensors["prefix.ids"][0] = 99


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (zero_scale, f"{LAYER}: static scales that are not positive numbers is 1"),
        (half_a_zero, f"{LAYER}: static zeros out of place is 1"),
        (one_too_many, f"{LAYER}: static ranges amiss in number is 1"),
        (no_range, "static ranges: layers without, or with one too many is 1"),
        (no_zero, f"lacks {LAYER}.input_zero_point; quantize again"),
        (unknown_tensor, "has an unknown tensor model.other; quantize again"),
        (short_prefix, "prefix: states of another shape than the model's is 1"),
        (no_last_layer, "prefix: states of another shape than the model's is 1"),
        (infinite_state, f"{FILE}: prefix.0.key holds inf at [0, 1, 1, 3]; quantize again"),
        (unknown_token, "prefix: tokens outside of the vocabulary is 1"),
    ],
)
def test_damage_to_what_is_for_run_time(
    capsys: pytest.CaptureFixture[str],
    turned: Path,
    tmp_path: Path,
    change: Callable[[dict[str, torch.Tensor]], None],
    said: str,
) -> None:
    shutil.copytree(turned, tmp_path / "damaged")
    with safe_open(turned / FILE, "pt") as file:
        about = file.metadata()
    tensors = load_file(turned / FILE)
    change(tensors)
    save_file(tensors, tmp_path / "damaged" / FILE, about)
    status, _, error = verify(capsys, tmp_path / "damaged")
    assert status == 1
    assert said in error
