"""Going on with smaller batches where one does not fit into memory."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from radquant.errors import UserError
from radquant.failures import is_out_of_memory

Item = TypeVar("Item")
Result = TypeVar("Result")


class NotEnoughMemory(UserError):
    """Not even one report fits into memory."""


def in_parts(
    run: Callable[[Sequence[Item]], list[Result]], batch: Sequence[Item], too_large: list[int]
) -> list[Result]:
    """Return run(batch), a result for each item in their order, in parts where it must be.

    too_large: the sizes that did not fit so far, over all batches; one that does not fit now is
    added, and nothing larger than half of the least is tried again. (A Linux that promises more
    memory than it has kills the process instead of refusing; nothing can be halved then.)

    Raises UserError when a single item does not fit.
    """
    results: list[Result] = []
    while len(results) < len(batch):
        size = min([len(batch) - len(results), *((failed + 1) // 2 for failed in too_large)])
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
