"""Packed checkpoints as other programs leave them: computed with exactly, or refused by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import store, tiny_llama
from transformers import AutoModelForCausalLM

from radquant.checkpoints.loading import load
from radquant.errors import UserError
from radquant.generation.engines.kind import Wanted
from radquant.generation.opening import open_precision
from radquant.generation.tasks import Task
from radquant.packed.formats import settings_of, suffixes_of, unpack
from radquant.prompts import Prompt

IDS = [4, 5, 6, 7, 8, 9, 10]
FORMATS = {"gemm": (), "gptq": ("--symmetric",), "compressed-tensors": ()}
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of each format, without a record of hashes."""
    folder = tmp_path_factory.mktemp("made")
    original = tiny_llama(folder / "original")
    for name, options in FORMATS.items():
        store(original, folder / name, "--method", "rtn", "--format", name, *options)
        (folder / name / "quantization.json").unlink()
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Callable[[str], Path]:
    return lambda name: Path(shutil.copytree(made / name, tmp_path / name))


def announce(directory: Path, change: Change) -> None:
    path = directory / "config.json"
    config = json.loads(path.read_text())
    change(config["quantization_config"])
    path.write_text(json.dumps(config))


def edit(directory: Path, change: Change) -> None:
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})


def unpacked_nats(directory: Path, original: Path) -> float:
    """By transformers with the weights that the stored integers, scales and zeros stand for."""
    config = json.loads((directory / "config.json").read_text())["quantization_config"]
    settings, stored = settings_of(config), load_file(directory / "model.safetensors")
    model = AutoModelForCausalLM.from_pretrained(original)
    first, *_ = suffixes = suffixes_of(settings)
    for name in [n.removesuffix(f".{first}") for n in stored if n.endswith(f".{first}")]:
        parts = {s: stored[f"{name}.{s}"] for s in suffixes if f"{name}.{s}" in stored}
        model.get_parameter(f"{name}.weight").data.copy_(unpack(parts, settings).dequantize())
    scores = model(torch.tensor([IDS])).logits[0, :-1].detach().log_softmax(-1)
    return -float(scores.gather(-1, torch.tensor(IDS)[1:, None]).sum())


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("dtype", "factor"), [(torch.bfloat16, 1), (torch.float32, 1 + 1e-5)], ids=["bf16", "f32"]
)
def test_scales_of_every_dtype_are_computed_with(
    made: Path, copy: Callable[[str], Path], name: str, dtype: torch.dtype, factor: float
) -> None:
    """By the engine that auto takes, kernels and all."""
    directory = copy(name)

    def widen(tensors: dict[str, torch.Tensor]) -> None:
        for key in [key for key in tensors if key.endswith(("scales", "weight_scale"))]:
            tensors[key] = (tensors[key].float() * factor).to(dtype)

    edit(directory, widen)
    engine, opened = open_precision("auto", Wanted(directory, device="cpu"), scores=True)
    prompt = Prompt("r", "", IDS[:1], 0, "", IDS[1:])
    task = Task(label="", batches=[[prompt]], shared=[], longest=len(IDS), batch_size=1)
    (found,) = engine.score(opened, task).work.results
    assert found == pytest.approx(unpacked_nats(directory, made / "original"), rel=1e-5)


def group(**values: object) -> Change:
    return lambda said: said["config_groups"]["group_0"].update(values)


def weights(**values: object) -> Change:
    return lambda said: said["config_groups"]["group_0"]["weights"].update(values)


def says(**values: object) -> Change:
    return lambda said: said.update(values)


CACHE = {"num_bits": 8, "type": "float"}
UNAPPLIED: dict[str, tuple[str, Change, str]] = {
    "cache": (
        "compressed-tensors",
        says(kv_cache_scheme={"num_bits": 8, "type": "int"}),
        "a cache of 8 bits of type int",
    ),
    "cache of awq": ("gemm", says(kv_cache_scheme=CACHE), "says kv_cache_scheme"),
    "sparse": (
        "compressed-tensors",
        says(sparsity_config={"format": "sparse-24-bitmask"}),
        "says sparsity_config",
    ),
    "transform": (
        "compressed-tensors",
        says(transform_config={"config_groups": {"u": {"type": "hadamard"}}}),
        "says transform_config",
    ),
    "outputs": ("compressed-tensors", group(output_activations=CACHE), "says output_activations"),
    "dynamic": ("compressed-tensors", weights(dynamic=True), "weights, says dynamic: True"),
    "order": ("compressed-tensors", weights(actorder="group"), "its weight_g_idx is missing"),
    "odd order": ("compressed-tensors", weights(actorder="odd"), "actorder: 'odd'"),
    "no zeros": ("compressed-tensors", weights(symmetric=True), "it has weight_zero_point, which"),
    "ignored": ("compressed-tensors", says(ignore=["re:.*mlp.*"]), "mlp.down_proj is not quantize"),
    "pattern": ("compressed-tensors", says(ignore=["re:("]), "a pattern '\\(' that is none"),
    "a list": ("compressed-tensors", says(config_groups=[1]), "built in a way that is not known"),
    "head": ("gptq", says(lm_head=True), "says that lm_head is quantized, and in the weight"),
    "left out": ("gptq", says(dynamic={"-:.*mlp.*": {}}), "mlp.down_proj is not quantized, and"),
    "versions": ("gptq", says(format="gptq_v2"), "names two formats"),
    "zeros": ("gptq", says(checkpoint_format="gptq_v2"), "its zeros are not in the middle"),
    "adapter": ("gptq", says(adapter={"rank": 8}), "says adapter: {'rank': 8}, which is not appl"),
    "kept": ("gemm", says(modules_to_not_convert=["up_proj"]), "up_proj is not quantized, and in"),
    "symmetric": ("gemm", says(zero_point=False), "its zeros are not in the middle"),
    "act order": ("gemm", says(desc_act=True), "says desc_act: True"),
    "bits": ("gemm", says(bits=4.5), "says bits: 4.5, which is no whole number"),
    "other bits": ("gemm", says(bits=8), "qweight has shape"),
    "other groups": ("gemm", says(group_size=64), "qzeros has shape"),
}


@pytest.mark.parametrize(("name", "change", "said"), UNAPPLIED.values(), ids=UNAPPLIED)
def test_what_is_said_and_not_applied_is_an_error(
    copy: Callable[[str], Path], name: str, change: Change, said: str
) -> None:
    directory = copy(name)
    announce(directory, change)
    with pytest.raises(UserError, match=said) as caught:
        load(directory)
    assert str(directory) in str(caught.value)


def test_what_changes_nothing_is_read(copy: Callable[[str], Path], made: Path) -> None:
    directory = copy("compressed-tensors")
    announce(directory, says(sparsity_config={"format": "dense", "global_sparsity": 0.1}))
    announce(directory, says(transform_config={}, version="0.17", unknown=None))
    announce(directory, weights(observer="mse", actorder="static"))
    ids = torch.tensor([IDS])
    expected = load(made / "compressed-tensors").model(ids).logits
    assert torch.equal(load(directory).model(ids).logits, expected)


UP = "model.layers.0.mlp.up_proj"


def test_biases_of_zeros_are_no_other_model(copy: Callable[[str], Path], made: Path) -> None:
    directory = copy("gptq")
    edit(directory, lambda tensors: tensors.update({f"{UP}.bias": torch.zeros(128)}))
    ids = torch.tensor([IDS])
    expected = load(made / "gptq").model(ids).logits
    assert torch.equal(load(directory).model(ids).logits, expected)
    edit(directory, lambda tensors: tensors.update({f"{UP}.bias": torch.ones(128)}))
    with pytest.raises(UserError, match=f"holds {UP}.bias, which Llama"):
        load(directory)


def unpack_one(tensors: dict[str, torch.Tensor]) -> None:
    for suffix in ("qweight", "qzeros", "scales"):
        del tensors[f"{UP}.{suffix}"]
    tensors[f"{UP}.weight"] = torch.ones(128, 64)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (unpack_one, f"config.json does not say that {UP} is not quantized, and in the weight"),
        (lambda t: t.update({f"{UP}.qweight": t[f"{UP}.qweight"].long()}), "holds int64, not int3"),
        (
            lambda t: t.update({"model.norm.weight": torch.ones(64).to(torch.float8_e5m2)}),
            "model.norm.weight is stored as F8_E5M2",
        ),
        (
            lambda t: t.update({"lm_head.weight": torch.ones(17, 64)}),
            "lm_head.weight and model.embed_tokens.weight are one by config.json, and have diff",
        ),
        (lambda t: t.update({f"{UP}.k_scale": torch.ones(1)}), f"holds {UP}.k_scale, which Llama"),
    ],
)
def test_tensors_that_cannot_be_meant_are_refused(
    copy: Callable[[str], Path], change: Change, said: str
) -> None:
    directory = copy("gemm")
    edit(directory, change)
    with pytest.raises(UserError, match=said):
        load(directory)


def test_weights_that_are_not_packed_at_all_are_refused(made: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(made / "original", tmp_path / "dense"))
    config = json.loads((made / "gemm" / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="no layer in the weight files is packed"):
        load(directory)


def test_a_file_of_another_name_is_the_model_if_it_is_the_only_one(
    copy: Callable[[str], Path], made: Path
) -> None:
    directory = copy("gptq")
    (directory / "model.safetensors").rename(directory / "gptq_model-4bit-128g.safetensors")
    ids = torch.tensor([IDS])
    assert torch.equal(load(directory).model(ids).logits, load(made / "gptq").model(ids).logits)
