"""What AWQ and GPTQ are worth on a real model and real reports."""

import runpy
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from radquant.files import read_table, write_table

SCRIPTS = Path(__file__).parents[1] / "scripts"
REPORTS = 48


def run_script(name: str, *arguments: object) -> None:
    with mock.patch.object(sys, "argv", [name, *map(str, arguments)]):
        runpy.run_path(str(SCRIPTS / name), run_name="__main__")


def nll_per_token(checkpoint: Path, files: Path) -> np.ndarray:
    """The mean over each reference's tokens, of the reports in `files`/eval.csv."""
    place = files / checkpoint.name
    arguments = ["--train", files / "train.csv", "--eval", files / "eval.csv", "--device", "cpu"]
    arguments += ["--examples", 0, "--prompt", SCRIPTS.parent / "prompts" / "impression.txt"]
    arguments += ["--output", f"{place}.parquet", "--metrics", f"{place}.json"]
    run_script("likelihood.py", "--model", checkpoint, "--precision", checkpoint.name, *arguments)
    table = read_table(f"{place}.parquet")
    return np.array(table["nll"] / table["tokens"])


@pytest.mark.slow
def test_awq_and_gptq_predict_the_references_better_than_plain_rounding(
    finished_run: Path, tmp_path: Path
) -> None:
    """Paired over the same reports, which neither calibration nor the prompt has seen."""
    results = finished_run / "results"
    samples = results / "calibration" / "samples.parquet"
    seen = set(read_table(samples)["id"])
    train = read_table(results / "data" / "train.csv")
    unseen = train[~train["id"].isin(seen)]
    write_table(tmp_path / "train.csv", train[train["id"].isin(seen)])
    write_table(tmp_path / "eval.csv", unseen.iloc[:REPORTS])
    for method in ("rtn", "gptq"):
        recipe = ["--method", method, "--bits", 4, "--group-size", 64, "--device", "cpu"]
        model = ["--model", results / "models" / "original", "--calibration", samples]
        run_script("quantize.py", *model, *recipe, "--output", tmp_path / method)
    rounded = nll_per_token(tmp_path / "rtn", tmp_path)
    assert len(rounded) == REPORTS
    for checkpoint in (results / "checkpoints" / "awq-w4", tmp_path / "gptq"):
        gain = rounded - nll_per_token(checkpoint, tmp_path)
        # two standard errors above 0
        assert gain.mean() > 2 * gain.std(ddof=1) / np.sqrt(REPORTS), checkpoint.name
