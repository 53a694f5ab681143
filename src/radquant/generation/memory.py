"""Going on with smaller batches where one does not fit into memory."""

import ctypes
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from radquant import memory_plan
from radquant.errors import UserError
from radquant.failures import is_out_of_memory

Item = TypeVar("Item")
Result = TypeVar("Result")


class NotEnoughMemory(UserError):
    """Not even one report fits into memory."""


say_once = memory_plan.told_once(lambda text: print(text, file=sys.stderr, flush=True))


def rows_that_fit(
    config: Any, length: int, scored: int, asked: int, dtype: torch.dtype, device: torch.device
) -> int:
    """How many of `asked` sequences may be computed at once, by what is free now.

    config: the model's. length: tokens of the longest. scored: positions of each whose scores are
    computed. Fewer than asked for are told on stderr. All, where the model does not say its sizes.
    """
    widths = memory_plan.widths_of(config)
    if widths is None:
        return asked
    each = memory_plan.row_bytes(widths, length, scored, dtype.itemsize)
    free = free_on(device) - memory_plan.batch_bytes(widths, scored)
    rows = min(asked, memory_plan.batch_for(free, each))
    if rows < asked:
        say_once(
            f"{memory_plan.in_gb(free)} are free and a sequence of {length} tokens takes about "
            f"{memory_plan.in_gb(each)}: batches of {asked} are computed in parts of {rows}"
        )
    return rows


def free_on(device: torch.device) -> int:
    """Bytes that a computation may still take, what PyTorch keeps for itself included."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    return memory_plan.free_bytes()


def give_back() -> None:
    """Hand the system what was freed: C's library keeps it where blocks in use lie behind it.

    https://man7.org/linux/man-pages/man3/malloc_trim.3.html; other libraries have no such call.
    """
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def in_parts(
    run: Callable[[Sequence[Item]], list[Result]],
    batch: Sequence[Item],
    too_large: list[int],
    most: int | None = None,
) -> list[Result]:
    """Return run(batch), a result for each item in their order, in parts where it must be.

    too_large: the sizes that did not fit so far, over all batches. One that does not fit now is
    added. Nothing larger than half of the least is tried again. most: how many items may be tried
    at once, by what is free (`rows_that_fit`). A Linux that promises more memory than it has kills
    the process instead of refusing. Nothing can be halved then.

    Raises UserError when a single item does not fit.
    """
    results: list[Result] = []
    while len(results) < len(batch):
        left = len(batch) - len(results)
        size = min([left, most or left, *((failed + 1) // 2 for failed in too_large)])
        try:
            results += run(batch[len(results) : len(results) + size])
            continue
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Out of the handler, whose traceback would keep the batch's tensors.
        if size == 1:
            raise NotEnoughMemory(
                "a single report does not fit into memory beside the model; use shorter prompts, a "
                "smaller model or another machine"
            )
        too_large.append(size)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return results
