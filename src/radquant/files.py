"""Reading and writing files so that a killed run leaves no half file that looks whole."""

import contextlib
import csv
import errno
import fcntl
import functools
import hashlib
import json
import math
import os
import platform
import re
import secrets
import shutil
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radquant.errors import UserError
from radquant.failures import is_out_of_memory

if TYPE_CHECKING:
    import pandas as pd

BOMB = (
    "the content is over a hundred times its packed size; unpack the file yourself if you trust it"
)


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is renamed to `path`, else removed.

    The file is its owner's alone (0600) from the start, because it may hold report text. Raises
    UserError where the file system takes no more or nothing at all.
    """
    target = Path(path)
    with _told_of(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(target)
        temporary.touch(mode=0o600, exist_ok=False)
    try:
        yield temporary
        with _told_of(target):
            os.replace(temporary, target)
    except Exception as error:
        _raise_refusal_to_write(target, error)
        raise
    finally:
        if temporary.exists():
            temporary.unlink()


WRITING_REFUSED = {
    number: os.strerror(number)
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
}


# Errors of the place that is written to. A read inside `atomic_path` can raise them, too.
PLACE_REFUSED = {
    number: os.strerror(number)
    for number in (
        *(errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.ENOENT),
    )
}


@contextlib.contextmanager
def _told_of(target: Path) -> Iterator[None]:
    """Raise UserError where nothing can be written under that name."""
    try:
        yield
    except OSError as error:
        _raise_refusal_to_write(target, error)
        if error.errno in PLACE_REFUSED:
            name = target if len(target.name) < 200 else f"{str(target)[:200]}…"
            raise UserError(
                f"{name} cannot be written ({PLACE_REFUSED[error.errno]}); move away what is in "
                "its place or in that of its folder, or take a shorter name"
            ) from None
        raise


def _raise_refusal_to_write(target: Path, error: Exception) -> None:
    """Raise UserError if it is the file system that did not take `target`."""
    number = error.errno if isinstance(error, OSError) else None
    # safetensors raises an exception of its own. Its message ends with the number as Rust writes
    # it.
    if told := re.search(r"\(os error (\d+)\)", str(error)):
        number = int(told[1])
    if number in WRITING_REFUSED:
        raise UserError(
            f"{target} cannot be written ({WRITING_REFUSED[number]}); make room or allow it, and "
            "run again"
        ) from None


HASH_SUFFIX = ".sha256"


def hash_path(path: str | Path) -> Path:
    """Where the sha256 of a file stands that this program wrote: beside it, hidden."""
    target = Path(path)
    return target.with_name(f".{target.name}{HASH_SUFFIX}")


@contextlib.contextmanager
def recorded_path(path: str | Path) -> Iterator[Path]:
    """`atomic_path` that also leaves the file's sha256 for `require_whole`.

    The record comes first: a run that is killed between the two leaves a file that is refused, not
    one that is believed.
    """
    with atomic_path(path) as part:
        yield part
        with atomic_path(hash_path(path)) as record:
            record.write_text(sha256_file(part) + "\n", encoding="ascii")


def is_whole(path: str | Path) -> bool:
    """Say whether a file is as it was written; one without a record is taken as it is."""
    record = hash_path(path)
    return not record.is_file() or record.read_bytes().strip() == sha256_file(path).encode()


# A process on another machine may be writing in a directory. A directory in which nothing has
# changed for so long counts as left by a kill.
SILENT_SECONDS = 3600


@functools.cache
def _kernel() -> str:
    """What tells this machine, since it was started, from all others: 8 hexadecimal digits.

    Containers share it on one machine, and have process ids and often host names of their own.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:  # not Linux
        boot = f"{platform.node()} {uuid.getnode()}"
    return sha256_text(boot.strip())[:8]


def _temporary(target: Path) -> Path:
    """A path beside `target` that no other call takes, on whatever machine."""
    return target.with_name(f".{target.name}.{_kernel()}-{secrets.token_hex(8)}.part")


@contextlib.contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """Yield a temporary directory beside `path`; on success it takes the place of `path`.

    What killed processes left of the same directory, which may be as large as a model, is removed.
    Raises UserError as `atomic_path` does.
    """
    target = Path(path)
    with _told_of(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    temporary, lock = _locked_directory(target)
    try:
        _remove_left(target, temporary)
        yield temporary
        with _told_of(target):
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            os.replace(temporary, target)
    except Exception as error:
        _raise_refusal_to_write(target, error)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(lock)


def _locked_directory(target: Path) -> tuple[Path, int]:
    """A new temporary directory for `target`, and the open file that holds its lock."""
    while True:
        temporary = _temporary(target)
        with _told_of(target):
            temporary.mkdir()
        try:
            lock = os.open(temporary, os.O_RDONLY)
        except FileNotFoundError:  # before it could be locked, another took it for left: see below
            continue
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        if temporary.exists():
            return temporary, lock
        os.close(lock)


def _remove_left(target: Path, own: Path) -> None:
    """Remove what killed processes left of `target`, and nothing that is being written.

    A writer holds a lock on its directory, which the kernel frees with the process. On the writer's
    own machine the lock is the answer, for containers, too: whoever gets it may remove the
    directory, at once. File systems that machines share do not carry locks on directories from one
    to the other (NFS keeps them to itself). So a directory of another machine counts as left when
    nothing has changed in it for an hour. No writer is silent for that long, as it copies tensors,
    downloads or unpacks. The time is the file system's own, from the directory just made: machines'
    clocks differ.
    """
    names = re.compile(rf"\.{re.escape(target.name)}\.(?:([0-9a-f]{{8}})-[0-9a-f]{{16}}|\d+)\.part")
    now = own.stat().st_mtime
    for left in target.parent.iterdir():
        match = names.fullmatch(left.name)
        if match is None or left == own:
            continue
        with contextlib.suppress(FileNotFoundError):  # finished or removed meanwhile
            lock = os.open(left, os.O_RDONLY)
            try:
                locked = _has_locks(lock)
                if (locked and match[1] == _kernel()) or now - _last_change(left) > SILENT_SECONDS:
                    shutil.rmtree(left)
            except BlockingIOError:  # its writer lives
                pass
            finally:
                os.close(lock)


def _has_locks(file: int) -> bool:
    """Lock an open file, and say whether its file system has locks at all.

    Raises BlockingIOError if another holds the lock.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def _last_change(directory: Path) -> float:
    """When anything in a directory was last written, by the file system's clock."""
    return max(path.lstat().st_mtime for path in (directory, *directory.rglob("*")))


def require_whole(path: str | Path) -> None:
    """Raise UserError for a file that is missing or was changed after this program wrote it.

    A flipped byte can leave a table that reads well and says something else.
    """
    require_file(path)
    if not is_whole(path):
        raise UserError(
            f"{path} was changed after it was written (sha256 differs); delete it and run again to "
            "remake it"
        )


def write_text(path: str | Path, text: str) -> None:
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: str | Path, record: Any) -> None:
    """Write `record` with sorted keys, so that equal records are equal files."""
    if place := not_finite(record):
        raise UserError(
            f"{path} would hold a number that is none, at {place}; look for infinities or NaN in "
            "the model, and report it where there are none"
        )
    text = json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    with recorded_path(path) as part, _told_of_names(path):
        part.write_text(text + "\n", encoding="utf-8")


@contextlib.contextmanager
def _told_of_names(path: str | Path) -> Iterator[None]:
    """Bytes that are no UTF-8 come from names of files: texts are checked when they are read."""
    try:
        yield
    except UnicodeEncodeError:
        raise UserError(
            f"{path} cannot be written, because a name of a file or a text in it is not UTF-8; "
            "correct that"
        ) from None


def not_finite(record: Any, place: str = "") -> str | None:
    """Return where in a record the first infinity or NaN stands, "layers[2].error"; None if none.

    JSON has no such numbers.
    """
    if isinstance(record, float) and not math.isfinite(record):
        return place
    parts: list[tuple[str, Any]] = []
    if isinstance(record, Mapping):
        parts = [(f"{place}.{key}".removeprefix("."), value) for key, value in record.items()]
    elif isinstance(record, list | tuple):
        parts = [(f"{place}[{number}]", value) for number, value in enumerate(record)]
    return next((found for part in parts if (found := not_finite(part[1], part[0]))), None)


def read_json(path: str | Path) -> Any:
    require_whole(path)
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is not valid JSON; delete it and run again to remake it"
        ) from error


def write_jsonl(path: str | Path, records: Iterable[Mapping[str, Any]]) -> None:
    lines = (json.dumps(record, sort_keys=True, ensure_ascii=False) for record in records)
    with recorded_path(path) as part:
        part.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


# A cell that begins like this is a formula to a spreadsheet, which people open .csv files with.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def as_text(cell: Any) -> Any:
    """Return a cell of a .csv file so that no spreadsheet takes it for a formula: after a '."""
    return f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) else cell


def as_written(cell: str) -> str:
    """Return what `as_text` was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def write_table(path: str | Path, table: "pd.DataFrame") -> None:
    """Write `table` as .csv or .parquet, by the name's ending; equal tables are equal files.

    Cells of a .csv are written by `as_text`; `read_table` takes that back.
    """
    with recorded_path(path) as part, _told_of_names(path):
        if Path(path).suffix == ".csv":
            # All text is quoted. Otherwise a carriage return in a cell would end the row.
            table.map(as_text).to_csv(
                part, index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC
            )
        else:
            table.to_parquet(part, index=False)


def read_table(
    path: str | Path,
    require: Sequence[str] = (),
    advice: str = "",
    columns: Collection[str] | None = None,
) -> "pd.DataFrame":
    """Read a table that this program wrote; .csv columns are all text, '' where empty.

    columns: which are read, of those that are there; all for None.

    Raises UserError when the file is missing, was changed or lacks a column in `require`; then it
    gives this advice.
    """
    require_whole(path)
    import pandas as pd  # half a second, which not every script has need of

    try:
        if Path(path).suffix == ".csv":
            chosen = None if columns is None else columns.__contains__
            table = pd.read_csv(path, dtype=str, keep_default_na=False, usecols=chosen)
            table = table.map(as_written)
        else:
            table = pd.read_parquet(path, columns=_there(path, columns))
    except Exception as error:
        if is_out_of_memory(error):  # the file is not at fault
            raise
        kind = type(error).__name__
        raise UserError(
            f"{path} cannot be read as a table ({kind}); delete it and run again"
        ) from None
    missing = [name for name in require if name not in table.columns]
    if missing:
        raise UserError(
            f"{path} has no column {', '.join(map(repr, missing))}; "
            f"its columns are {', '.join(map(str, table.columns))}" + f"; {advice}" * bool(advice)
        )
    return table


def _there(path: str | Path, columns: Collection[str] | None) -> list[str] | None:
    if columns is None:
        return None
    from pyarrow import parquet

    return [name for name in parquet.read_schema(path).names if name in columns]


def require_file(path: str | Path) -> None:
    """Raise UserError unless `path` is a file. Devices and pipes, which may never end, are none."""
    if not os.path.isfile(path):  # unlike Path.is_file, also takes a name that is too long for one
        raise UserError(f"{path} does not exist or is not a file; check the path")


def sha256_file(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_text(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def hash_directory(directory: str | Path, exclude: Sequence[str] = ()) -> dict[str, str]:
    """Return {name: sha256} for the files directly in `directory`, in the order of their names.

    Records of hashes are left out.
    """
    files = sorted(path for path in Path(directory).iterdir() if path.is_file())
    return {
        path.name: sha256_file(path)
        for path in files
        if path.name not in exclude and path.suffix != HASH_SUFFIX
    }


def verify_hashes(directory: str | Path, hashes: Mapping[str, str], remedy: str) -> None:
    """Raise UserError naming the first file of `hashes` that is missing or was changed."""
    for name, expected in hashes.items():
        path = Path(directory) / name
        if not path.is_file():
            raise UserError(f"{path} is missing; {remedy}")
        if sha256_file(path) != expected:
            raise UserError(f"{path} was changed after it was written (sha256 differs); {remedy}")


def most_unpacked(size: int) -> int:
    """Return how many bytes a file of `size` bytes may unpack to.

    Text shrinks to a tenth or so, and only what was made to fill memory to less than a hundredth.
    """
    return max(100 * size, 100_000_000)
