"""What every script shares: turning errors into one sentence, and progress on long work."""

import io
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from radquant.errors import UserError
from radquant.failures import is_panic, sentence_of

T = TypeVar("T")


def run(main: Callable[[], None]) -> None:
    """Call `main` and exit: 0 on success, 1 with one sentence on a `UserError`, 130 on Ctrl-C.

    SIGTERM, which schedulers send, ends it as Ctrl-C does, with 143: temporary files are removed,
    and no child goes on.

    Of any other exception it tells what `radquant.failures` finds that may be told. The message is
    withheld, because libraries put the text that they were working on into it and that text may be
    a patient's; RADQUANT_DEBUG=1 shows it.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if isinstance(sys.stdout, io.TextIOWrapper):
        # As stderr does: a table's minus sign ends no work where the locale has none.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BaseException as error:
        unexpected = isinstance(error, Exception) or is_panic(error)
        if not unexpected or os.environ.get("RADQUANT_DEBUG"):
            raise
        if (sentence := sentence_of(error)) is not None:
            print(f"error: {sentence}", file=sys.stderr)
            sys.exit(1)
        for frame in traceback.extract_tb(error.__traceback__):
            print(
                f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}', file=sys.stderr
            )
        print(
            f"error: {type(error).__name__} in the program itself; its message may hold report "
            "text and is shown only with RADQUANT_DEBUG=1",
            file=sys.stderr,
        )
        sys.exit(1)


def progress(items: Iterable[T], label: str, total: int, unit: str = "items") -> Iterator[T]:
    """Yield `items`, telling on stderr how far the work is.

    A terminal gets a bar; a log file gets one line at least ten seconds after the last. Nothing is
    told of work without a label.
    """
    if not label:
        yield from items
        return
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, desc=label, total=total, unit=unit)
        return
    started = last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last >= 10 or done == total:
            print(
                f"{label}: {done}/{total} {unit}, {now - started:.0f} s",
                file=sys.stderr,
                flush=True,
            )
            last = now
