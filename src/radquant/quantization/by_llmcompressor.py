"""llm-compressor as the quantizer; runs in the environment of envs/llmcompressor.txt."""

import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from radquant.errors import UserError
from radquant.failures import loading
from radquant.files import read_json
from radquant.quantization import other_packages
from radquant.quantization.job import Job
from radquant.quantization.original_model import Original
from radquant.settings.precision import DYNAMIC, INT, Activations
from radquant.settings.recipe import WHOLE_ROW, Recipe, uses_gptq_rounding


def quantize(job: Job, recipe: Recipe) -> None:
    """Let llm-compressor quantize the model of `job`, and write the checkpoint like one of ours.

    Raises UserError if llm-compressor cannot do the recipe or the model.
    """
    original, device = other_packages.prepare("llmcompressor", recipe, job)
    sequences = other_packages.read_sequences(job.calibration, original.config, "llm-compressor")
    calibration = other_packages.calibration_record(job, sequences)
    job.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=job.output.parent, prefix=".llmcompressor-") as directory:
        tensors, quantization = run_llmcompressor(
            job, recipe, original, sequences, device, Path(directory)
        )
    record = {
        "tool": other_packages.tool_record("llmcompressor"),
        "calibration": calibration,
        "checks": {},
        "device": device,
    }
    other_packages.write_result(original, job, tensors, quantization, recipe, record)


def run_llmcompressor(
    job: Job,
    recipe: Recipe,
    original: Original,
    sequences: list[list[int]],
    device: str,
    directory: Path,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run it on the calibration `sequences`; all tensors of the result, and what it says of them.

    directory: an empty one for what it writes.
    """
    os.environ.setdefault("LLM_COMPRESSOR_LOG_LEVEL", "ERROR")  # else several lines a layer
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.pipelines.cache import IntermediatesCache
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    if device == "cpu":
        # Its cache pins what it will copy to a GPU, which fails where there is none.
        IntermediatesCache.pin_memory = lambda *_: None
    with loading(job.model, "fetch the model again, or quantize it without llm-compressor"):
        model = AutoModelForCausalLM.from_pretrained(
            job.model,
            dtype=other_packages.computing_dtype(original, device),
            trust_remote_code=job.trust_remote_code,
        ).to(device)
    samples = [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in sequences]
    oneshot(
        model=model,
        dataset=Dataset.from_list(samples),
        recipe=modifiers(recipe, scale_dtype(original)),
        num_calibration_samples=len(samples),
        max_seq_length=max(map(len, sequences)),
        shuffle_calibration_samples=False,
        tokenizer=str(job.model),
        output_dir=str(directory),
        log_dir=None,
    )
    tensors: dict[str, Any] = {}
    for file in sorted(directory.glob("*.safetensors")):
        tensors |= load_file(file)
    quantization = read_json(directory / "config.json").get("quantization_config")
    if not quantization:
        raise UserError(
            f"llm-compressor quantized no layer of {job.model}; leave tool out to let radquant do "
            "it"
        )
    # llm-compressor stores scales in the dtype that it computes in. Their values are those of this
    # narrower one.
    narrow = scale_dtype(original)
    for name in [name for name in tensors if name.endswith(".weight_scale")]:
        if torch.equal(tensors[name].to(narrow).float(), tensors[name].float()):
            tensors[name] = tensors[name].to(narrow)
    return tensors, quantization


def scale_dtype(original: Original) -> torch.dtype:
    """The dtype for scales: the model's own, as llm-compressor has it where it computes in that."""
    dtype = original.config.dtype
    return dtype if dtype in (torch.float16, torch.bfloat16) else torch.float16


def modifiers(recipe: Recipe, dtype: torch.dtype) -> list[Any]:
    """llm-compressor's own steps for a recipe, with its own defaults."""
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier

    by_row = recipe.group_size == WHOLE_ROW
    group = {
        "targets": ["Linear"],
        "weights": {
            "num_bits": recipe.bits,
            "type": "int" if recipe.type == INT else "float",
            "symmetric": not recipe.zero_point,
            "strategy": "channel" if by_row else "group",
            "group_size": None if by_row else recipe.group_size,
            "scale_dtype": dtype,
        },
        "input_activations": inputs(recipe.activations),
    }
    scheme: dict[str, Any] = {"config_groups": {"group_0": group}, "ignore": ["lm_head"]}
    rounding = (
        GPTQModifier(**scheme, dampening_frac=recipe.damp_percent)
        if uses_gptq_rounding(recipe)
        else QuantizationModifier(**scheme)
    )
    return [AWQModifier(), rounding] if recipe.method == "awq" else [rounding]


def inputs(rounded: Activations | None) -> dict[str, Any] | None:
    """What llm-compressor is told of the rounding of inputs."""
    if rounded is None:
        return None
    return {
        "num_bits": rounded.bits,
        "type": "int" if rounded.type == INT else "float",
        "symmetric": rounded.symmetric,
        "strategy": rounded.granularity,
        "dynamic": rounded.range == DYNAMIC,
    }
