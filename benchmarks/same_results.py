"""Hold two finished runs against each other byte for byte: what a change of the code must not move.

python benchmarks/same_results.py BEFORE/results AFTER/results

Compared are the files of scores, likelihoods and outputs, and the tensors of every checkpoint. The
name of the annotator in a score table holds the hash of its code. Where nothing else of a table
differs, that is said and is no difference. Exit status 1 if anything else differs.
"""

import argparse
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

TABLES = ("scores/*.parquet", "likelihood/*.parquet", "generations/*/*.parquet")
TENSORS = ("checkpoints/*/*.safetensors", "checkpoints/*/radquant.runtime")
EQUAL, BUT_NAME = "equal", "equal but for the annotator's name"


def files(folder: Path) -> set[str]:
    found = (path for pattern in (*TABLES, *TENSORS) for path in folder.glob(pattern))
    return {path.relative_to(folder).as_posix() for path in found}


def without_annotator(path: Path) -> bytes:
    """A table's bytes with one name for all annotators."""
    table, written = pd.read_parquet(path), io.BytesIO()
    if "annotator" in table.columns:
        table["annotator"] = "annotator"
    table.to_parquet(written, index=False)
    return written.getvalue()


def compared(before: Path, after: Path) -> Iterator[tuple[str, str]]:
    """(file, what differs) of all files that either run has."""
    for name in sorted(files(before) | files(after)):
        one, other = before / name, after / name
        if not (one.is_file() and other.is_file()):
            yield name, f"is in {before if one.is_file() else after} alone"
        elif one.read_bytes() == other.read_bytes():
            yield name, EQUAL
        elif name.startswith("scores/") and without_annotator(one) == without_annotator(other):
            yield name, BUT_NAME
        else:
            yield name, "differs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path, help="results folder of a finished run")
    parser.add_argument("after", type=Path, help="that of the other")
    options = parser.parse_args()
    found = list(compared(options.before, options.after))
    for name, said in found:
        print(f"{name}: {said}")
    if not found:
        sys.exit(f"error: {options.before} holds no finished run")
    if any(said not in (EQUAL, BUT_NAME) for _, said in found):
        sys.exit(1)


if __name__ == "__main__":
    main()
