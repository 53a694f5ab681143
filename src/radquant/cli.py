"""What every script shares: its command line, errors in one sentence, progress, the last line."""

import argparse
import difflib
import io
import itertools
import os
import signal
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from radquant.errors import UserError
from radquant.failures import is_panic, sentence_of

T = TypeVar("T")
EXAMPLE = "example:\n"
FIRST, EVERY = 4.0, 10.0  # seconds until a line tells of long work, and between two such lines
AT_WORK = "at work"


class Help(argparse.HelpFormatter):
    """Tells the default of every option that has one. Examples keep their lines."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        parts = text.strip().split("\n\n")
        return "\n\n".join(
            part if part.startswith(EXAMPLE) else super(Help, self)._fill_text(part, width, indent)
            for part in parts
        )

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = action.help or "", action.default
        if default in (None, [], argparse.SUPPRESS) or default is False or "(default: " in text:
            return text
        shown = " ".join(map(str, default)) if isinstance(default, list) else str(default)
        return f"{text} (default: {shown.replace('%', '%%')})"


class Parser(argparse.ArgumentParser):
    """Names unknown options and the nearest known ones, whatever else is wrong with the line.

    argparse would say of `--quantised Q` that `--quantized` is missing.
    """

    line: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self.line = sys.argv[1:] if args is None else list(args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        known = self._option_string_actions
        options = itertools.takewhile(lambda word: word != "--", self.line)
        names = [word.partition("=")[0] for word in options if word.startswith("--")]
        unknown = [name for name in dict.fromkeys(names) if name not in known and " " not in name]
        if unknown:
            message = f"unrecognized arguments: {' '.join(unknown)}"
            near = [*filter(None, (_nearest(name, known) for name in unknown))]
            message += f"; did you mean {' '.join(near)}?" if near else ""
        super().error(message)


def _nearest(name: str, known: Iterable[str]) -> str:
    return "".join(difflib.get_close_matches(name, list(known), n=1))


def new_parser(about: str | None, example: str, more: str = "") -> argparse.ArgumentParser:
    """The parser of a script's options, each of which has to be written out.

    about: the script's docstring. example: one whole command. more: what stands before it.
    """
    shown = textwrap.indent(example.strip(), "  ")
    return Parser(
        description=about,
        epilog=f"{more}\n\n{EXAMPLE}{shown}",
        formatter_class=Help,
        allow_abbrev=False,
    )


def done(path: object, told: str) -> None:
    """The last line of a script: the file or folder that it made, and its main number."""
    print(f"{path}: {told}", flush=True)


def size_of(path: Path) -> str:
    """The size of a file, or of all files directly in a folder."""
    files = path.iterdir() if path.is_dir() else [path]
    return size(sum(each.stat().st_size for each in files if each.is_file()))


def size(count: float) -> str:
    """Write bytes in decimal units."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if count >= factor:
            return (
                f"{count / factor:.3g} {unit}"
                if count < 999.5 * factor
                else f"{count / factor:,.0f} {unit}"
            )
    return f"{count / 1e3:.3g} kB"


def duration(seconds: float) -> str:
    """Write seconds in words: 0.4 s, 12 s, 3 min 20 s, 36 min, 2 h 5 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    if seconds < 599.5:
        return "{} min {} s".format(*divmod(round(seconds), 60))
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def run(main: Callable[[], None]) -> None:
    """Call `main` and exit: 0 on success, 1 with one sentence on a `UserError`, 130 on Ctrl-C.

    SIGTERM, which schedulers send, ends it as Ctrl-C does, with 143: temporary files are removed,
    and no child goes on.

    Of any other exception it tells what `radquant.failures` finds that may be told. The message is
    withheld: libraries put the text that they were working on into it, and that may be a patient's.
    RADQUANT_DEBUG=1 shows it.

    After four seconds a line tells that it is at work: loading a model counts nothing.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if isinstance(sys.stdout, io.TextIOWrapper):
        # stdout then writes escapes as stderr does. Otherwise a table's minus sign would end the
        # program where the locale has none.
        sys.stdout.reconfigure(errors="backslashreplace")
    begun = threading.Timer(FIRST, _tell_of_work)
    begun.daemon = True
    begun.start()
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
    finally:
        begun.cancel()


def _tell_of_work() -> None:
    print(AT_WORK, file=sys.stderr, flush=True)


def progress(items: Iterable[T], label: str, total: int, unit: str = "items") -> Iterator[T]:
    """Yield `items`, telling on stderr how far the work is.

    A terminal gets a bar; a log file gets a line after four seconds, and one at least ten seconds
    after the last. Nothing is told of work without a label.
    """
    if not label:
        yield from items
        return
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, desc=label, total=total, unit=unit)
        return
    started = time.monotonic()
    last = started - EVERY + FIRST
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last >= EVERY or done == total:
            print(
                f"{label}: {done}/{total} {unit}, {now - started:.0f} s",
                file=sys.stderr,
                flush=True,
            )
            last = now
