"""Calibration samples of unequal length for the tests of other packages' quantizers."""

from pathlib import Path

import pandas as pd
from tiny_models import token_sequences

from radquant.files import write_table

LENGTHS = (5, 24, 17, 9, 24, 30)  # two of fewer than 11 tokens, which GPTQModel drops by itself


def write_samples(directory: Path) -> Path:
    """A calibration set of random tokens in `directory`, a sample of each length; its path."""
    sequences = [token_sequences(1, length, seed)[0] for seed, length in enumerate(LENGTHS)]
    samples = pd.DataFrame({"input_ids": [ids.tolist() for ids in sequences]})
    write_table(directory / "samples.parquet", samples)
    return directory / "samples.parquet"
