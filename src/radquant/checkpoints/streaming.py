"""A model's weights one part at a time: into its modules, and into a file without holding it."""

import ctypes
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from radquant.errors import UserError
from radquant.files import atomic_path
from radquant.model_files import StoredTensor

COPIED_BYTES = 1 << 24  # at a time


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


def give_back() -> None:
    """Give memory that is free inside of the heap back to the system, where the C library can.

    glibc keeps freed tensors of up to 32 MB between small ones, and may use none of them again.
    Without this, a model's attention weights stayed behind, layer after layer.
    """
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)
