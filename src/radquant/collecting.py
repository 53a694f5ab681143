"""When Python looks for objects to be freed."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collecting() -> Iterator[None]:
    """Let Python not look for objects to be freed meanwhile.

    While transformers is imported it would do so again and again, in vain, and take a sixth of that
    time.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
