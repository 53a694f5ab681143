"""Putting together the references' likelihoods that the jobs of several shards left.

Nothing here needs PyTorch.
"""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from radquant.errors import UserError
from radquant.files import read_json, read_table, recorded_path, require_whole, write_table

# Of the shards' records, these are added up. Of the next the largest is taken, and the last may
# differ between shards.
SUMS = (
    *("reports", "same_input_reports", "images", "prompt_tokens", "truncated_prompts", "tokens"),
    *("wall_seconds", "cpu_seconds", "load_seconds"),
)
LARGEST = ("peak_process_bytes", "peak_device_bytes")
NAMES = ("device_name", "engine", "kernel", "cpu_capability")


def join(tables: Sequence[Path], evaluation: Path, output: Path) -> None:
    """Write the table that the likelihood stage would make of all reports of `evaluation` at once.

    tables: of all shards. Raises UserError unless each report stands in one of them.
    """
    if len(tables) == 1:  # half a second, which pandas takes
        require_whole(tables[0])
        with recorded_path(output) as part:
            shutil.copyfile(tables[0], part)
        return
    import pandas as pd

    ids = read_table(evaluation, require=["id"])["id"].tolist()
    parts = [read_table(path, require=["id", "nll", "tokens"]) for path in tables]
    table = pd.concat(parts, ignore_index=True)
    if sorted(table["id"]) != sorted(ids):
        raise UserError(
            f"{tables[0].parent}: the likelihoods of its {len(tables)} shards are of {len(table)} "
            f"reports, not each of the {len(ids)} of {evaluation} once; delete the folder and run "
            "again"
        )
    write_table(output, table.set_index("id").loc[ids].reset_index())


def told(nats: Sequence[float], tokens: Sequence[int]) -> str:
    """The perplexity of references, each of so many nats and tokens, in words."""
    mean = sum(nats) / max(1, sum(tokens))
    perplexity = math.exp(mean) if mean < 700 else math.inf
    return f"{len(nats)} references, perplexity {perplexity:.4g}"


def likelihoods(path: Path) -> tuple[list[float], list[int]]:
    """The nats and the tokens of each reference in a table that `join` wrote."""
    import pyarrow.parquet  # a tenth of pandas' time

    if path.suffix == ".csv":
        table = read_table(path)
        return table["nll"].astype(float).tolist(), table["tokens"].astype(int).tolist()
    found = pyarrow.parquet.read_table(path, columns=["nll", "tokens"])
    return found["nll"].to_pylist(), found["tokens"].to_pylist()


def joined(paths: Sequence[Path]) -> dict[str, Any]:
    """One record of all shards; raises UserError where these tell of different computations."""
    records = [read_json(path) for path in paths]
    whole = dict(records[0])
    for key in whole:
        values = [record[key] for record in records]
        if key in SUMS:
            whole[key] = sum(values)
        elif key in LARGEST:
            whole[key] = max((value for value in values if value is not None), default=None)
        elif key == "too_large_batches":
            whole[key] = [size for sizes in values for size in sizes]
        elif key in NAMES:
            whole[key] = " and ".join(sorted(set(values)))
        elif different := [
            path for path, each in zip(paths, values, strict=True) if each != values[0]
        ]:
            raise UserError(
                f"{paths[0]} and {different[0]} differ in {key}, so their references were not "
                f"scored alike; delete {paths[0].parent} and run again"
            )
    return whole
