"""What running another package's quantizer takes, whichever it is (`by_autoawq`, `by_gptqmodel`,
`by_llmcompressor`).

It is imported in that package's own environment (envs/autoawq.txt, …). That holds the release of
transformers that this package uses, so that both see the same model. llm-compressor's holds an
older one.
"""

import importlib.metadata
import os
import shutil
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers.utils.logging import disable_progress_bar

from radquant.checkpoints.building import packed_layers
from radquant.checkpoints.fitting import names_in_model
from radquant.checkpoints.loading import resolve_device
from radquant.checkpoints.writing import write_rest
from radquant.errors import UserError
from radquant.families.lookup import overflowing_type
from radquant.families.tools import check_model_type
from radquant.files import atomic_directory, read_json, read_table, require_file
from radquant.finite import is_finite, relative_change
from radquant.image_files import COLUMN
from radquant.model_files import StoredTensor
from radquant.packed.formats import Settings, check_tensors, settings_of, unpack
from radquant.quantization.job import Job
from radquant.quantization.original_model import (
    Original,
    check_recipe,
    open_original,
    require_finite_original,
)
from radquant.settings.recipe import Recipe, recipe_values
from radquant.settings.tool_limits import check_tool_recipe

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def prepare(tool: str, recipe: Recipe, job: Job) -> tuple[Original, str]:
    """Check all that can be checked before the tool itself is imported, and set PyTorch up.

    Returns the model to quantize, without its weights, and the device's type, "cpu" or "cuda".
    Raises UserError if the tool cannot do the recipe or the model, or the two do not fit.
    """
    check_tool_recipe(tool, recipe)
    require_file(job.model / "config.json")
    kind = read_json(job.model / "config.json").get("model_type")
    check_model_type(tool, kind, str(job.model))
    os.environ["HF_HUB_OFFLINE"] = "1"
    if job.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the tools take a GPU wherever they see one
    torch.set_num_threads(job.threads)
    disable_progress_bar()  # it would fill the logs
    original = open_original(job.model, job.trust_remote_code, dtype=None)
    check_recipe(original.model, original.architecture, recipe)
    require_finite_original(original)
    return original, resolve_device(job.device).type


def computing_dtype(original: Original, device: str) -> torch.dtype | str:
    """The dtype for a tool to compute in; "auto" is the one that the model is stored in.

    Both tools can do with float32 on a CPU. float16 is many times slower there. bfloat16, which
    GPTQModel takes by itself, rounds what is stored in a wider format.
    """
    if device == "cpu":
        return torch.float32
    config = original.config
    overflows = config.dtype == torch.float16 and overflowing_type(config.to_dict()) is not None
    return torch.bfloat16 if overflows else "auto"


def read_sequences(path: Path | None, config: Any, tool: str) -> list[list[int]]:
    """The token ids of every calibration sample.

    config: the model's transformers config. Raises UserError if a sample is longer than the model
    takes, or than the tool can run through it as the model would.
    """
    assert path is not None  # a tool without samples does not start
    table = read_table(path, require=["input_ids"])
    if COLUMN in table.columns:
        raise UserError(
            f"the samples in {path} show images, which {tool} cannot be shown here; make a "
            "calibration set of texts alone (calibration.images: false)"
        )
    sequences = [ids.tolist() for ids in table["input_ids"]]
    if not sequences or not all(sequences):
        raise UserError(f"{path} holds no samples or an empty one; make the calibration set again")
    longest = max(map(len, sequences))
    text = config.get_text_config()
    most = getattr(text, "max_position_embeddings", None)
    if most is not None and longest > most:
        raise UserError(
            f"{path} holds a sample of {longest} tokens and the model takes at most {most}; make "
            "the calibration set with fewer tokens a sample"
        )
    window = getattr(text, "sliding_window", None)
    if window and longest > window and len(set(getattr(text, "layer_types", None) or [])) > 1:
        raise UserError(
            f"{path} has a sample of {longest} tokens, and {tool} gives all layers the window of "
            f"{window}; make shorter samples, or use another tool"
        )
    return sequences


def calibration_record(job: Job, sequences: list[list[int]]) -> dict[str, Any]:
    """Where the samples come from, if that was given, and how much they are."""
    return {**job.origin(), "samples": len(sequences), "tokens": sum(map(len, sequences))}


def without_torchvision() -> None:
    """Let GPTQModel be imported where there is no torchvision, from which it needs nothing here.

    It imports torchvision for a single model with images. PyPI has torchvision for CUDA alone, and
    that does not load beside a CPU build of PyTorch.
    """
    name = "gptqmodel.models.definitions.internvl_chat"
    stand_in = types.ModuleType(name)
    stand_in.InternVLChatQModel = None  # type: ignore[attr-defined]
    sys.modules.setdefault(name, stand_in)


def write_result(
    original: Original,
    job: Job,
    tensors: Mapping[str, Tensor],
    quantization: Mapping[str, Any],
    recipe: Recipe,
    record: Mapping[str, Any],
) -> None:
    """Write what a tool made as a checkpoint like ours.

    tensors: all of the quantized model, packed ones in the format that `quantization`, the
    `quantization_config`, names. record: goes into quantization.json beside what is known here.
    Raises UserError if a linear layer is not packed or a packed one cannot be read.
    """
    settings = settings_of(quantization)
    packed = packed_layers(tensors, settings)
    inside = {name for layer in packed.values() for name in layer.values()}
    plain = [name for name in tensors if name not in inside]
    of_packed = [f"{layer}.weight" for layer in packed]
    names = names_in_model(original.model, [*plain, *of_packed], "what the package made")
    stored = {own: original.stored[name] for name, own in original.own_names.items()}
    layers = []
    for layer, suffixes in packed.items():
        parts = {suffix: tensors[name] for suffix, name in suffixes.items()}
        own = names[f"{layer}.weight"]
        layers.append(described(own, parts, stored[own], settings, recipe))
    expected = check_recipe(original.model, original.architecture, recipe)
    if len(layers) != expected:
        raise UserError(f"{len(layers)} linear layers were quantized, {expected} expected")
    kept = {name: tensors[name] for name in inside}
    for name in plain:
        if name in names:  # not under a second name, as tied weights are
            kept[name] = tensors[name].to(DTYPES[stored[names[name]].dtype])
    full = {
        **record,
        "recipe": recipe_values(recipe),
        "format": settings.format,
        "model": str(job.model),
        "layers": layers,
        "checks": {"layers_quantized": len(layers), **record.get("checks", {})},
        "threads": job.threads,
    }
    with atomic_directory(job.output) as part:
        weights = part / "model.safetensors"
        contiguous = {name: tensor.contiguous() for name, tensor in kept.items()}
        save_file(contiguous, weights, {"format": "pt"})
        # safetensors makes its file readable by the owner alone, whatever the umask says.
        shutil.copymode(job.model / "config.json", weights)
        write_rest(job.model, part, quantization, full | job.costs())


def described(
    weight: str,
    parts: dict[str, Tensor],
    original: StoredTensor,
    settings: Settings,
    recipe: Recipe,
) -> dict[str, Any]:
    """The record of the packed layer that holds `weight`; raises UserError if it cannot be read."""
    outputs, inputs = original.shape
    check_tensors(parts, settings, inputs, outputs)
    for suffix, tensor in parts.items():
        if not is_finite(tensor):
            raise UserError(
                f"{weight.removesuffix('.weight')}: the tool made {suffix} that hold infinities or "
                "NaN; use method awq, gptq or rtn without a tool"
            )
    record: dict[str, Any] = {"name": weight.removesuffix(".weight")}
    record |= {"in_features": inputs, "out_features": outputs}
    if recipe.method != "awq":  # whose scales change the weights more than rounding does
        before = original.load().float()
        record["weight_error"] = relative_change(unpack(parts, settings).dequantize(), before)
    return record


def tool_record(name: str) -> dict[str, str]:
    """The tool's name and release and those of what it runs on."""
    versions = {each: importlib.metadata.version(each) for each in (name, "transformers", "torch")}
    return {"name": name, "version": versions.pop(name), **versions}
