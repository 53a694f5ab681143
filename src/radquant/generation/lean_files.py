"""Weights that do not fit into memory: the decoder's own form of them lies in a file.

The file is mapped, so the system reads the part that a product needs, and drops others for it.
Every step reads all weights once more, as fast as the disk can.
"""

import os
import shutil
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from radquant import memory_plan
from radquant.errors import UserError
from radquant.generation.memory import say_once

MAPS = Path("/proc/self/maps")

Place = Callable[[Tensor], Tensor]  # the same bytes, where they are kept


def in_memory(data: Tensor) -> Tensor:
    return data


def place_of_weights(modules: Sequence[nn.Module], folder: Path) -> Place:
    """Where the modules' weights are kept: in memory if they fit, else in files in `folder`.

    A job of Slurm keeps them in memory in any case. `profiles/slurm` submits those that run out of
    it again, with more. Raises UserError if they can lie nowhere.
    """
    size, free = mapped_bytes(modules), memory_plan.free_bytes(mapped=True)
    if memory_plan.weights_fit(size, free) or "SLURM_JOB_ID" in os.environ:
        return in_memory
    said = f"the weights need {memory_plan.in_gb(size)} more, and {memory_plan.in_gb(free)} of "
    said += "memory are free; they "
    where = f"{said}do not fit, and cannot lie in {folder.resolve()}"
    whole = sum(sizes_of(modules).values())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        room = shutil.disk_usage(folder).free
        if room >= whole:
            in_file(torch.zeros(1, dtype=torch.uint8), folder)
    except (OSError, RuntimeError) as error:  # PyTorch's own, where nothing can be mapped
        raise UserError(f"{where} ({error}); make it a folder that can be written to") from None
    if room < whole:
        sizes = f"{memory_plan.in_gb(whole)}, as {memory_plan.in_gb(room)} are free there"
        raise UserError(f"{where} with {sizes}; make room, or take a smaller model")
    say_once(f"{said}lie in {folder.resolve()} meanwhile, which is slow")

    def place(data: Tensor) -> Tensor:
        try:
            return in_file(data, folder)
        except OSError as error:
            raise UserError(f"{where} ({error}); make room, or take a smaller model") from None

    return place


def in_file(data: Tensor, folder: Path) -> Tensor:
    """The same bytes, [bytes] uint8, as a mapped file.

    It lies in `folder` and has no name: it ends with the process, however that ends.
    """
    size = data.numel()
    with tempfile.TemporaryFile(dir=folder) as file:
        # Else the process would be killed when it writes to what the disk has no room for.
        os.posix_fallocate(file.fileno(), 0, size)
        name = f"/proc/self/fd/{file.fileno()}"
        mapped = torch.from_file(name, shared=True, size=size, dtype=torch.uint8)
        mapped.copy_(data)
        os.fdatasync(file.fileno())  # what the disk has, the system can drop at once
    return mapped


def sizes_of(modules: Iterable[nn.Module]) -> dict[int, int]:
    """{place in memory: bytes} of the modules' weights."""
    return {
        each.data_ptr(): each.numel() * each.element_size()
        for module in modules
        for each in (*module.parameters(), *module.buffers())
    }


def mapped_bytes(modules: Iterable[nn.Module]) -> int:
    """Bytes of the modules' weights that are parts of mapped files.

    To free them gives no memory back: their copies come on top. Others were converted or unpacked
    when they were loaded, and are freed one after another.
    """
    if not MAPS.exists():  # not Linux
        return 0
    lines = (line.split(maxsplit=5) for line in MAPS.read_text(errors="replace").splitlines())
    spans = [line[0].split("-") for line in lines if len(line) == 6 and line[5].startswith("/")]
    begins, ends = ([int(span[side], 16) for span in spans] for side in (0, 1))

    def is_mapped(place: int) -> bool:
        before = bisect_right(begins, place) - 1
        return before >= 0 and place < ends[before]

    return sum(size for place, size in sizes_of(modules).items() if is_mapped(place))
