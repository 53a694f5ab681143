"""Taking a GGUF file as a checkpoint of the original.

The file is taken as it is. Configuration and tokenizer are the original's, after the file's own
keys and vocabulary were found to say the same. No GGUF file of a language model has some tensors,
such as those that see images. These are the original's, too.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from radquant.checkpoints.compatible import OTHER_TEMPLATE
from radquant.checkpoints.fitting import empty_model, found_names, open_config
from radquant.checkpoints.gguf_model import LANGUAGE, beside_language, fit_vocabulary
from radquant.checkpoints.streaming import join_tensors
from radquant.checkpoints.writing import copy_rest
from radquant.errors import UserError
from radquant.fetching import clone_or_copy
from radquant.files import read_json, write_json
from radquant.gguf.keys import check_keys
from radquant.gguf.reading import FLOAT_TYPES, GGUFModel, GGUFTensor, read_model
from radquant.gguf.vocabulary import check_vocabulary
from radquant.model_files import CONFIG, GGUF, SINGLE, stored_tensors
from radquant.tokenizer_files import read_tokenizer

MOSTLY = "MOSTLY_"  # before the names of kinds of files


def take_file(path: Path, original: Path, part: Path, name: str, code: bool) -> dict[str, Any]:
    """Copy a GGUF file into `part` under `name`; the record's part that tells of it.

    original: the directory of the model that it is compared with. Raises UserError for a file that
    is damaged, of a kind that is not known, or of another model.
    """
    file = read_model(path)
    config = open_config(original, code)
    check_keys(file, config)
    notes = check_vocabulary(file, original, code)
    with_images = getattr(config, "vision_config", None) is not None
    beside = beside_language(stored_tensors(original)) if with_images else {}
    layers = packed_linears(file, config, beside, code)
    if not layers:
        raise UserError(
            f"{path} holds no quantized linear layer, only {kind_of(file)}; give a quantized file"
        )
    quantization = {"quant_method": GGUF, "file": name}
    write_config(original, part, {"quantization_config": quantization})
    clone_or_copy(path.resolve(), part / name)
    if beside:
        join_tensors(part / SINGLE, beside)
    copy_rest(original, part)
    return {
        "format": GGUF,
        "says": {"type": kind_of(file), "bits": bits_of(layers.values())},
        "layers": [{"name": layer, "type": each.type} for layer, each in sorted(layers.items())],
        "notes": notes + template_notes(file, original, code),
    }


def packed_linears(
    file: GGUFModel, config: Any, beside: Mapping[str, Any], code: bool
) -> dict[str, GGUFTensor]:
    """The linear layers that the file holds quantized, by the model's own names.

    Raises UserError unless the file, and what lies beside it, hold all of the model.
    """
    names = file.hugging_face_names()
    fit_vocabulary(file, names, config)
    model = empty_model(config, code)
    before = LANGUAGE if getattr(config, "vision_config", None) is not None else ""
    asked = {f"{before}{name}": file.tensors[stored] for stored, name in names.items()}
    own, _, _ = found_names(model, [*asked, *beside], file.path)
    found = {}
    for name, tensor in asked.items():
        layer, _, kind = own.get(name, "").rpartition(".")
        packed = kind == "weight" and tensor.type not in FLOAT_TYPES
        if packed and isinstance(model.get_submodule(layer), nn.Linear):
            found[layer] = tensor
    return found


def kind_of(file: GGUFModel) -> str:
    """What the file calls itself, "Q4_K_M"; or else the types of its tensors."""
    from gguf import LlamaFileType

    said = file.keys.get("general.file_type")
    known = {int(each): each.name for each in LlamaFileType}
    if said in known:
        return known[said].removeprefix(MOSTLY)
    found = {tensor.type for tensor in file.tensors.values()}
    return ", ".join(sorted(found - set(FLOAT_TYPES) or found))


def bits_of(tensors: Any) -> float:
    """Bits that a weight of these tensors takes on average, scales included."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    bits = count = 0.0
    for tensor in tensors:
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType[tensor.type]]
        weights = float(tensor.shape[0]) * tensor.shape[1]
        bits, count = bits + weights * 8 * size / block, count + weights
    return round(bits / count, 2)


def template_notes(file: GGUFModel, original: Path, code: bool) -> list[str]:
    said = file.keys.get("tokenizer.chat_template")
    own = read_tokenizer(original, code).chat_template
    return [OTHER_TEMPLATE] if (said or None) != own else []


def write_config(original: Path, part: Path, own: Mapping[str, Any]) -> None:
    """Write the original's configuration with what is the checkpoint's own."""
    write_json(part / CONFIG, read_json(original / CONFIG) | dict(own))
