"""What AWQ is worth on a real model and real reports."""

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


@pytest.mark.slow
def test_awq_predicts_the_references_better_than_plain_rounding(
    finished_run: Path, tmp_path: Path
) -> None:
    """Paired over the same reports, which neither calibration nor the prompt has seen."""
    results = finished_run / "results"
    seen = set(read_table(results / "calibration" / "samples.parquet")["id"])
    train = read_table(results / "data" / "train.csv")
    unseen = train[~train["id"].isin(seen)]
    write_table(tmp_path / "train.csv", train[train["id"].isin(seen)])
    write_table(tmp_path / "eval.csv", unseen.iloc[:REPORTS])
    rounded = tmp_path / "rtn"
    original = results / "models" / "original"
    recipe = ["--method", "rtn", "--bits", 4, "--group-size", 64, "--device", "cpu"]
    run_script("quantize.py", "--model", original, *recipe, "--output", rounded)
    nll = {}
    for name, checkpoint in {"awq": results / "checkpoints" / "awq-w4", "rtn": rounded}.items():
        files = ["--train", tmp_path / "train.csv", "--eval", tmp_path / "eval.csv"]
        files += ["--output", tmp_path / f"{name}.parquet", "--metrics", tmp_path / f"{name}.json"]
        prompt = ["--prompt", SCRIPTS.parent / "prompts" / "impression.txt", "--device", "cpu"]
        run_script("likelihood.py", "--model", checkpoint, "--precision", name, *files, *prompt)
        table = read_table(tmp_path / f"{name}.parquet")
        nll[name] = np.array(table["nll"] / table["tokens"])
    gain = nll["rtn"] - nll["awq"]
    assert len(gain) == REPORTS
    assert gain.mean() > 2 * gain.std(ddof=1) / np.sqrt(REPORTS)  # two standard errors above 0
