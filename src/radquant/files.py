"""Reading and writing files so that a killed run leaves no half file that looks whole."""

import csv
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from radquant.errors import UserError

BOMB = (
    "the content is over a hundred times its packed size; unpack the file yourself if you trust it"
)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is renamed to `path`, else removed.

    The file is its owner's alone (0600) from the start, because it may hold report text.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    temporary.unlink(missing_ok=True)
    temporary.touch(mode=0o600, exist_ok=False)
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """Yield a temporary directory beside `path`; on success it takes the place of `path`."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        if target.exists():
            shutil.rmtree(target)
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: str | Path, record: Any) -> None:
    """Write `record` with sorted keys, so that equal records are equal files."""
    text = json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def read_json(path: str | Path) -> Any:
    require_file(path)
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            f"{path} is not valid JSON; delete it and run again to remake it"
        ) from error


def write_jsonl(path: str | Path, records: Iterable[Mapping[str, Any]]) -> None:
    lines = (json.dumps(record, sort_keys=True, ensure_ascii=False) for record in records)
    write_text(path, "".join(line + "\n" for line in lines))


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    require_file(path)
    records = []
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                records.append(json.loads(line))
            except ValueError as error:
                raise UserError(f"{path}, line {number}: not valid JSON") from error
    return records


# A cell that begins like this is a formula to a spreadsheet, which people open .csv files with.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def as_text(cell: Any) -> Any:
    """Return a cell of a .csv file so that no spreadsheet takes it for a formula: after a '."""
    return f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) else cell


def as_written(cell: str) -> str:
    """Return what `as_text` was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def write_table(path: str | Path, table: pd.DataFrame) -> None:
    """Write `table` as .csv or .parquet, by the name's ending; equal tables are equal files.

    Cells of a .csv are written by `as_text`; `read_table` takes that back.
    """
    with atomic_path(path) as part:
        if Path(path).suffix == ".csv":
            # All text in quotes: without, a carriage return in a cell would end the row.
            table.map(as_text).to_csv(
                part, index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC
            )
        else:
            table.to_parquet(part, index=False)


def read_table(path: str | Path, require: Sequence[str] = ()) -> pd.DataFrame:
    """Read a table that this program wrote; .csv columns are all text, '' where empty.

    Raises UserError when the file is missing or lacks a column in `require`.
    """
    require_file(path)
    try:
        if Path(path).suffix == ".csv":
            table = pd.read_csv(path, dtype=str, keep_default_na=False).map(as_written)
        else:
            table = pd.read_parquet(path)
    except Exception as error:
        kind = type(error).__name__
        raise UserError(
            f"{path} cannot be read as a table ({kind}); delete it and run again"
        ) from None
    missing = [name for name in require if name not in table.columns]
    if missing:
        raise UserError(
            f"{path} has no column {', '.join(map(repr, missing))}; "
            f"its columns are {', '.join(map(str, table.columns))}"
        )
    return table


def require_file(path: str | Path) -> None:
    if not Path(path).is_file():
        raise UserError(f"{path} does not exist or is not a file; check the path")


def sha256_file(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_text(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def hash_directory(directory: str | Path, exclude: Sequence[str] = ()) -> dict[str, str]:
    """Return {name: sha256} for the files directly in `directory`, in the order of their names."""
    files = sorted(path for path in Path(directory).iterdir() if path.is_file())
    return {path.name: sha256_file(path) for path in files if path.name not in exclude}


def verify_hashes(directory: str | Path, hashes: Mapping[str, str], remedy: str) -> None:
    """Raise UserError naming the first file of `hashes` that is missing or was changed."""
    for name, expected in hashes.items():
        path = Path(directory) / name
        if not path.is_file():
            raise UserError(f"{path} is missing; {remedy}")
        if sha256_file(path) != expected:
            raise UserError(f"{path} was changed after it was written (sha256 differs); {remedy}")


def most_unpacked(size: int) -> int:
    """Return how many bytes a file of `size` bytes may unpack to: text shrinks to a tenth or so,
    and only what was made to fill memory to less than a hundredth."""
    return max(100 * size, 100_000_000)
