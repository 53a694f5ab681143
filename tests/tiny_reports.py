"""Prompts of random tokens, and two small splits with a model that can read them."""

import runpy
import sys
from pathlib import Path
from unittest import mock

import pandas as pd
import torch
from tiny_models import SCRIPTS, WORDS, quantize_tiny, tiny_llama

from radquant.prompts import Prompt


def prompt_of(ids: list[int], name: str = "a", answer: list[int] | None = None) -> Prompt:
    return Prompt(name, "", ids, 0, "", answer or [])


def random_prompts(count: int, shared: int = 9, seed: int = 0) -> list[Prompt]:
    """Prompts of different lengths with a shared beginning."""
    generator = torch.Generator().manual_seed(seed)

    def draw(length: int) -> list[int]:
        return torch.randint(4, len(WORDS), (length,), generator=generator).tolist()

    head = draw(shared)
    return [prompt_of(head + draw(3 + 4 * n), f"r{n}", draw(2 + n % 3)) for n in range(count)]


def model_and_splits(folder: Path) -> Path:
    """Write a tiny model, its packed checkpoint, train.csv and eval.csv; return `folder`."""
    tiny_llama(folder / "original")
    quantize_tiny(folder / "original", folder, "rtn")
    impressions = ["no acute effusion .", "the heart is normal .", "lungs are clear ."]

    def rows(start: int, count: int) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "id": [f"r{n}" for n in range(start, start + count)],
                "findings": ["the lungs are clear . " * (n % 4 + 1) for n in range(count)],
                "impression": [impressions[n % 3] for n in range(count)],
            }
        )

    rows(0, 9).to_csv(folder / "train.csv", index=False)
    rows(100, 10).to_csv(folder / "eval.csv", index=False)
    return folder


def run_script(name: str, data: Path, out: Path, *options: str, model: str = "original") -> None:
    command = [f"{name}.py", "--model", str(data / model), "--precision", "p"]
    command += ["--train", str(data / "train.csv"), "--eval", str(data / "eval.csv")]
    command += ["--batch-size", "3", "--device", "cpu", "--dtype", "float32"]
    if not {"--prompt", "--prompt-text"} & set(options):
        command += ["--prompt-text", "findings : {findings} impression :"]
    command += [*options, "--output", f"{out}.parquet", "--metrics", f"{out}.json"]
    with mock.patch.object(sys, "argv", command):
        runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
