"""When Python looks for objects to be freed."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collecting() -> Iterator[None]:
    """Let Python not look for objects to be freed meanwhile.

    It would do so again and again, in vain, where many objects are made that stay. That takes a
    sixth of the time of importing transformers, and more than half of reading code with `ast`.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
