"""What may be said of an exception that nobody expected, and what may not.

A library puts the text that it was working on into its message, and that text may be a patient's.
So a message is told only where it cannot hold any: of memory, file systems, imports, and loading
models. All else is withheld.
"""

import contextlib
import errno
import os
import re
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from radquant.errors import UserError

LONGEST = 300  # characters of a library's message
# What libraries say in a plain RuntimeError or OSError when memory ran out.
OUT_OF_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    *("not enough memory", "bad_alloc", "Cannot allocate memory", "CUBLAS_STATUS_ALLOC_FAILED"),
    *("CUDA out of memory", "HIP out of memory", "CUDA error: out of memory"),
)
MORE_MEMORY = (
    "lower generation.batch_size or calibration.max_tokens, set compute.dtype bfloat16, run fewer "
    "jobs at once (--cores), take a smaller model, or a machine with more"
)
FEWER_THREADS = "lower compute.threads or --cores, or raise the limit (ulimit -u)"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
TOO_MANY_FILES = (errno.EMFILE, errno.ENFILE)
ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
BROKEN = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT)
# Errors of a GPU's driver and libraries, which see no text.
OF_A_GPU = ("CUDA error", "CUDA driver", "HIP error", "cuDNN error", "Found no NVIDIA driver")
PANIC = re.compile(rb"^thread '.*panicked at ", re.MULTILINE)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out; PyTorch's exception for GPUs is known by its name."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return any(message in str(error) for message in OUT_OF_MEMORY)


def is_panic(error: BaseException) -> bool:
    """Whether a library in Rust panicked, which is no `Exception` in Python."""
    return type(error).__name__ == "PanicException"


def sentence_of(error: BaseException) -> str | None:
    """What can be said of an exception without its message; None if nothing can."""
    if is_out_of_memory(error):
        return f"memory ran out; {MORE_MEMORY}"
    if isinstance(error, ImportError):
        return f"a package cannot be imported ({told(error)}); install what this program needs"
    if str(error).startswith(OF_A_GPU):
        return f"the GPU failed ({told(error)}); look at it with nvidia-smi, or set compute.device"
    if str(error) == "can't start new thread":
        return f"the system starts no more threads; {FEWER_THREADS}"
    number = error_number(error)
    if number is None:
        return None
    path = safe_path(error)
    where, why = f"{path} " if path else "a file ", os.strerror(number)
    if number in FULL:
        return f"{where}cannot be written ({why}); make room and run again"
    if number in FORBIDDEN:
        return f"{where}cannot be read or written ({why}); allow it, or choose another place"
    if number == errno.EAGAIN and not path:
        return f"the system starts no more processes ({why}); {FEWER_THREADS}"
    if number in TOO_MANY_FILES:
        return f"{where}cannot be opened ({why}); raise the limit (ulimit -n) and run again"
    if number in BROKEN:
        return f"{where}cannot be read or written ({why}); check the disk or the network's drive"
    if number in ABSENT and path:
        return f"{where}cannot be opened ({why}); check the path"
    return None


def error_number(error: BaseException) -> int | None:
    """The system's number of an error, which libraries in Rust tell at the end of a message."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    match = re.search(r"\(os error (\d+)\)$", str(error))
    return int(match[1]) if match else None


def safe_path(error: BaseException) -> str | None:
    """The file that an error is about, unless what stands there may be a text."""
    name = getattr(error, "filename", None)
    if not isinstance(name, str | os.PathLike) or os.sep not in str(name):
        return None
    try:
        folder = Path(name).parent
        return str(name) if folder.is_dir() and folder != Path(os.sep) else None
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def loading(what: str | Path, remedy: str = "fetch or save the model again") -> Iterator[None]:
    """Tell a library's own message, with `what` is loaded: files that hold no report's text.

    Raises UserError for whatever goes wrong inside, but where memory or a file system is at fault.
    """
    try:
        yield
    except UserError:
        raise
    except BaseException as error:
        expected = isinstance(error, Exception) or is_panic(error)
        if not expected or is_out_of_memory(error):
            raise
        raise UserError(f"{what} cannot be loaded ({about(error)}); {remedy}") from error


def about(error: BaseException) -> str:
    """The kind of an exception and what it says; for what holds no report's text."""
    kind, message = type(error).__name__, told(error)
    return f"{kind}: {message}" if message else kind


def told(error: BaseException) -> str:
    """What an exception says, in one line that is not too long."""
    message = " ".join(str(error).split()).rstrip(".")
    return message if len(message) <= LONGEST else f"{message[:LONGEST]} …"


_swapping = threading.RLock()


@contextlib.contextmanager
def withheld_panics() -> Iterator[None]:
    """Keep what a library in Rust says when it panics away from stderr: it may quote the text.

    It writes to the file descriptor itself, before there is an exception. Everything that is said
    meanwhile comes afterwards, so this is for short work.
    """
    if os.environ.get("RADQUANT_DEBUG"):
        yield
        return
    with _swapping, contextlib.ExitStack() as stack:
        try:
            kept = os.dup(2)
        except OSError:  # there is no stderr
            yield
            return
        stack.callback(os.close, kept)
        # It is kept in a file in memory, because it may hold a text. Where the system has no such
        # file, it is lost.
        place = os.memfd_create("stderr") if hasattr(os, "memfd_create") else os.devnull
        caught = stack.enter_context(open(place, "r+b", buffering=0))
        flush()
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            flush()
            os.dup2(kept, 2)
            caught.seek(0)
            said = PANIC.split(caught.read(), maxsplit=1)[0]
            while said:
                said = said[os.write(2, said) :]


def flush() -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.flush()


KILLED = f"was killed, most likely because memory ran out; {MORE_MEMORY}"


def how_it_ended(code: int) -> str:
    """In words how a child process failed that left this exit status."""
    if code in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return KILLED
    return f"failed (exit status {code}); its own message stands above this line"


def tell_of_killed(python: str) -> str:
    """Shell code for a job's beginning: if the system kills its program, this module's says so.

    The program itself can say nothing then. A pipe's status must be the program's (pipefail).
    python: of this package, quoted for a shell. The sentence itself is not in the code, which
    Snakemake prints for every job that fails.
    """
    say = f"test $? -ne {128 + signal.SIGKILL} || {python} -m radquant.failures >&2"
    return f"trap {shlex.quote(say)} EXIT"


if __name__ == "__main__":
    print(f"error: the job {KILLED}")
