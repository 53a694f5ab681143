"""A model's weights one part at a time: from safetensors files, and into one without holding it.

The model itself is built empty, on PyTorch's meta device; only the part at work has weights.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from radquant.errors import UserError
from radquant.files import atomic_path, read_json

COPIED_BYTES = 1 << 24  # at a time


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies: bytes `begin` … `end` of `file`, a safetensors file."""

    file: Path
    key: str
    dtype: str  # safetensors' name: "F32", "BF16" …
    shape: tuple[int, ...]
    begin: int
    end: int

    def load(self) -> Tensor:
        with safe_open(self.file, framework="pt") as opened:
            tensor: Tensor = opened.get_tensor(self.key)
        return tensor


def read_header(file: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file by name, without reading them."""
    with open(file, "rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        try:
            header = json.loads(stream.read(length))
        except ValueError:
            raise UserError(f"{file} is not a safetensors file; fetch it again") from None
    header.pop("__metadata__", None)
    start = 8 + length
    return {
        name: StoredTensor(
            file,
            name,
            entry["dtype"],
            tuple(entry["shape"]),
            *(start + offset for offset in entry["data_offsets"]),
        )
        for name, entry in header.items()
    }


def stored_tensors(directory: Path) -> dict[str, StoredTensor]:
    """Every tensor of a model directory, from all its safetensors files."""
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        files = sorted({directory / name for name in read_json(index)["weight_map"].values()})
    else:
        files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise UserError(f"{directory} holds no .safetensors file; pickled weights are not loaded")
    found: dict[str, StoredTensor] = {}
    for file in files:
        if not file.is_file():
            raise UserError(f"{file} is missing; fetch the model again")
        found |= read_header(file)
    return found


def join_tensors(
    output: Path, tensors: Mapping[str, StoredTensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write `tensors` by name to one safetensors file, copying their bytes a little at a time."""

    def item_size(tensor: StoredTensor) -> int:
        return (tensor.end - tensor.begin) // max(torch.Size(tensor.shape).numel(), 1)

    # Wide items first, as the library does, so that each tensor's start is aligned.
    order = sorted(tensors, key=lambda name: (-item_size(tensors[name]), name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    offset = 0
    for name in order:
        tensor = tensors[name]
        end = offset + tensor.end - tensor.begin
        entry = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [offset, end]}
        header[name], offset = entry, end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with atomic_path(output) as part, open(part, "wb") as target:
        target.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            with open(tensors[name].file, "rb") as source:
                source.seek(tensors[name].begin)
                left = tensors[name].end - tensors[name].begin
                while left:
                    piece = source.read(min(left, COPIED_BYTES))
                    if not piece:
                        raise UserError(f"{tensors[name].file} ends too soon; make it again")
                    target.write(piece)
                    left -= len(piece)


def model_class(config: Any) -> Any:
    """The transformers class that builds a language model, or one with images, from `config`."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    return AutoModelForImageTextToText if "vision_config" in config else AutoModelForCausalLM


def drop_unknown_padding(config: Any) -> None:
    """Let a padding token that the vocabulary has not be none: no embedding can be kept for it."""
    text = config.get_text_config()
    for each in (config, text):
        pad = getattr(each, "pad_token_id", None)
        if isinstance(pad, int) and not 0 <= pad < getattr(text, "vocab_size", pad + 1):
            each.pad_token_id = None


def empty_model(config: Any, trust_remote_code: bool = False) -> nn.Module:
    """The model of `config` with its parameters on the meta device; its buffers are real."""
    from accelerate import init_empty_weights

    drop_unknown_padding(config)
    with init_empty_weights(include_buffers=False):
        model: nn.Module = model_class(config).from_config(
            config, trust_remote_code=trust_remote_code
        )
    return model.eval().requires_grad_(False)


def names_in_model(model: Any, stored: Iterable[str]) -> dict[str, str]:
    """The model's own name of each tensor of a checkpoint: {stored: own}, tied ones left out.

    Checkpoints outlive the layout of the classes that made them (MedGemma's files speak of
    `language_model.model.layers`, its class today of `model.language_model.layers`); transformers
    keeps the rules for that. Raises UserError unless every parameter is found.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming, rename_source_key

    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if not isinstance(rule, WeightRenaming)]
    own = model.state_dict()
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    names = {}
    for name in stored:
        renamed, pattern = rename_source_key(
            name, renamings, converters, model.base_model_prefix, own
        )
        if pattern is not None:
            raise UserError(
                f"{name} is stored in another form than {type(model).__name__} computes with; "
                "this model cannot be quantized yet"
            )
        if renamed not in own and name in own:
            renamed = name
        if renamed not in tied:
            names[name] = renamed
    missing = sorted(own.keys() - set(names.values()) - tied)
    unknown = sorted(set(names.values()) - own.keys())
    if missing or unknown:
        odd = f"lacks {missing[0]}" if missing else f"has an unknown tensor {unknown[0]}"
        raise UserError(f"the model's weight files do not fit its config.json: the model {odd}")
    return names


def fill(
    module: nn.Module,
    tensors: Mapping[str, StoredTensor],
    device: torch.device,
    keep: nn.Module | None = None,
) -> None:
    """Give `module` those of its weights that `tensors` has by its own names, in float32.

    Those of its part `keep` stay in the dtype that they are stored in.
    """
    kept = {id(each) for each in keep.parameters()} if keep is not None else set()
    own = dict(module.named_parameters())
    state = {}
    for name, stored in tensors.items():
        tensor = stored.load()
        converted = tensor.is_floating_point() and id(own.get(name)) not in kept
        state[name] = tensor.to(device, torch.float32 if converted else tensor.dtype)
    module.load_state_dict(state, strict=False, assign=True)
