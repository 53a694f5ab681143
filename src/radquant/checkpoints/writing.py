"""Writing packed checkpoints whole, and checking the files of a directory this program made.

A checkpoint is a Hugging Face directory in one of the formats of `packed.formats`, plus a model
card and `quantization.json`. The latter holds the recipe, the error of each layer, and the sha256
of every other file.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from radquant.checkpoints.card import model_card
from radquant.checkpoints.streaming import join_tensors
from radquant.files import (
    atomic_directory,
    hash_directory,
    read_json,
    verify_hashes,
    write_json,
)
from radquant.gguf.quantized import write_quantized
from radquant.model_files import StoredTensor, check_links, files_beside, is_gguf
from radquant.runtime.runtime_file import FILE as RUNTIME

RECORD = "quantization.json"
CARD = "README.md"
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack")
NOT_COPIED = ("source.json", "config.json", "model.safetensors.index.json", CARD, RECORD)


def write_checkpoint(
    source: Path,
    output: Path,
    tensors: Mapping[str, StoredTensor],
    quantization: Mapping[str, Any],
    record: Mapping[str, Any],
    runtime: Mapping[str, StoredTensor] | None = None,
    metadata: Mapping[str, str] | None = None,
    changed: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint whole: `tensors`, wherever they lie, and the rest (see `write_rest`).

    runtime: what it brings for run time, if anything, with the `metadata` of that file.
    """
    with atomic_directory(output) as part:
        if is_gguf(quantization):
            name, kind = str(quantization["file"]), str(quantization["type"])
            beside = write_quantized(source, tensors, kind, part / name)
            if beside:
                join_tensors(part / "model.safetensors", beside)
        else:
            join_tensors(part / "model.safetensors", tensors)
        if runtime:
            join_tensors(part / RUNTIME, runtime, metadata)
        write_rest(source, part, quantization, record, changed)


def write_rest(
    source: Path,
    part: Path,
    quantization: Mapping[str, Any],
    record: Mapping[str, Any],
    changed: Mapping[str, Any] | None = None,
) -> None:
    """Write everything but the weights of a checkpoint into `part`, where the weights lie already.

    source: the original's directory, whose configuration, tokenizer and licence files are taken
    over. quantization: the `quantization_config` for config.json. record: for quantization.json
    and the model card. changed: other keys of config.json.
    """
    config = read_json(source / "config.json") | {"quantization_config": dict(quantization)}
    write_json(part / "config.json", config | dict(changed or {}))
    copy_rest(source, part)
    (part / CARD).write_text(model_card(source, quantization, record), encoding="utf-8")
    write_json(part / RECORD, {**record, "files": hash_directory(part, exclude=[RECORD])})


def copy_rest(source: Path, part: Path) -> None:
    """Copy what a new checkpoint takes over as it is: the tokenizer, the license and the like.

    Of what lies in the folder, only that belongs to the model: a checkpoint may be published.
    """
    names = [name for name in files_beside(source, code=True) if name not in NOT_COPIED]
    check_links(source, names)
    for name in names:
        shutil.copyfile(source / name, part / name)


def verify(directory: Path, weights: bool = True) -> None:
    """Check the sha256 of every file that this program wrote or fetched into `directory`.

    weights: of those of weights, too. A directory that it did not make carries no record and is
    taken as it is.
    """
    for record, remedy in (
        (RECORD, "delete the directory, and quantize or download it again"),
        ("source.json", "delete the directory and fetch the model again"),
    ):
        if (directory / record).is_file():
            files = read_json(directory / record)["files"]
            chosen = {
                name: digest
                for name, digest in files.items()
                if weights or not name.endswith(WEIGHT_SUFFIXES)
            }
            verify_hashes(directory, chosen, remedy)
