"""Stored formats as kinds: a module and a line of the registry add one, everywhere."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mypy import api as mypy
from safetensors.torch import load_file, save_file
from tiny_models import store, tiny_llama, token_sequences

from radquant import registry
from radquant.checkpoints.building import read_settings
from radquant.checkpoints.loading import load
from radquant.errors import UserError
from radquant.generation.vllm_limits import check_checkpoint
from radquant.packed.formats import settings_of, stored_format
from radquant.packed.formats.kind import StoredFormat
from radquant.settings import tool_limits
from radquant.settings.checkpoint import format_name
from radquant.settings.recipe import Recipe
from radquant.verification.selftest import packing_checks

ROOT = Path(__file__).parents[1]
IDS = token_sequences(1, 12, seed=9)[0][None]
# A byte for each integer and for each zero, scales as they are.
TOY = """
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from radquant.packed.formats.kind import (
    Settings,
    Stored,
    Table,
    groups_of,
    lacks_order_of_activation,
    lacks_progressive_scales,
    need,
)
from radquant.settings.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor

    from radquant.packed.grid import QuantizedWeight

NAME = "toy"
METHOD = "toy-bytes"
BITS: tuple[int, ...] = (3, 4)
TYPES: tuple[str, ...] = ("int",)
VALUES = False
SUFFIXES: tuple[str, ...] = ("toy_bytes", "toy_zeros", "toy_scales")


def problem(recipe: Recipe) -> str | None:
    return lacks_progressive_scales(NAME, recipe) or lacks_order_of_activation(NAME, recipe)


def usual_for(recipe: Recipe) -> bool:
    return False


def config(recipe: Recipe, left_out: Sequence[str]) -> dict[str, Any]:
    return {"quant_method": METHOD, "toy_bits": recipe.bits, "toy_group": recipe.group_size}


def pack(weight: QuantizedWeight, recipe: Recipe) -> dict[str, Tensor]:
    return {
        "toy_bytes": weight.integers,
        "toy_zeros": weight.zeros,
        "toy_scales": weight.scales,
    }


def recognises(config: Mapping[str, Any]) -> bool:
    return config.get("quant_method") == METHOD


def read_config(config: Mapping[str, Any]) -> Settings:
    return Settings(NAME, need(config, "toy_bits"), need(config, "toy_group"), symmetric=False)


def layer_tensors(settings: Settings, inputs: int, outputs: int) -> dict[str, Stored]:
    groups = groups_of(settings, inputs)
    return {
        "toy_bytes": Stored((outputs, inputs)),
        "toy_zeros": Stored((outputs, groups)),
        "toy_scales": Stored((outputs, groups), floating=True),
    }


def unpack(tensors: dict[str, Tensor], settings: Settings) -> QuantizedWeight:
    from radquant.packed.grid import QuantizedWeight

    return QuantizedWeight(tensors["toy_bytes"], tensors["toy_scales"], tensors["toy_zeros"])


def in_memory(tensors: dict[str, Tensor], settings: Settings) -> dict[str, Tensor]:
    from radquant.packed.in_memory import packed_tensors

    return packed_tensors(unpack(tensors, settings), settings.bits)


def plain_values(packed: dict[str, Tensor], recipe: Recipe) -> tuple[Table, Table]:
    return packed["toy_bytes"].tolist(), packed["toy_zeros"].tolist()


def vllm_problem(settings: Settings, on_cpu: bool) -> str | None:
    return f"read format {NAME}"


def loading(settings: Settings, dtype: str) -> list[str]:
    return []
"""
MODULE = "toy_stored_format"


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StoredFormat:
    """The toy format, which a file and a line of the registry add."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / f"{MODULE}.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    monkeypatch.setitem(registry.STORED_FORMATS, "toy", MODULE)
    return stored_format("toy")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny") / "original", attention_bias=True)


def test_a_format_of_one_file_is_written_and_read_back(
    toy: StoredFormat, original: Path, tmp_path: Path
) -> None:
    """By the script and the loader; what it computes is held against the same weights in GPTQ's."""
    checkpoint = store(original, tmp_path / "toy", "--method", "rtn", "--format", "toy")
    config = json.loads((checkpoint / "config.json").read_text())
    assert config["quantization_config"] == {
        "quant_method": "toy-bytes",
        "toy_bits": 4,
        "toy_group": 32,
    }
    assert json.loads((checkpoint / "quantization.json").read_text())["format"] == "toy"
    assert read_settings(checkpoint, config["quantization_config"]).format == "toy"
    loaded = load(checkpoint)
    assert loaded.layers_quantized == 14
    other = store(original, tmp_path / "gptq", "--method", "rtn", "--format", "gptq")
    assert torch.equal(loaded.model(IDS).logits, load(other).model(IDS).logits)
    card = (checkpoint / "README.md").read_text()
    assert "stored in the toy format" in card
    assert "This format is radquant's own" in card
    assert "QServe" not in card


def test_its_damage_and_what_vllm_makes_of_it_are_said(
    toy: StoredFormat, original: Path, tmp_path: Path
) -> None:
    checkpoint = store(original, tmp_path / "toy", "--method", "rtn", "--format", "toy")
    with pytest.raises(UserError, match=r"toy: vLLM cannot read format toy$"):
        check_checkpoint(checkpoint, "bfloat16", on_cpu=True)
    (checkpoint / "quantization.json").unlink()
    tensors = load_file(checkpoint / "model.safetensors")
    del tensors["model.layers.0.mlp.up_proj.toy_zeros"]
    save_file(tensors, checkpoint / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="up_proj cannot be read: its toy_zeros is missing"):
        load(checkpoint)


@pytest.mark.usefixtures("toy")
def test_the_self_test_checks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "STORED_FORMATS", {"toy": MODULE})

    def checks() -> dict[str, float]:
        return {each.name: each.measured for each in packing_checks()}

    assert set(checks().values()) == {0}
    assert {name.split(": ")[1] for name in checks()} == {
        f"toy {bits} bits {grid}" for bits in (3, 4) for grid in ("asymmetric", "symmetric")
    }
    module = sys.modules[MODULE]
    pack = module.pack
    monkeypatch.setattr(
        module, "pack", lambda *given: pack(*given) | {"toy_zeros": pack(*given)["toy_zeros"] + 1}
    )
    assert all(value > 0 for value in checks().values())


@pytest.mark.usefixtures("toy")
def test_messages_name_it() -> None:
    recipe = Recipe(method="gptq", bits=4, group_size=32)
    with pytest.raises(UserError, match=r"no format 'exl2'; use one of .*, gguf, toy$"):
        format_name(recipe, "exl2")
    three = Recipe(method="rtn", bits=3, group_size=32)
    with pytest.raises(UserError, match="gemm cannot hold 3 bits; use gptq or toy for them"):
        format_name(three, "gemm")
    in_order = Recipe(method="gptq", bits=4, group_size=32, desc_act=True)
    with pytest.raises(UserError, match="format toy cannot hold groups in order of activation"):
        format_name(in_order, "toy")
    with pytest.raises(
        UserError, match=r"'hqq' cannot be read; those with 'awq', .*'toy-bytes', .* can"
    ):
        settings_of({"quant_method": "hqq"})
    with pytest.raises(UserError, match="8-bit checkpoints in toy cannot be read"):
        settings_of({"quant_method": "toy-bytes", "toy_bits": 8, "toy_group": 32})


@pytest.mark.parametrize("name", registry.STORED_FORMATS)
def test_a_format_goes_by_its_name_in_the_registry(name: str) -> None:
    form = stored_format(name)
    recipes = [Recipe(method="rtn", type=kind) for kind in form.TYPES if kind != "int"]
    if "int" in form.TYPES:
        recipes += [Recipe(method="rtn", bits=bits, group_size=32) for bits in form.BITS]
        recipes.append(Recipe(method="rtn", bits=4, group_size=32, progressive=True))
    held = [recipe for recipe in recipes if form.problem(recipe) is None]
    assert name == form.NAME
    assert held
    for recipe in held:
        assert settings_of(form.config(recipe, [])).format == name


def test_formats_are_asked_without_torch() -> None:
    """A configuration is checked before anything heavy is imported."""
    program = (
        "import sys; from radquant import registry; from radquant.packed import formats; "
        "from radquant.settings.checkpoint import format_name; "
        "from radquant.settings.recipe import Recipe; "
        "recipe = Recipe(method='awq', bits=4, group_size=128); "
        "form = formats.format_for(recipe); settings = formats.settings_for(recipe, form); "
        "form.vllm_problem(settings, True); form.loading(settings, 'float16'); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_other_packages_write_formats_that_there_are() -> None:
    assert set(tool_limits.FORMATS.values()) <= set(registry.STORED_FORMATS)


def test_formats_are_typed_as_their_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{MODULE}.py").write_text(TOY)
    lines = ["from radquant.packed.formats.kind import StoredFormat"]
    for place, module in enumerate([*registry.STORED_FORMATS.values(), MODULE]):
        lines.append(f"import {module} as format{place}")
        lines.append(f"kind{place}: StoredFormat = format{place}")
    program = tmp_path / "kinds.py"
    program.write_text("\n".join(lines))
    monkeypatch.setenv("MYPYPATH", f"{ROOT / 'src'}:{tmp_path}")
    config = ["--config-file", str(ROOT / "pyproject.toml")]
    out, error, status = mypy.run([*config, "--cache-dir", str(ROOT / ".mypy_cache"), str(program)])
    assert status == 0, out + error
