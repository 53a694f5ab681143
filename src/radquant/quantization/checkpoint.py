"""Packed checkpoints on disk: writing them whole, and building the model back from them.

A checkpoint is a Hugging Face directory in AutoAWQ's GEMM format plus `quantization.json`, which
holds the recipe, the error of each layer, and the sha256 of every other file.
"""

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from radquant.errors import UserError
from radquant.files import atomic_directory, hash_directory, read_json, verify_hashes, write_json
from radquant.kernels.reference import PackedLinear
from radquant.quantization.grid import Recipe

RECORD = "quantization.json"
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack")
NOT_COPIED = ("source.json", "config.json", "model.safetensors.index.json", RECORD)


def quantization_config(recipe: Recipe) -> dict[str, Any]:
    """The `quantization_config` that AutoAWQ, vLLM and transformers read from config.json.

    A symmetric grid is stored with zeros in its middle, so the file has zero points either way.
    """
    return {
        "quant_method": "awq",
        "bits": recipe.bits,
        "group_size": recipe.group_size,
        "zero_point": True,
        "version": "gemm",
        "modules_to_not_convert": ["lm_head"],
    }


def unique_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The model's state without second names of tied tensors."""
    seen: set[int] = set()
    tensors = {}
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            tensors[name] = tensor.contiguous()
    return tensors


def write_checkpoint(
    source: Path,
    output: Path,
    model: nn.Module,
    packed: dict[str, Tensor],
    recipe: Recipe,
    record: dict[str, Any],
) -> None:
    """Write `model`'s other tensors, the packed linears, tokenizer and record to `output`."""
    config = read_json(source / "config.json")
    config["quantization_config"] = quantization_config(recipe)
    with atomic_directory(output) as part:
        save_file({**unique_tensors(model), **packed}, part / "model.safetensors", {"format": "pt"})
        write_json(part / "config.json", config)
        # safetensors makes its file readable by the owner alone, whatever the umask says.
        shutil.copymode(part / "config.json", part / "model.safetensors")
        for path in sorted(source.iterdir()):
            weights = path.suffix in WEIGHT_SUFFIXES
            if path.is_file() and not weights and path.name not in NOT_COPIED:
                shutil.copyfile(path, part / path.name)
        write_json(part / RECORD, {**record, "files": hash_directory(part, exclude=[RECORD])})


def verify(directory: Path) -> None:
    """Check the sha256 of every file that this program wrote or fetched into `directory`.

    A directory that it did not make carries no record and is taken as it is.
    """
    for record, remedy in (
        (RECORD, "delete the directory and quantize again"),
        ("source.json", "delete the directory and fetch the model again"),
    ):
        if (directory / record).is_file():
            verify_hashes(directory, read_json(directory / record)["files"], remedy)


def read_tensors(directory: Path) -> dict[str, Tensor]:
    """Every tensor of a directory's safetensors files."""
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise UserError(f"{directory} holds no .safetensors file; pickled weights are not loaded")
    tensors: dict[str, Tensor] = {}
    for file in files:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 (not a dict)
                tensors[name] = opened.get_tensor(name)
    return tensors


def packed_linear(linear: nn.Linear, quantization: dict[str, Any]) -> PackedLinear:
    """An empty packed layer in the shape of `linear`."""
    bits, group_size = quantization["bits"], quantization["group_size"]
    return PackedLinear(
        linear.in_features, linear.out_features, bits, group_size, linear.bias is not None
    )


def build_packed_model(config: Any, directory: Path, dtype: torch.dtype) -> nn.Module:
    """Build the model of a packed checkpoint on the CPU; packed layers stay packed.

    config: the checkpoint's transformers config. Tensors that are not packed get `dtype`.
    """
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    quantization = config.quantization_config
    if quantization.get("quant_method") != "awq" or quantization.get("version") != "gemm":
        raise UserError(f"{directory / 'config.json'} is not of a checkpoint in AWQ's GEMM format")
    del config.quantization_config
    tensors = read_tensors(directory)
    with no_init_weights():  # memory that is never written is never taken
        model: nn.Module = AutoModelForCausalLM.from_config(config, dtype=dtype)
    packed = {name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")}
    for name in sorted(packed):
        parent, _, child = name.rpartition(".")
        linear = model.get_submodule(name)
        if not isinstance(linear, nn.Linear):
            raise UserError(f"{directory}: {name} is packed but is no linear layer of the model")
        setattr(model.get_submodule(parent), child, packed_linear(linear, quantization))
    for name, tensor in tensors.items():
        if not name.endswith((".qweight", ".qzeros", ".scales")):
            tensors[name] = tensor.to(dtype)
    assign_all(model, tensors, directory)
    return model


def assign_all(model: nn.Module, tensors: dict[str, Tensor], directory: Path) -> None:
    """Put `tensors` in place of the model's own; every tensor of both must find its match."""
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    for name, tensor in tensors.items():
        if name in shapes and shapes[name] != tensor.shape:
            raise UserError(
                f"{directory}: {name} has shape {list(tensor.shape)}, "
                f"the configuration says {list(shapes[name])}"
            )
    missing, unexpected = model.load_state_dict(tensors, strict=False, assign=True)
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    model.tie_weights()  # type: ignore[operator]
    lacking = sorted(set(missing) - tied)
    if lacking or unexpected:
        which = f"lacks {lacking[0]}" if lacking else f"has an unknown tensor {unexpected[0]}"
        raise UserError(f"{directory}: the checkpoint {which}; it does not fit its config.json")
