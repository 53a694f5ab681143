"""Model families: one file and one line make one known everywhere, and no advice contradicts it."""

import json
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import transformers
from safetensors.torch import load_file
from tiny_architectures import FURTHER, KNOWN, MIXTURES, SHOWN, tiny_model
from tiny_models import SCRIPTS, store, tiny_llama, token_sequences, write_samples

from radquant import registry
from radquant.checkpoints.card import model_card
from radquant.checkpoints.loading import load
from radquant.errors import UserError
from radquant.export.modelopt import export_modelopt
from radquant.families.images import check_takes_images
from radquant.families.inspection import architecture_of
from radquant.families.lookup import family_of
from radquant.families.tools import check_model_type
from radquant.generation.engines.kind import Wanted
from radquant.generation.lean_decoder import take_over, unsupported
from radquant.generation.opening import choose
from radquant.generation.vllm_limits import check_checkpoint
from radquant.kernels import cpu
from radquant.packed.formats import stored_format
from radquant.quantization import other_packages
from radquant.quantization.original_model import open_original
from radquant.runtime.runtime_file import announce
from radquant.settings.recipe import Recipe, recipe_values

# vLLM's own list: _FLOAT16_NOT_SUPPORTED_MODELS in vllm/config/model.py.
VLLM_REFUSES = {"gemma2", "gemma3", "gemma3_text", "glm4", "plamo2"}
FORMS = {
    "gemm": Recipe(method="awq", bits=4, group_size=128),
    "gptq": Recipe(method="gptq", bits=4, group_size=128, zero_point=False),
    "compressed-tensors": Recipe(method="gptq", bits=4, group_size=128),
    "qoq": Recipe(method="rtn", bits=4, group_size=128, progressive=True),
}


# --------------------------------------------------------------------- a family that is added

TOY = '''
"""A toy family: Llama's layers; float16 overflows."""

from radquant.families.kind import Family, Images, Lean
from radquant.families.llama import ARCHITECTURE

FAMILY = Family(
    architecture=ARCHITECTURE,
    overflows_float16=True,
    lean=Lean(),
    tools=("gptqmodel",),
    layouts={"modelopt": ("ToyForCausalLM",)},
    images=Images(known_from="Toy"),
)
'''


class ToyConfig(transformers.LlamaConfig):  # type: ignore[misc]
    model_type = "toy"


class ToyForCausalLM(transformers.LlamaForCausalLM):  # type: ignore[misc]
    config_class = ToyConfig


transformers.AutoConfig.register("toy", ToyConfig)
transformers.AutoModelForCausalLM.register(ToyConfig, ToyForCausalLM)


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A model of type toy that is Llama in all but its name; its directory."""
    tiny_llama(tmp_path / "toy", hidden_size=128, num_key_value_heads=4)
    config = json.loads((tmp_path / "toy" / "config.json").read_text())
    config |= {"model_type": "toy", "architectures": ["ToyForCausalLM"]}
    (tmp_path / "toy" / "config.json").write_text(json.dumps(config))
    return tmp_path / "toy"


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make the toy family known: a file, and a line of the registry."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "toy_family.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.setitem(registry.MODEL_FAMILIES, "toy", "toy_family")
    yield
    sys.modules.pop("toy_family", None)


def test_what_is_not_in_the_registry_is_unknown(
    toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = load(toy)
    assert all(
        group.source is None for group in architecture_of(loaded.model.config, loaded.model).groups
    )
    assert "nothing is known about models of type 'toy'" in capsys.readouterr().err
    assert unsupported(loaded, None) == "it does not know models of type 'toy'"
    with pytest.raises(UserError, match="GPTQModel cannot quantize there, a model of type toy"):
        check_model_type("gptqmodel", "toy", "there")
    with pytest.raises(UserError, match=r"no images \(only 'gemma3', MedGemma's type, .* are\)"):
        check_takes_images(toy)
    assert 'dtype="float16"' in card_of(toy)
    check_checkpoint(toy, "float16", on_cpu=True)


@pytest.mark.usefixtures("known")
def test_the_quantizer_folds_as_the_file_says(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = transformers.AutoConfig.from_pretrained(toy)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    assert architecture_of(config, model) == family_of("llama").architecture
    as_llama = tiny_llama(tmp_path / "llama", hidden_size=128, num_key_value_heads=4)
    options = ("--method", "awq", "--calibration", str(write_samples(tmp_path)))
    stored = [
        load_file(store(model, tmp_path / f"{model.name}-w4", *options) / "model.safetensors")
        for model in (toy, as_llama)
    ]
    assert "nothing is known" not in capsys.readouterr().err
    assert stored[0].keys() == stored[1].keys()
    assert all(torch.equal(tensor, stored[1][name]) for name, tensor in stored[0].items())
    norm = "model.layers.0.input_layernorm.weight"
    assert not torch.equal(stored[0][norm], load_file(toy / "model.safetensors")[norm])


@pytest.mark.usefixtures("known")
@pytest.mark.skipif(cpu.unavailable() is not None, reason=str(cpu.unavailable()))
def test_the_lean_engine_runs_it(toy: Path) -> None:
    ids = token_sequences(1, 12, seed=3)[0]
    expected = load(toy).model(ids[None]).logits[0]
    loaded = load(toy)
    assert choose("auto", Wanted(toy))[0] == "lean"
    lean = take_over(loaded, None)
    lean.reach(len(ids))
    hidden = lean.decoder.run(ids, torch.zeros_like(ids), torch.arange(len(ids)))
    found = lean.decoder.logits(hidden)
    assert (found - expected).norm() < 1e-4 * expected.norm()


@pytest.mark.usefixtures("known")
def test_tools_and_images_follow_the_file(toy: Path, tmp_path: Path) -> None:
    check_model_type("gptqmodel", "toy", "there")
    with pytest.raises(UserError, match="AutoAWQ cannot quantize there, a model of type toy"):
        check_model_type("autoawq", "toy", "there")
    assert check_takes_images(toy).known_from == "Toy"
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    said = r"\(only 'gemma3', MedGemma's type, .*[^d] 'mistral3', .* and 'toy', Toy's type, are\)"
    with pytest.raises(UserError, match=said):
        check_takes_images(tmp_path)


@pytest.mark.usefixtures("known")
def test_every_dtype_follows_the_file(toy: Path, tmp_path: Path) -> None:
    assert 'dtype="bfloat16"' in card_of(toy)
    said = "a model of type toy overflows in float16; use bfloat16"
    with pytest.raises(UserError, match=said):
        check_checkpoint(toy, "float16", on_cpu=True)
    with pytest.raises(UserError, match=said):
        load(toy, dtype=torch.float16)
    options = ("--method", "rtn", "--group-size", "128", "--symmetric")
    checkpoint = store(toy, tmp_path / "checkpoint", *options)
    with pytest.raises(UserError, match=said):
        export_modelopt(checkpoint, tmp_path / "half", "float16")
    export_modelopt(checkpoint, tmp_path / "exported")
    stored = load_file(tmp_path / "exported" / "model.safetensors")
    assert stored["model.norm.weight"].dtype == torch.bfloat16
    assert json.loads((tmp_path / "exported" / "config.json").read_text())["dtype"] == "bfloat16"
    assert "overflow in float16" in (tmp_path / "exported" / "README.md").read_text()


# --------------------------------------------------------------------- the families there are


def test_families_are_known_without_pytorch() -> None:
    """A configuration is checked against them before anything heavy is imported."""
    program = """
import sys
from radquant import registry
from radquant.families import images, lookup, tools
for kind in registry.MODEL_FAMILIES:
    assert isinstance(lookup.family_of(kind), lookup.Family), kind
sys.exit("torch" in sys.modules or "transformers" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_each_table_is_held_against_a_class_of_transformers() -> None:
    """`KNOWN` is what test_architectures.py folds scales into."""
    tables = {kind for kind in registry.MODEL_FAMILIES if family_of(kind).architecture}
    with_images = {"gemma3", *SHOWN}  # which have a text model inside
    inside_alone = {"qwen2_5_vl_text", "qwen3_vl_text"}
    assert tables == KNOWN.keys() - {"gemma3"} | FURTHER.keys() | MIXTURES.keys() | inside_alone
    inside = {tiny_model(kind).config.get_text_config().model_type for kind in with_images}
    assert inside <= tables


def test_model_types_are_transformers_own() -> None:
    for kind in registry.MODEL_FAMILIES:
        assert kind in transformers.CONFIG_MAPPING or kind == "plamo2", kind  # with code of its own
    known = {f"{name}ForCausalLM" for name, _ in KNOWN.values()}
    for kind in registry.MODEL_FAMILIES:
        for classes in family_of(kind).layouts.values():
            assert known.issuperset(classes)


def test_float16_overflows_where_vllm_says_so() -> None:
    said = {kind for kind in registry.MODEL_FAMILIES if family_of(kind).overflows_float16}
    assert said == VLLM_REFUSES | {"gemma3n", "gemma3n_text"}


# --------------------------------------------------------------------- dtypes that are named


def card_of(
    directory: Path, form: str = "gemm", own: bool = False, recipe: Recipe | None = None
) -> str:
    recipe = recipe or FORMS[form]
    quantization = stored_format(form).config(recipe, ["lm_head"])
    if own:
        quantization = announce(quantization, {})
    return model_card(directory, quantization, {"recipe": recipe_values(recipe)})


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", [*registry.MODEL_FAMILIES, "never-heard-of"])
def test_a_card_names_no_dtype_that_serving_refuses(tmp_path: Path, kind: str, form: str) -> None:
    config: dict[str, Any] = {"model_type": kind}
    (tmp_path / "config.json").write_text(json.dumps(config))
    card = card_of(tmp_path, form)
    named = re.findall(r'dtype="(\w+)"', card)
    assert bool(named) == (form != "qoq")
    for dtype in named:
        check_checkpoint(tmp_path, dtype, on_cpu=False)
    assert ("overflow in float16" in card) == family_of(kind).overflows_float16


def test_a_text_model_inside_is_seen(tmp_path: Path) -> None:
    config = {"model_type": "never-heard-of", "text_config": {"model_type": "gemma2"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert 'dtype="float16"' not in card_of(tmp_path)
    with pytest.raises(UserError, match="of type gemma2 overflows in float16"):
        check_checkpoint(tmp_path, "float16", on_cpu=True)


@pytest.mark.parametrize("kind", registry.MODEL_FAMILIES)
def test_a_card_sends_to_qserve_only_what_it_takes(tmp_path: Path, kind: str) -> None:
    """QServe computes in float16."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    sent = "QServe" in card_of(tmp_path, "qoq")
    assert sent == (kind in ("llama", "mistral"))
    assert not (sent and family_of(kind).overflows_float16)


@pytest.fixture
def gemma2(tmp_path: Path) -> Path:
    """A tiny Gemma 2 that is stored in float16, as one from a GGUF file is; its directory."""
    tiny_model("gemma2").half().save_pretrained(tmp_path / "gemma2")
    tiny_llama(tmp_path / "llama")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tmp_path / "llama" / file, tmp_path / "gemma2" / file)
    return tmp_path / "gemma2"


@pytest.mark.parametrize("engine", ["vllm", "transformers"])
def test_gemma_2_is_served_by_no_engine_in_float16(
    gemma2: Path, engine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["serve.py", str(gemma2), "--engine", engine, "--device", "cpu"]
    with (
        mock.patch.object(sys, "argv", [*command, "--dtype", "float16"]),
        pytest.raises(SystemExit) as ended,
    ):
        runpy.run_path(str(SCRIPTS / "serve.py"), run_name="__main__")
    assert ended.value.code == 1
    assert "of type gemma2 overflows in float16; use bfloat16" in capsys.readouterr().err


def test_other_packages_do_not_compute_in_a_float16_that_overflows(gemma2: Path) -> None:
    stored = open_original(gemma2, dtype=None)
    assert other_packages.computing_dtype(stored, "cuda") == torch.bfloat16
    assert other_packages.computing_dtype(stored, "cpu") == torch.float32
    llama = open_original(gemma2.parent / "llama", dtype=None)
    assert other_packages.computing_dtype(llama, "cuda") == "auto"
