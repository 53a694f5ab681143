import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from radquant.errors import UserError
from radquant.files import write_table
from radquant.scoring import lexicon, rewards
from radquant.scoring.baselines import CANDIDATES, best_constant, constant, copy_input

SCRIPT = Path(__file__).parents[1] / "scripts" / "baselines.py"
TARGETS = (
    ["No acute cardiopulmonary disease."] * 30
    + ["No pleural effusion or pneumothorax."] * 12
    + ["Small right pleural effusion."] * 5
    + ["Mild cardiomegaly without edema."] * 3
)
IDS = [f"r{number}" for number in range(len(TARGETS))]


def test_copy_joins_the_inputs_that_are_there():
    table = pd.DataFrame({"id": ["a", "b"], "indication": ["Cough.", ""], "findings": ["A.", "B."]})
    copied = copy_input(table, ["indication", "findings"])
    assert copied.to_dict("list") == {"id": ["a", "b"], "output": ["Cough. A.", "B."]}


def test_without_text_there_is_nothing_to_copy():
    table = pd.DataFrame({"id": ["a", "b"], "findings": ["One.", "Two."]})
    assert copy_input(table, []).to_dict("list") == {"id": ["a", "b"], "output": ["", ""]}


def test_best_constant_is_the_candidate_with_the_highest_mean_reward():
    annotated = {text: lexicon.annotate(text) for text in set(TARGETS)}
    means = {
        text: sum(rewards.f1(annotated[text], annotated[other])[2] for other in TARGETS)
        for text in annotated
    }
    assert best_constant(IDS, TARGETS, seed=1) == max(means, key=lambda text: means[text])


def test_a_rare_text_is_no_candidate_and_order_does_not_matter():
    rare = [f"Opacity in the left lobe, {number} mm." for number in range(CANDIDATES)]
    ids = [*IDS, *(f"s{number}" for number in range(len(rare)))]
    chosen = best_constant(ids, TARGETS + rare, seed=1)
    assert chosen in set(TARGETS)
    assert best_constant(ids[::-1], (TARGETS + rare)[::-1], seed=1) == chosen


def test_constant_gives_every_evaluation_report_the_same_text():
    train = pd.DataFrame({"id": IDS, "impression": TARGETS})
    table = constant(pd.DataFrame({"id": ["x", "y"]}), train, "impression", seed=1)
    assert table["id"].tolist() == ["x", "y"]
    assert table["output"].nunique() == 1


def test_the_script_writes_the_first_reports_only(tmp_path):
    train = pd.DataFrame({"id": IDS, "findings": TARGETS, "impression": TARGETS})
    write_table(tmp_path / "train.csv", train)
    write_table(tmp_path / "eval.csv", train[:5].assign(id=list("caebd")))
    command = [sys.executable, str(SCRIPT), "--target=impression", "--input", "findings"]
    command += ["--seed=1", "--reports=3"]
    for option, name in (("train", "train.csv"), ("eval", "eval.csv")):
        command += [f"--{option}", str(tmp_path / name)]
    for name in ("copy", "constant"):
        command += [f"--{name}-output", str(tmp_path / f"{name}.parquet")]
    subprocess.run(command, check=True)
    for name in ("copy", "constant"):
        assert pd.read_parquet(tmp_path / f"{name}.parquet")["id"].tolist() == ["c", "a", "e"]


def test_no_target_text():
    with pytest.raises(UserError, match="holds no target text"):
        best_constant(["a"], [" "], seed=1)
