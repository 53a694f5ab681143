"""Weights that do not fit into memory: the decoder's own form of them lies in a file.

The file is mapped, so the system reads the part that a product needs, and drops others for it.
Every step reads all weights once more, as fast as the disk can.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from radquant import memory_plan
from radquant.errors import UserError
from radquant.generation.memory import say_once

Place = Callable[[Tensor], Tensor]  # the same bytes, where they are kept


def in_memory(data: Tensor) -> Tensor:
    return data


def place_of_weights(size: int, folder: Path) -> Place:
    """Where weights of so many bytes are kept: in memory if they fit, else in files in `folder`.

    Those that are in memory already do not count, as they are freed when they have been copied.
    """
    free = memory_plan.free_bytes()
    if size <= (1 - memory_plan.KEPT_FREE) * free:
        return in_memory
    say_once(
        f"the weights take {memory_plan.in_gb(size)} and {memory_plan.in_gb(free)} of memory are "
        f"free; they are kept on the disk, which is slow"
    )
    return lambda data: in_file(data, folder)


def in_file(data: Tensor, folder: Path) -> Tensor:
    """The same bytes, [bytes] uint8, as a mapped file.

    It lies in `folder` and has no name: it ends with the process, however that ends. Raises
    UserError where it cannot be made, as on a full disk.
    """
    size = data.numel()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            # Else the process would be killed when it writes to what the disk has no room for.
            os.posix_fallocate(file.fileno(), 0, size)
            name = f"/proc/self/fd/{file.fileno()}"
            mapped = torch.from_file(name, shared=True, size=size, dtype=torch.uint8)
            mapped.copy_(data)
            os.fdatasync(file.fileno())  # what the disk has, the system can drop at once
    except OSError as error:
        raise UserError(
            "the weights do not fit into memory, and no file can hold them: "
            f"{memory_plan.in_gb(size)} in {folder}: {error.strerror}; make room there, or take a "
            "smaller model"
        ) from None
    return mapped
