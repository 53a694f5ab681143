"""AutoAWQ and GPTQModel as quantizers, run for real in their environments on a tiny model."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import token_sequences
from tiny_tools import LENGTHS, uneven_llama, write_samples

from radquant.checkpoints import loading
from radquant.files import hash_directory, read_json, write_json
from radquant.verification.checkpoints import verify_weights

REPOSITORY = Path(__file__).parents[1]
CHECKED = {"input_ids": torch.cat([ids[None] for ids in token_sequences(4, 24, seed=9)])}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return uneven_llama(tmp_path_factory.mktemp("original") / "model")


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return write_samples(tmp_path_factory.mktemp("samples"))


@pytest.fixture(scope="module")
def quantize(call_tool, original, samples, tmp_path_factory):
    """Quantize the tiny model with a tool's script; the checkpoint."""

    def run(tool, *options):
        output = tmp_path_factory.mktemp(tool) / "checkpoint"
        origin = samples.with_name("set.json")
        write_json(origin, {"prompt_hash": "abc", "samples": 1})
        command = ["--model", original, "--calibration", samples, "--group-size", "32"]
        command += ["--calibration-record", origin]
        call_tool(tool, f"scripts/quantize_{tool}.py", *command, "--output", output, *options)
        return output

    return run


@pytest.fixture(scope="module")
def by_autoawq(quantize):
    return quantize("autoawq", "--device", "cpu")


def check_directory(checkpoint, original, method):
    """What every checkpoint holds and says, ours or a tool's."""
    record, config = (
        read_json(checkpoint / "quantization.json"),
        read_json(original / "config.json"),
    )
    assert record["recipe"]["method"] == method
    assert record["files"] == hash_directory(checkpoint, exclude=["quantization.json"])
    assert {"tokenizer.json", "tokenizer_config.json", "README.md"} < record["files"].keys()
    assert record["calibration"]["prompt_hash"] == "abc"
    assert record["calibration"]["samples"] == len(LENGTHS)
    assert record["calibration"]["tokens"] == sum(LENGTHS)
    assert record["checks"]["layers_quantized"] == len(record["layers"]) == 14
    found = {layer["name"]: layer for layer in record["layers"]}["model.layers.1.mlp.down_proj"]
    assert (found["in_features"], found["out_features"]) == (128, 64)
    assert all(record[key] > 0 for key in ("wall_seconds", "cpu_seconds", "peak_process_bytes"))
    checks = verify_weights(checkpoint, original).checks
    assert len(checks) > 14
    assert [check for check in checks if not check.holds] == []
    written = read_json(checkpoint / "config.json")
    assert {**written, "quantization_config": None} == {**config, "quantization_config": None}
    assert str(REPOSITORY) not in json.dumps(written)
    assert "/tmp" not in json.dumps(written)
    return record


def equal_tensors(checkpoint, original, *names):
    ours, theirs = (load_file(path / "model.safetensors") for path in (checkpoint, original))
    assert "lm_head.weight" not in ours  # tied
    for name in names:
        assert ours[name].dtype == torch.bfloat16
        assert torch.equal(ours[name], theirs[name])


def logits_of(directory):
    loaded = loading.load(directory)
    return loaded.model(**CHECKED).logits, loaded.layers_quantized


def relative(found, expected):
    return float((found - expected).norm() / expected.norm())


# The weights as AutoAWQ's own code reads them, in a plain model; and the plain original.
AUTOAWQ_READS = """
import sys, torch
from awq.utils.packing_utils import dequantize_gemm
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
original, checkpoint, output = sys.argv[1:]
inputs = torch.load(output)
model = AutoModelForCausalLM.from_pretrained(original, dtype=torch.float32)
with torch.no_grad():
    before = model(**inputs).logits
tensors = load_file(f"{checkpoint}/model.safetensors")
for name in [name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")]:
    qweight, qzeros, scales = (tensors.pop(f"{name}.{x}") for x in ("qweight", "qzeros", "scales"))
    weight = dequantize_gemm(qweight, qzeros, scales.float(), 4, 32)
    tensors[f"{name}.weight"] = weight.T.contiguous()
lacking = model.load_state_dict(tensors, strict=False)
assert lacking.missing_keys == ["lm_head.weight"] and not lacking.unexpected_keys, lacking
with torch.no_grad():
    torch.save({"original": before, "quantized": model(**inputs).logits}, output)
"""


@pytest.mark.slow
def test_an_autoawq_checkpoint_is_read_as_autoawq_does(call_tool, by_autoawq, original, tmp_path):
    record = check_directory(by_autoawq, original, "awq")
    assert record["tool"]["name"] == "autoawq"
    assert record["tool"]["version"] == "0.2.9"
    assert record["calibration"]["blocks"] * record["calibration"]["block_tokens"] == 120
    assert record["checks"]["largest_change_by_folding"] < 1e-5
    equal_tensors(by_autoawq, original, "model.embed_tokens.weight", "model.norm.weight")

    torch.save(CHECKED, tmp_path / "logits.pt")
    call_tool("autoawq", "-c", AUTOAWQ_READS, original, by_autoawq, tmp_path / "logits.pt")
    theirs = torch.load(tmp_path / "logits.pt")
    # An older transformers there would miss the rotary base in the configuration.
    assert relative(theirs["original"], logits_of(original)[0]) < 1e-5
    ours, layers = logits_of(by_autoawq)
    assert layers == 14
    assert relative(ours, theirs["quantized"]) < 1e-5
    assert 0.02 < relative(ours, theirs["original"]) < 1


# AutoAWQ without rounding and clipping, so that its scales must cancel: the largest relative
# difference of an effective weight from the original's. Both quantizers in turn.
AUTOAWQ_SCALES = """
import json, sys, torch
from awq import AutoAWQForCausalLM
from awq.quantize.quantizer import AwqQuantizer
from radquant.quantization import by_autoawq
original, blocks = sys.argv[1], json.loads(sys.argv[2])
corrected = by_autoawq.corrected_quantizer(blocks)
errors = []
for quantizer in (AwqQuantizer, corrected):
    model = AutoAWQForCausalLM.from_pretrained(original, torch_dtype=torch.float32)
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    options = {"zero_point": True, "q_group_size": 32, "w_bit": 4, "version": "GEMM"}
    model.quantize(
        None, options, calib_data=blocks, max_calib_samples=len(blocks), quantizer_cls=quantizer,
        max_calib_seq_len=len(blocks[0]), export_compatible=True, apply_clip=False,
    )
    after, worst = model.model.state_dict(), 0
    for layer in ("model.layers.0", "model.layers.1"):
        norm, linear = f"{layer}.input_layernorm.weight", f"{layer}.self_attn.q_proj.weight"
        effective = after[linear] * after[norm] / before[norm]
        worst = max(worst, float((effective - before[linear]).norm() / before[linear].norm()))
    errors.append(worst)
print(json.dumps(errors))
"""


@pytest.mark.slow
def test_autoawq_as_released_ruins_the_weights_on_a_cpu(call_tool, original):
    """Should a release of AutoAWQ or PyTorch mend it, the correction can go."""
    blocks = [ids.tolist() for ids in token_sequences(6, 24)]
    done = call_tool("autoawq", "-c", AUTOAWQ_SCALES, original, json.dumps(blocks))
    as_released, corrected = json.loads(done.stdout.splitlines()[-1])
    assert as_released > 0.3
    assert corrected < 1e-5


# The weights as GPTQModel's own code reads them, in a plain model.
GPTQMODEL_READS = """
import sys, torch
from radquant.quantization import other_packages
other_packages.without_torchvision()
from gptqmodel import BACKEND, GPTQModel
from transformers import AutoModelForCausalLM
original, checkpoint, output = sys.argv[1:]
inputs = torch.load(output)
plain = AutoModelForCausalLM.from_pretrained(original, dtype=torch.float32)
half = {"device": "cpu", "backend": BACKEND.GPTQ_TORCH, "dtype": torch.float16}
model = GPTQModel.load(checkpoint, **half)
for name, module in model.model.named_modules():
    if hasattr(module, "qweight"):
        module.scales = module.scales.float()
        plain.get_submodule(name).weight.data = module.dequantize_weight().T.contiguous()
with torch.no_grad():
    torch.save(plain(**inputs).logits, output)
"""


@pytest.mark.slow
def test_a_gptqmodel_checkpoint_is_read_as_gptqmodel_does(call_tool, quantize, original, tmp_path):
    # Fields across words, zeros as they are, and a group index: the hardest of the format.
    checkpoint = quantize("gptqmodel", "--bits", "3", "--desc-act")
    record = check_directory(checkpoint, original, "gptq")
    assert record["tool"]["version"] == "7.2.0"
    assert record["checks"]["calibration_tokens_of_every_layer"] == sum(LENGTHS)
    assert all(0 < layer["weight_error"] < 1 for layer in record["layers"])
    norms = ("model.norm.weight", "model.layers.0.input_layernorm.weight")
    equal_tensors(checkpoint, original, "model.embed_tokens.weight", *norms)

    torch.save(CHECKED, tmp_path / "logits.pt")
    call_tool("gptqmodel", "-c", GPTQMODEL_READS, original, checkpoint, tmp_path / "logits.pt")
    ours, layers = logits_of(checkpoint)
    assert layers == 14
    assert relative(ours, torch.load(tmp_path / "logits.pt")) < 1e-5
    assert 0.02 < relative(ours, logits_of(original)[0]) < 1
