"""Work on several threads where one operation of PyTorch is too small to be cut."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

A = TypeVar("A")
B = TypeVar("B")


def side_by_side(work: Callable[[A], B], items: Sequence[A]) -> list[B]:
    """`work` of each item, in order, on as many threads as PyTorch has for one operation.

    Each item is worked on by one thread, so results are the same to the bit for any number of
    threads. PyTorch lets go of Python's lock while it computes.
    """
    threads = torch.get_num_threads()
    if min(threads, len(items)) <= 1:
        return [work(item) for item in items]

    @torch.inference_mode()  # which a new thread does not inherit
    def alone(item: A) -> B:
        return work(item)

    try:
        # What is set here holds for this thread and for those that begin later.
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(alone, items))
    finally:
        torch.set_num_threads(threads)
