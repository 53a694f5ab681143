"""A model and calibration samples for the tests with other packages' quantizers and readers."""

from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from tiny_models import tiny_llama, token_sequences

from radquant.files import write_table

ROTARY = {"rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"}}
LENGTHS = (5, 24, 17, 9, 24, 30)  # two of fewer than 11 tokens, which GPTQModel drops by itself


def write_samples(directory: Path) -> Path:
    """A calibration set of random tokens in `directory`, a sample of each length; its path."""
    sequences = [token_sequences(1, length, seed)[0] for seed, length in enumerate(LENGTHS)]
    samples = pd.DataFrame({"input_ids": [ids.tolist() for ids in sequences]})
    write_table(directory / "samples.parquet", samples)
    return directory / "samples.parquet"


def uneven_llama(directory: Path) -> Path:
    """A tiny model whose linear layers weigh their inputs very differently, as real ones do."""
    tiny_llama(directory, torch.bfloat16, num_key_value_heads=4, **ROTARY)
    tensors = load_file(directory / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    for name, tensor in tensors.items():
        if name.endswith("proj.weight"):
            tensor *= torch.exp(torch.randn(tensor.shape[1], generator=generator)) / 2
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    return directory
