"""Bounds on the time and memory of what comes from others and may not end."""

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any


class TooLong(Exception):
    """The time is over."""


class TooMuch(Exception):
    """There is no more memory for this."""


@contextmanager
def bounded(seconds: float, more_bytes: int) -> Iterator[None]:
    """Raise TooLong or TooMuch in what runs inside, once it takes more than that.

    more_bytes: above what the process takes already. Only the main thread can be interrupted, and
    only Linux says what a process takes: elsewhere nothing is bounded.
    """
    with ExitStack() as stack:
        if threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer"):
            stack.enter_context(_timed(seconds))
        if Path("/proc/self/statm").is_file():
            stack.enter_context(_limited(more_bytes))
        yield


@contextmanager
def _timed(seconds: float) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TooLong

    handler = signal.signal(signal.SIGALRM, stop)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler or signal.SIG_DFL)  # None: not of Python


@contextmanager
def _limited(more_bytes: int) -> Iterator[None]:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    wanted = pages * resource.getpagesize() + more_bytes
    limits = [each for each in (soft, hard) if each != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min([wanted, *limits]), hard))
    try:
        yield
    except MemoryError:
        raise TooMuch from None
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
