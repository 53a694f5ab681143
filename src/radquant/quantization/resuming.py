"""Finished layers on disk, so that a killed quantization goes on where it was."""

import hashlib
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from radquant import code
from radquant.files import (
    hash_directory,
    hash_path,
    is_whole,
    read_json,
    recorded_path,
    write_json,
)
from radquant.quantization.samples import Sample
from radquant.settings.recipe import Recipe, recipe_values

FINGERPRINT = "fingerprint.json"


def tensors_name(layer: int) -> str:
    return f"layer-{layer:04d}.safetensors"


def runtime_name(layer: int) -> str:
    """The file of what the checkpoint brings for run time."""
    return f"layer-{layer:04d}.runtime.safetensors"


def record_name(layer: int) -> str:
    return f"layer-{layer:04d}.json"


def hidden_name(layer: int) -> str:
    """The file of the hidden states that decoder layer `layer` gets."""
    return f"hidden-{layer:04d}.f32"


def fingerprint_of(
    model: Path,
    samples: Sequence[Sample] | None,
    recipe: Recipe,
    form: str,
    device: torch.device,
) -> dict[str, Any]:
    """Everything on which a layer's bytes depend: what was computed under another is not used."""
    if (model / "source.json").is_file():
        files = read_json(model / "source.json")["files"]  # which were just verified
    else:
        files = hash_directory(model)
    ids = hashlib.sha256()
    for sample in samples or ():
        ids.update(len(sample).to_bytes(8, "little") + sample.ids.numpy().tobytes())
        for image in sample.images:
            ids.update(f"{image.sha256} {sample.image_weight}".encode())
    return {
        "model": files,
        "calibration": ids.hexdigest(),
        "recipe": recipe_values(recipe),
        "format": form,
        "device": str(device),
        "threads": torch.get_num_threads(),
        **code.surroundings(with_processor=True),
        "code": code.hashes(code.script("quantize.py")),
    }


def finished_layers(work: Path) -> int:
    """How many layers, from the first on, are complete."""
    count = 0
    while all((work / name(count)).is_file() for name in (record_name, tensors_name)):
        count += 1
    return count


def prepare(work: Path, fingerprint: dict[str, Any]) -> int:
    """Make `work` ready and return the number of layers in it that can be kept.

    None can if one of its files is no longer what was written.
    """
    path = work / FINGERPRINT
    damaged = [file for file in work.iterdir() if not is_whole(file)] if work.is_dir() else []
    if damaged:
        print(f"{damaged[0]} was changed: all layers are made again", file=sys.stderr, flush=True)
    if damaged or not path.is_file() or read_json(path) != fingerprint:
        shutil.rmtree(work, ignore_errors=True)
        write_json(path, fingerprint)
    return finished_layers(work)


def finish_layer(
    work: Path,
    layer: int,
    tensors: dict[str, Tensor],
    runtime: dict[str, Tensor],
    record: dict[str, Any],
) -> None:
    """Keep a layer; its record comes last and says that the rest is whole."""
    with recorded_path(work / tensors_name(layer)) as part:
        save_file(tensors, part)
    if runtime:
        with recorded_path(work / runtime_name(layer)) as part:
            save_file(runtime, part)
    write_json(work / record_name(layer), record)
    hash_path(work / hidden_name(layer)).unlink(missing_ok=True)
    (work / hidden_name(layer)).unlink(missing_ok=True)
