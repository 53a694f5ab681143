"""Checkpoints of ours, read by the packages that users serve them with."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import store, token_sequences
from tiny_tools import uneven_llama, write_samples
from transformers import AutoModelForCausalLM

from radquant.checkpoints import loading
from radquant.checkpoints.building import packed_layers
from radquant.files import read_json
from radquant.packed.formats import settings_of, unpack

INPUTS = {"input_ids": torch.stack(token_sequences(4, 24, seed=9))}
RECIPES = {
    "gemm": ["--method", "awq"],
    "gptq": ["--method", "gptq"],
    "gptq-desc-act": ["--method", "gptq", "--bits", "3", "--desc-act"],
    "compressed-tensors": ["--method", "awq", "--format", "compressed-tensors"],
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One tiny model, quantized by every recipe."""
    directory = tmp_path_factory.mktemp("ours")
    model, samples = uneven_llama(directory / "model"), write_samples(directory)
    calibration = ["--calibration", str(samples)]
    return {
        name: store(model, directory / name, *calibration, *options)
        for name, options in RECIPES.items()
    }


def logits_of(checkpoint: Path, dtype: torch.dtype) -> torch.Tensor:
    return loading.load(checkpoint, dtype=dtype).model(**INPUTS).logits.detach().float()


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


# Every packed layer's weight as AutoAWQ's own code reads it, [out, in] float32.
AUTOAWQ_DEQUANTIZES = """
import sys
from awq.utils.packing_utils import dequantize_gemm
from safetensors.torch import load_file, save_file
checkpoint, output = sys.argv[1:]
tensors, weights = load_file(f"{checkpoint}/model.safetensors"), {}
for name in [name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")]:
    qweight, qzeros, scales = (tensors[f"{name}.{x}"] for x in ("qweight", "qzeros", "scales"))
    weights[name] = dequantize_gemm(qweight, qzeros, scales.float(), 4, 32).T.contiguous()
save_file(weights, output)
"""


@pytest.mark.slow
def test_autoawq_dequantizes_to_the_same_bits(call_tool, checkpoints, tmp_path) -> None:
    checkpoint = checkpoints["gemm"]
    call_tool("autoawq", "-c", AUTOAWQ_DEQUANTIZES, checkpoint, tmp_path / "weights.safetensors")
    theirs = load_file(tmp_path / "weights.safetensors")
    settings = settings_of(read_json(checkpoint / "config.json")["quantization_config"])
    tensors = load_file(checkpoint / "model.safetensors")
    layers = packed_layers(tensors, settings)
    assert len(layers) == len(theirs) == 14
    for layer, suffixes in layers.items():
        parts = {suffix: tensors[name] for suffix, name in suffixes.items()}
        assert torch.equal(unpack(parts, settings).dequantize(), theirs[layer])


# GPTQModel otherwise takes a kernel that adds up in bfloat16 wherever there are 4 bits. Loading
# GPTQ through transformers as well needs optimum, which hands it to the same code.
READERS = """
import sys, torch
from radquant.quantization import other_packages
other_packages.without_torchvision()
from gptqmodel import BACKEND, GPTQModel
from transformers import AutoConfig, AutoModelForCausalLM
*checkpoints, file = sys.argv[1:]
inputs = torch.load(file)
found = []
for checkpoint in checkpoints:
    config = AutoConfig.from_pretrained(checkpoint)
    if config.quantization_config["quant_method"] == "awq":
        config.quantization_config["backend"] = "torch_awq"
        model = AutoModelForCausalLM.from_pretrained(checkpoint, config=config, dtype=torch.float16)
    else:
        half = {"dtype": torch.float16, "device": "cpu"}
        model = GPTQModel.load(checkpoint, backend=BACKEND.GPTQ_TORCH, **half).model
    packed = sum(hasattr(module, "qweight") for module in model.modules())
    with torch.no_grad():
        found.append({"packed": packed, "logits": model(**inputs).logits.float()})
torch.save(found, file)
"""


@pytest.mark.slow
def test_transformers_and_gptqmodel_compute_the_same(call_tool, checkpoints, tmp_path) -> None:
    read = [checkpoints[name] for name in ("gemm", "gptq", "gptq-desc-act")]
    torch.save(INPUTS, tmp_path / "logits.pt")
    call_tool("gptqmodel", "-c", READERS, *read, tmp_path / "logits.pt")
    for checkpoint, theirs in zip(read, torch.load(tmp_path / "logits.pt"), strict=True):
        assert theirs["packed"] == 14
        exact, ours = (logits_of(checkpoint, dtype) for dtype in (torch.float32, torch.float16))
        rounding = relative(ours, exact)
        assert 1e-4 < rounding < 0.05
        assert relative(theirs["logits"], ours) < rounding / 10
        assert relative(theirs["logits"], exact) < 1.1 * rounding


@pytest.mark.slow
def test_transformers_and_compressed_tensors_compute_the_same(checkpoints) -> None:
    checkpoint = checkpoints["compressed-tensors"]
    theirs = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)(
        **INPUTS
    ).logits.detach()
    assert relative(theirs, logits_of(checkpoint, torch.float32)) < 1e-6
    # The same weights in another format: nothing was lost on the way into this one.
    assert relative(theirs, logits_of(checkpoints["gemm"], torch.float32)) < 1e-6
