"""The two ways of scripts/verify_checkpoint.py: a checkpoint, or the packing itself."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from radquant.checkpoints.loading import DTYPES
from radquant.errors import UserError
from radquant.files import read_table, write_json
from radquant.verification import selftest
from radquant.verification.checkpoints import (
    Verification,
    record_of,
    verify_checkpoint,
    verify_weights,
)


def verify_packing() -> Verification:
    """Check packing, rounding and activations on layers with known contents."""
    checks = selftest.synthetic_checks()
    return Verification([f"{len(checks)} checks; the worst of each kind:"], checks)


def verify(
    directory: Path,
    original: Path | None,
    samples: Path | None,
    bounds: Mapping[str, float | None],
    dtype: str,
    seeded: tuple[int, int, int],
) -> Verification:
    """Check a checkpoint, and compare it with the original if its directory is given.

    samples: a calibration set, of which outputs are compared on the first sequences; random tokens
    without one. bounds: as for `verify_checkpoint`. dtype: a name of `DTYPES` to compute in.
    seeded: how many sequences, of how many tokens each, and the seed of random ones.
    """
    count, length, _ = seeded
    sequences = first_sequences(samples, count, length) if samples else None
    return verify_checkpoint(directory, original, sequences, bounds, DTYPES[dtype], seeded)


def check_stored(directory: Path, original: Path, output: Path, code: bool) -> Verification:
    """Check a run's checkpoint by its weights alone, and write a record; broken ones stand in it.

    code: whether the models' own program code may run. Raises UserError for a checkpoint that
    cannot be judged.
    """
    found = verify_weights(directory, original, code=code)
    write_json(output, record_of(found))
    return found


def first_sequences(samples: Path, count: int, length: int) -> list[Tensor]:
    """The first `count` sequences of a calibration set, each [at most `length`] int64."""
    rows = read_table(samples, require=["input_ids"])["input_ids"]
    sequences = [torch.tensor(ids[:length]) for ids in rows[:count]]
    if not sequences:
        raise UserError(f"{samples} holds no samples; make the calibration set again")
    return sequences
